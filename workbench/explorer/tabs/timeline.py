"""The tab that moves along the edits of the session, or of a stored trajectory."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.errors import EditError, SpecError
from workbench.explorer.desk import Desk
from workbench.explorer.live import LiveView
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import button, row, small
from workbench.interactive import View

if TYPE_CHECKING:
    from workbench.microscope.timeline import Timeline
    from workbench.request import EditRequest

_NO_EDIT = "Make edits, or load a stored trajectory, to move along them."
_PERPLEXITY = -1  # in the list of what may have fallen; others are numbers of facts
_SESSION = "the session's edits"


class TimelineTab(Tab):
    """The model after any number of edits: the facts, perplexity and weights follow a slider."""

    title = "Timeline"

    def __init__(self, desk: Desk) -> None:
        self._timeline: Timeline | None = None
        self._is_stored, self._edits = False, 0
        self._live, self._lens = LiveView(self._pick), LiveView()
        self._wants_lens = widgets.Checkbox(description="Lens of the fact in this state", indent=False)
        self._wants_lens.observe(lambda change: self._follow(), "value")
        self._fell = widgets.Dropdown(
            description="What fell", layout={"width": "min(460px, 100%)"}, style={"description_width": "70px"}
        )
        self._find = button(
            "Find the edit after which this fell",
            self._submit_search,
            disabled=True,
            tooltip="Measures a few states, by bisection",
            layout={"width": "260px"},
        )
        self._found = widgets.HTML()
        self._folder = widgets.Text(placeholder="Folder of a store, such as build/store", layout={"width": "300px"})
        self._list = button(
            "List trajectories", self._submit_list, tooltip="The sequences of this model in the store", disabled=True
        )
        self._stored = widgets.Dropdown(layout={"width": "min(420px, 100%)", "display": "none"})
        self._load = button("Load trajectory", self._submit_load, layout={"width": "130px", "display": "none"})
        self._session = button("Back to the session", self._show_session, layout={"width": "160px", "display": "none"})
        self._source = small(_NO_EDIT)
        store = row(self._folder, self._list, self._stored, self._load, self._session)
        search = row(self._fell, self._find)
        super().__init__(desk, [self._source, self._live, self._wants_lens, self._lens, search, self._found, store])

    def clear(self) -> None:
        """Show no edits; a stored trajectory stays."""
        if not self._is_stored:
            self._set(None, _NO_EDIT)

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the buttons."""
        self._list.disabled = self._load.disabled = not asking
        self._find.disabled = not asking or self._timeline is None

    def refresh(self) -> None:
        """Show the edits of the session, unless a stored trajectory is shown."""
        if not self._is_stored:
            self.desk.submit("timeline", self._do_show_session)

    def views(self) -> list[View]:
        """Return the timeline, and the lens if it is shown."""
        return self._live.views() + self._lens.views()

    def _show_session(self) -> None:
        self._is_stored = False
        self.desk.submit("timeline", self._do_show_session)

    def _pick(self, gesture: Mapping[str, Any]) -> None:
        edits = gesture.get("edits")
        if self._timeline is not None and isinstance(edits, int) and 0 <= edits <= len(self._timeline):
            self.desk.submit("timeline", partial(self._do_measure, edits))

    def _submit_search(self) -> None:
        self.desk.submit("find drop", partial(self._do_search, self._fell.value), slow=True)

    def _submit_list(self) -> None:
        self.desk.submit("list store", partial(self._do_list, self._folder.value.strip()))

    def _submit_load(self) -> None:
        if self._stored.value:
            work = partial(self._do_load, self._folder.value.strip(), self._stored.value)
            self.desk.submit("load trajectory", work, slow=True)

    def _do_show_session(self, monitor: ProgressMonitor) -> None:
        from workbench.microscope.timeline import timeline_of

        session = self.desk.session
        if session is None or self._is_stored:
            return
        with session.unedited(monitor) as sequence:
            timeline = timeline_of(sequence)
            self._set(timeline if len(timeline) else None, _SESSION if len(timeline) else _NO_EDIT)
            if len(timeline):
                timeline.measure(0)
                timeline.measure(len(timeline))
        if len(timeline):
            self._show(len(timeline))

    def _do_measure(self, edits: int, monitor: ProgressMonitor) -> None:
        if (session := self.desk.session) is None or (timeline := self._timeline) is None:
            return
        with session.unedited(monitor):
            timeline.measure(edits)
        self._show(edits)

    def _do_search(self, fact: int, monitor: ProgressMonitor) -> None:
        from workbench.explorer.sequence_views import render_drop
        from workbench.microscope.find_drop import fact_below, find_drop, perplexity_above

        session, timeline = self.desk.session, self._timeline
        if session is None or timeline is None:
            raise EditError("there is no edit yet; make one first.")
        monitor.stage("Searching")
        by = perplexity_above() if fact == _PERPLEXITY else fact_below(fact)
        with session.unedited(monitor):
            drop = find_drop(timeline.measure, 0, len(timeline), by=by)
        self._found.value = render_drop(drop, timeline)
        self._show(len(timeline) if drop is None else drop.edit, drop)

    def _do_list(self, folder: str, monitor: ProgressMonitor) -> None:
        from workbench.experiment.store import Store

        if (session := self.desk.session) is None:
            return
        if not folder or not Path(folder).expanduser().is_dir():
            raise SpecError(f"there is no folder {folder!r}; give the folder of a store.")
        options = []
        for key, record in Store(Path(folder).expanduser()).trajectories().items():
            spec = record["spec"]
            if (
                record["finished"]
                and record["fingerprint"] == session.lm.fingerprint
                and spec["setting"] == "sequential"
            ):
                size = f"{spec['n_operations']} × {spec['batch_size']}, seed {spec['seed']}"
                options.append((f"{record['method']}, {spec['regularizer']['kind']}, {size} ({key[:6]})", key))
        if not options:
            raise SpecError(f"{folder} holds no finished sequence of {session.lm.name}; run one there first.")
        self._stored.options, self._stored.index = options, 0
        for widget in (self._stored, self._load):
            widget.layout.display = ""

    def _do_load(self, folder: str, trajectory: str, monitor: ProgressMonitor) -> None:
        from workbench.experiment.store import Store
        from workbench.microscope.timeline import read_timeline

        if (session := self.desk.session) is None:
            return
        monitor.stage("Reading the edits")
        with session.unedited(monitor):
            timeline = read_timeline(Store(Path(folder).expanduser()), trajectory, session.lm)
            timeline.measure(0)
            timeline.measure(len(timeline))
        self._is_stored = True
        self._set(timeline, f"trajectory {trajectory} of {folder}")
        self._show(len(timeline))

    def _set(self, timeline: "Timeline | None", source: str) -> None:
        self._timeline, self._found.value = timeline, ""
        count = 0 if timeline is None else len(timeline)
        shown = source if timeline is None else f"Shown: {source}, {count} edit{'s' * (count != 1)}."
        self._source.value = small(shown).value
        self._session.layout.display = "" if self._is_stored else "none"
        facts = [] if timeline is None else timeline.requests_until(len(timeline))
        options = [("perplexity above 1.5 times the unedited model's", _PERPLEXITY)]
        self._fell.options = options + [(f"fact {i}: {fact.name}", i - 1) for i, fact in enumerate(facts, start=1)]
        self._fell.index = 0
        self._find.disabled = timeline is None
        if timeline is None:
            self._live.show(None)
            self._lens.show(None)

    def _show(self, edits: int, drop: Any = None) -> None:
        from workbench.explorer.sequence_views import timeline_view

        if self._timeline is not None:
            self._edits = edits
            self._live.show(timeline_view(self._timeline, edits, drop=drop))
            self._follow()

    def _follow(self) -> None:
        """Let the lens follow the timeline, if it is wanted."""
        if not self._wants_lens.value or self._timeline is None:
            self._lens.show(None)
        elif (request := self.desk.fact()) is not None:
            self.desk.submit("timeline lens", partial(self._do_lens, request, self._edits), idle_only=True)

    def _do_lens(self, request: "EditRequest", edits: int, monitor: ProgressMonitor) -> None:
        from workbench.microscope.lens import read_lenses, watch_answers
        from workbench.microscope.lens_view import TOP, lens_view

        if (session := self.desk.session) is None or (timeline := self._timeline) is None or edits > len(timeline):
            return
        with session.unedited(monitor), timeline.state(edits):
            top, watch = min(TOP, session.lm.vocabulary_size), watch_answers(request)
            readings = read_lenses(session.lm, request.filled_prompt, watch=watch, top=top)
        self._lens.show(lens_view(*readings))
