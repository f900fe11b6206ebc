"""The tab that edits many facts one by one, with the health of the model after each."""

import threading
from functools import partial
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.data.facts import BUNDLED_HARD, load_facts
from workbench.data.records import BUNDLED
from workbench.errors import EditError, RequestError, WorkbenchError
from workbench.explorer.desk import Desk
from workbench.explorer.health_log import HealthLog
from workbench.explorer.live import LiveView
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import WIDE, button, row, small
from workbench.html import render
from workbench.interactive import View
from workbench.registry import methods

if TYPE_CHECKING:
    from workbench.explorer.session import Session
    from workbench.regularize import Regularizer
    from workbench.request import EditRequest

_FILE = "file"
_SOURCES = (
    ("Bundled facts", BUNDLED),
    ("Hard facts: one token that opens the prompt", BUNDLED_HARD),
    ("A file", _FILE),
)
_BESIDE = ("PRUNE", "RECT 40 %", "SPHERE")
_FAILED = '<div class="wb-note">{% for line in lines %}<div>{{ line }}</div>{% endfor %}</div>'


class SequenceTab(Tab):
    """Many facts in a row: choose them, run them one by one, see when the model falls."""

    title = "Sequence"

    def __init__(self, desk: Desk) -> None:
        self._facts: tuple[EditRequest, ...] = ()
        self._waiting: list[EditRequest] = []
        self._pausing = threading.Event()
        self._log, self._live = HealthLog(), LiveView()
        self._source = widgets.Dropdown(options=_SOURCES, description="Facts", layout=WIDE)
        self._file = widgets.Text(placeholder="ZsRE, CounterFact, EasyEdit, CSV", description="File", layout=WIDE)
        self._read = button("Read", self._read_file, layout={"width": "80px"})
        self._choice = widgets.SelectMultiple(rows=8, layout=WIDE, description="Choose")
        self._count = widgets.BoundedIntText(value=5, min=1, max=1000, description="or draw", layout={"width": "170px"})
        self._seed = widgets.BoundedIntText(value=0, min=0, max=10**6, description="seed", layout={"width": "150px"})
        self._draw = button("Draw", self._draw_facts, layout={"width": "80px"})
        self._add = button("Add to the sequence", self._add_facts, layout={"width": "170px"})
        self._forget = button("Clear the list", self._clear_waiting, layout={"width": "120px"})
        self._list = widgets.HTML()
        self._method = widgets.Dropdown(
            options=[(each.title, each.name) for each in methods().values()], value="rome", description="Method"
        )
        self._beside = widgets.Dropdown(
            options=_BESIDE, description="Beside", tooltip="Regularizer of the sum beside it"
        )
        self._run = button("Run", self._submit, button_style="primary", disabled=True, layout={"width": "120px"})
        self._pause = button("Pause after this edit", self._pausing.set, disabled=True, layout={"width": "170px"})
        self._message = widgets.HTML()
        pick = [
            self._source,
            row(self._file, self._read),
            self._choice,
            row(self._count, self._seed, self._draw, self._add),
        ]
        run = [row(self._method, self._beside), row(self._run, self._pause, self._forget)]
        super().__init__(desk, [*pick, self._list, *run, self._message, self._live])
        self._source.observe(lambda change: self._offer(), "value")
        self._offer()
        self._show_waiting()

    def clear(self) -> None:
        """Show no edits; the facts that wait stay."""
        self._log.clear()
        self._live.show(None)

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the buttons."""
        self._run.disabled = not asking or not (self._waiting or edited)
        self._pause.disabled = asking or not self._waiting

    def refresh(self) -> None:
        """Fade what is shown if the edits have changed since; *Run* or *Measure* brings it up to date."""
        self._show_waiting()
        if self._is_stale():
            self._live.add_class("wb-stale")

    def views(self) -> list[View]:
        """Return the health of the sequence, unless the edits have changed since."""
        return [] if self._is_stale() else self._live.views()

    def _is_stale(self) -> bool:
        session = self.desk.session
        return session is not None and not self._log.is_of(session)

    # choosing facts

    def _offer(self) -> None:
        is_file = self._source.value == _FILE
        for widget in (self._file, self._read):
            widget.layout.display = "" if is_file else "none"
        self._set_facts(() if is_file else load_facts(self._source.value).requests)

    def _read_file(self) -> None:
        try:
            found = load_facts(self._file.value.strip())
        except WorkbenchError as err:
            self._show_lines([str(err)])
            return
        self._set_facts(found.requests)
        self._show_lines([f"{len(found)} facts read, {len(found.rejected)} records left out."])

    def _set_facts(self, facts: "tuple[EditRequest, ...]") -> None:
        self._facts = facts
        labels = [f"{fact.filled_prompt} → {fact.target_new}" for fact in facts]
        self._choice.options = [(label, i) for i, label in enumerate(labels)]

    def _draw_facts(self) -> None:
        import random

        count = min(self._count.value, len(self._facts))
        self._choice.value = sorted(random.Random(self._seed.value).sample(range(len(self._facts)), count))

    def _add_facts(self) -> None:
        known = {(fact.subject, fact.prompt) for fact in self._waiting}
        chosen = [self._facts[i] for i in self._choice.value]
        self._waiting += [fact for fact in chosen if (fact.subject, fact.prompt) not in known]
        self._show_waiting()

    def _clear_waiting(self) -> None:
        self._waiting = []
        self._show_waiting()

    def _show_waiting(self) -> None:
        names = ", ".join(fact.name for fact in self._waiting[:30]) + (" …" if len(self._waiting) > 30 else "")
        self._list.value = small(f"{len(self._waiting)} facts wait: {names}" if names else "No fact waits.").value
        self._run.description = "Run" if self._waiting else "Measure"
        self._run.disabled = self.desk.session is None or not (self._waiting or self.desk.session.edits)

    # running them

    def _submit(self) -> None:
        self._pausing.clear()
        work = partial(self._do_run, self._method.value, self._beside.value)
        self.desk.submit("sequence", work, slow=True)

    def _do_run(self, method: str, beside: str, monitor: ProgressMonitor) -> None:
        if (session := self.desk.session) is None:
            return
        failed: list[str] = []
        editor, regularizer = session.editor(method), make_beside(beside)
        total = len(self._waiting)
        try:
            self._measure(session, regularizer, monitor)
            while self._waiting and not self._pausing.is_set():
                fact = self._waiting[0]
                monitor.step(f"Edit {total - len(self._waiting) + 1}: {fact.name}", total - len(self._waiting), total)
                try:
                    session.edit(fact, editor, monitor=monitor)
                except (EditError, RequestError) as err:
                    failed.append(f"{fact.name}: {err}")
                del self._waiting[0]
                self._show_waiting()
                self._measure(session, regularizer, monitor)
        finally:
            if session.edits:
                self.desk.show_edits(session.edits[-1].request)
        paused = [f"Paused; {len(self._waiting)} facts wait."] if self._waiting else []
        self._show_lines(failed + paused)

    def _measure(self, session: "Session", regularizer: "Regularizer", monitor: ProgressMonitor) -> None:
        self._log.bring_up_to_date(session, regularizer, self._waiting, monitor)
        self._live.show(self._log.to_view())
        self._live.remove_class("wb-stale")

    def _show_lines(self, lines: list[str]) -> None:
        self._message.value = render(_FAILED, lines=lines) if lines else ""


def make_beside(name: str) -> "Regularizer":
    """Return the regularizer of the sum that is shown beside the edits."""
    from workbench.regularize import RECT
    from workbench.spectral import PRUNE, SPHERE

    known: dict[str, Regularizer] = {"PRUNE": PRUNE(), "RECT 40 %": RECT(0.4), "SPHERE": SPHERE()}
    return known[name]
