"""The explorer as a panel of widgets in JupyterLab and under Voilà, on top of a `Session`."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
from markupsafe import escape

from workbench.data.facts import load_facts
from workbench.errors import ModelError, RiskError, WorkbenchError, first_line
from workbench.explorer.desk import Choice, Chosen, Desk
from workbench.explorer.fact_form import FactForm
from workbench.explorer.method_form import MethodForm
from workbench.explorer.progress import Cancelled, Progress, ProgressMonitor
from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.explorer.results import Results
from workbench.explorer.style import read_style
from workbench.explorer.widgets import add_classes, button, row
from workbench.explorer.worker import Job, Work, Worker
from workbench.html import render

if TYPE_CHECKING:
    from workbench.explorer.edits import Edit
    from workbench.explorer.session import Session
    from workbench.regularize import Regularizer
    from workbench.request import EditRequest

log = logging.getLogger(__name__)

MODELS = ("smollm2-135m", "gemma3-270m", "gpt2", "gpt2-xl", "EleutherAI/gpt-j-6b", "meta-llama/Llama-2-7b-hf")
_REFRESH_EVERY = 0.1  # seconds
_NOTE = '<div class="wb-note">{{ text }}</div>'
_ERROR = '<div class="wb-error" role="alert">{{ text }}</div>'


class Explorer(widgets.VBox):
    """A panel to edit facts in a language model and to see the effects.

    Each panel has its own model, session and thread. It appears at once, and the model is loaded in its thread.

    Parameters
    ----------
    model : str
        Name of the model, as `wb.load` takes it.
    facts : str
        ``"bundled"``, ``"bundled-hard"``, or a file of facts.
    exports_dir : str or Path
        Folder in which exports are written.

    Raises
    ------
    RequestError
        If the facts cannot be read.
    """

    def __init__(
        self, model: str = "smollm2-135m", *, facts: str = "bundled", exports_dir: str | Path = "explorer-exports"
    ) -> None:
        self.session: Session | None = None
        self._shown: EditRequest | None = None  # the fact with the answers on the right
        self._state = 0  # changes with the session, its edits and the fact that is shown
        self._refreshed = 0.0
        self._facts = FactForm(load_facts(facts), self._predict)
        self._method = MethodForm()
        self._regularizer = RegularizerBar("Each edit", self._regularize)
        self._of_sum = RegularizerBar("Sum of edits", self._regularize_sum)
        desk = Desk(
            lambda: self.session,
            self._read_fact,
            self._submit,
            lambda: self._state,
            self._show_changed,
            self._method.set_layer,
            self._read_choice,
        )
        self._results = Results(
            desk,
            (self._regularizer, self._of_sum),
            Path(exports_dir).expanduser().resolve(),
            self._undo,
            lambda: self._submit("figures", lambda monitor: self._show_figures()),
            lambda: self._submit("edit", self._do_repair, slow=True),
        )
        super().__init__([widgets.HTML(f"<style>{read_style()}</style>"), self._head(model), self._columns()])
        self.add_class("wb-explorer")
        self._enable(None)
        self._worker = Worker(
            make_monitor=lambda job: ProgressMonitor(partial(self._show_progress, job)),
            on_start=self._show_start,
            on_end=self._show_end,
        )
        self._facts.fill_first()
        self._load()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all work is done; return False if that takes longer than `timeout` seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Close the panel and end its thread."""
        if hasattr(self, "_worker"):  # widgets are closed also where they could not be made
            self._worker.close()
        super().close()

    # the parts of the panel

    def _head(self, model: str) -> widgets.Widget:
        self._model = widgets.Combobox(
            value=model,
            options=MODELS,
            description="Model",
            placeholder="a hub id or a folder",
            layout={"width": "340px"},
            style={"description_width": "48px"},
        )
        self._load_button = button("Load", self._load, layout={"width": "80px"})
        self._status = add_classes(widgets.HTML(), "wb-small", "wb-status")
        return add_classes(row(self._model, self._load_button, self._status), "wb-head")

    def _columns(self) -> widgets.Widget:
        flexible = {"width": "auto", "flex": "1 1 90px"}
        self._edit_button = button("Edit", self._edit, button_style="primary", layout=flexible)
        self._ask_button = button(
            "Ask only", self._predict, tooltip="Show what the model answers now, without an edit", layout=flexible
        )
        self._undo_button = button("Undo last", lambda: self._undo(None), layout=flexible)
        self._bar = widgets.IntProgress(layout={"width": "auto", "flex": "1 1 120px"})
        self._stage = add_classes(widgets.HTML(), "wb-small")
        cancel = button("Cancel", lambda: self._worker.cancel(), layout={"width": "90px"})
        self._progress = widgets.VBox([row(self._bar, cancel), self._stage], layout={"display": "none"})
        self._message = widgets.HTML()
        self._anyway = button(
            "Apply anyway",
            lambda: self._submit("edit", self._do_apply_refused),
            tooltip="Make the edit that was refused; it is not computed again",
            layout={"width": "120px", "display": "none"},
        )
        buttons = row(self._edit_button, self._ask_button, self._undo_button)
        actions = add_classes(widgets.VBox([buttons, self._progress, self._message, self._anyway]), "wb-card")
        left = add_classes(widgets.VBox([self._facts, actions, self._method]), "wb-left")
        return add_classes(widgets.Box([left, self._results]), "wb-columns")

    # called in the kernel's thread: these read the widgets and submit the work

    def _submit(self, name: str, work: Work, *, slow: bool = False, idle_only: bool = False) -> None:
        self._worker.submit(Job(name, work, slow=slow, idle_only=idle_only))

    def _load(self) -> None:
        self._submit("load", partial(self._do_load, self._model.value.strip()), slow=True)

    def _predict(self) -> None:
        if (request := self._read_fact()) is not None:
            self._submit("predict", partial(self._do_predict, request))

    def _read_fact(self) -> "EditRequest | None":
        """Return the fact that the form describes; show the error and return None if it describes none."""
        try:
            return self._facts.read_request()
        except WorkbenchError as err:
            self._show_error(err)
            return None

    def _read_choice(self) -> Choice | None:
        """Return what the forms choose; show the error and return None if a hyperparameter is not allowed."""
        try:
            method, fields = self._method.read_choice()
        except WorkbenchError as err:
            self._show_error(err)
            return None
        return Choice(method, fields, self._regularizer.read_choice(), self._of_sum.read_choice())

    def _edit(self) -> None:
        # a second click may be under way when the button is disabled
        if self._edit_button.disabled or (request := self._read_fact()) is None:
            return
        if (choice := self._read_choice()) is None:
            return
        work = partial(self._do_edit, request=request, choice=choice)
        self._edit_button.disabled = True
        self._submit("edit", work, slow=True)

    def _regularize(self) -> None:
        if self.session and self.session.edits:
            self._submit("regularize", partial(self._do_regularize, chosen=self._regularizer.read_choice()))

    def _regularize_sum(self) -> None:
        if self.session:
            self._submit("regularize sum", partial(self._do_regularize_sum, chosen=self._of_sum.read_choice()))

    def _undo(self, number: int | None) -> None:
        self._submit("undo", partial(self._do_undo, number))

    # called in the panel's thread: these do the work and show its results

    def _do_load(self, name: str, monitor: ProgressMonitor) -> None:
        if not name:
            raise ModelError(f"no model is named; give {MODELS[0]!r}, a hub id or a folder.")
        monitor.stage(f"Loading {name}")
        self._results.announce(f"Loading {name}; the first time, this may take a minute.")
        from workbench.explorer.session import Session
        from workbench.explorer.shared_models import load_shared
        from workbench.library_logging import quiet_libraries

        quiet_libraries()
        session = Session(load_shared(name))
        session.regularize_sum(_regularizer_of_sum(self._of_sum.read_choice()))
        monitor.check()  # from here on it cannot be cancelled
        self.session = session
        self._method.attach(session)
        self._results.clear()
        self._show_kept(None)
        self._do_predict(self._facts.read_request(), ProgressMonitor())

    def _do_predict(self, request: "EditRequest", monitor: ProgressMonitor) -> None:
        session = self._require_session()
        answers, _ = session.predict(request, monitor=monitor)
        self._shown, self._state = request, self._state + 1
        self._results.show_answers(answers, len(session.edits))
        self._results.refresh()

    def _require_session(self) -> "Session":
        if self.session is None:
            raise ModelError("no model is loaded; name one and press Load.")
        return self.session

    def _do_edit(self, monitor: ProgressMonitor, *, request: "EditRequest", choice: Choice) -> None:
        session, regularizer = self._require_session(), _make_regularizer(choice.of_edit)
        try:
            editor = session.editor(choice.method, choice.fields)
            session.edit(request, editor, regularizer, cautious=True, monitor=monitor)
        except RiskError:
            if session.refused is not None:
                self._show_card(session.refused, is_refused=True)
            raise
        self._show_edit(session, request)

    def _do_apply_refused(self, monitor: ProgressMonitor) -> None:
        session = self._require_session()
        self._show_edit(session, session.apply_refused().request)

    def _do_repair(self, monitor: ProgressMonitor) -> None:
        from workbench.explorer.proposals import repair_refused

        session = self._require_session()
        edit = repair_refused(session, monitor=monitor)
        self._regularizer.set(edit.regularizer)
        self._show_edit(session, edit.request)

    def _show_edit(self, session: "Session", request: "EditRequest") -> None:
        self._results.continuations.suggest([request.filled_prompt, request.name])
        self._show_edits(request)

    def _do_regularize(self, monitor: ProgressMonitor, *, chosen: Chosen) -> None:
        session = self._require_session()
        edit = session.regularize(_make_regularizer(chosen), monitor=monitor)
        self._show_edits(self._shown or edit.request)

    def _do_regularize_sum(self, monitor: ProgressMonitor, *, chosen: Chosen) -> None:
        session = self._require_session()
        session.regularize_sum(_regularizer_of_sum(chosen), monitor=monitor)
        if session.edits:
            self._show_edits(self._shown or session.edits[-1].request)

    def _do_undo(self, number: int | None, monitor: ProgressMonitor) -> None:
        session = self._require_session()
        undone = session.undo(number)
        if session.edits:
            self._regularizer.set(session.edits[-1].regularizer)
            self._show_edits(session.edits[-1].request)
        else:
            self._results.clear()
            self._show_kept(None)
            self._show_edits(undone[0].request)

    def _show_changed(self, request: "EditRequest") -> None:
        """Show edits that a tab has changed, and the regularizers that it has chosen."""
        from workbench.regularize import Unregularized

        session = self._require_session()
        if session.edits:
            self._regularizer.set(session.edits[-1].regularizer)
        self._of_sum.set(session.accumulated or Unregularized())
        self._show_edits(request)

    def _show_card(self, edit: "Edit", *, is_refused: bool) -> None:
        self._results.card.show(edit, is_refused=is_refused)
        show_written = partial(self._results.card.show_written, self._require_session())
        self._submit("card", show_written, idle_only=True)

    def _show_edits(self, request: "EditRequest") -> None:
        """Show all that depends on the edits, and the answers to a fact; the slower parts once nothing else waits."""
        session = self._require_session()
        self._shown, self._state = request, self._state + 1
        if session.edits:
            self._results.weights.offer_matrices(session.matrices())
            self._show_figures()
            self._show_kept(session)
            self._show_card(session.edits[-1], is_refused=False)
        answers, history = session.predict(request)
        self._results.show_answers(answers, len(session.edits))
        if session.edits:
            self._results.history.show(session, history)
            self._submit("code", lambda monitor: self._results.export.show_code(session), idle_only=True)
        if self._results.abilities.picture is not None:
            self._results.abilities.fade()
        self._results.continuations.refresh()
        self._results.refresh()

    def _show_kept(self, session: "Session | None") -> None:
        self._regularizer.show(session.measure_kept() if session else None)
        of_sum = session is not None and session.accumulated is not None
        self._of_sum.show(session.measure_kept_of_sum() if session and of_sum else None)

    def _show_figures(self) -> None:
        from workbench.explorer.figures import heatmap_picture, histogram_picture

        session = self._require_session()
        view = session.weight_view(self._results.weights.matrix)
        label = session.edits[-1].regularizer.label
        self._results.weights.show(heatmap_picture(view), histogram_picture(view, label))

    # messages, progress and what can be pressed

    def _show_start(self, job: Job) -> None:
        if not job.idle_only:  # else it would remove the message of the job before
            self._message.value = ""
            self._anyway.layout.display = "none"
        self._status.value = escape(f"{self._model_line()} · working …")
        if job.slow:
            self._stage.value, self._bar.value, self._bar.max = "", 0, 1
            self._progress.layout.display = ""
        self._enable(job)

    def _show_end(self, job: Job, error: Exception | None) -> None:
        self._progress.layout.display = "none"
        self._enable(None)
        self._status.value = escape(self._model_line())
        for note in job.notes:
            self._message.value += render(_NOTE, text=note)
        if isinstance(error, Cancelled):
            if not job.idle_only:
                self._message.value = render(_NOTE, text="Cancelled; nothing was changed.")
        elif error is not None:
            self._show_error(error)
            if self.session and self.session.refused is not None:
                self._anyway.layout.display = ""

    def _show_error(self, error: Exception) -> None:
        if isinstance(error, WorkbenchError):
            sentence = str(error)
        else:
            log.debug("unexpected error in the explorer", exc_info=error)
            sentence = f"This did not work: {first_line(error)} ({type(error).__name__})."
        line = " ".join(part.strip() for part in sentence.splitlines())
        self._message.value = render(_ERROR, text=line)

    def _enable(self, job: Job | None) -> None:
        """Enable the buttons that can be used while `job` runs: all of them unless it is slow."""
        free, session = job is None or not job.slow, self.session
        asking, edited = bool(free and session), bool(free and session and session.edits)
        self._edit_button.disabled = self._ask_button.disabled = not asking
        self._load_button.disabled, self._undo_button.disabled = not free, not edited
        self._results.enable(asking=asking, edited=edited)

    def _model_line(self) -> str:
        if self.session is None:
            return "no model yet"
        lm, count = self.session.lm, len(self.session.edits)
        size = sum(parameter.numel() for parameter in lm.model.parameters()) / 1e6
        return (
            f"{lm.name}: {lm.arch.name}, {size:,.0f} M parameters, layers 0 to {lm.n_layers - 1}, "
            f"on {lm.device} · {count or 'no'} edit{'s' * (count != 1)}"
        )

    def _show_progress(self, job: Job, progress: Progress) -> None:
        now = time.monotonic()
        if not job.slow or (now - self._refreshed < _REFRESH_EVERY and progress.done):
            return
        self._refreshed = now
        self._stage.value = escape(progress.line)
        self._bar.max = progress.expected or 1
        self._bar.value = min(progress.done, progress.expected) if progress.expected else 1
        self._bar.bar_style = "" if progress.expected else "info"


def _make_regularizer(chosen: Chosen) -> "Regularizer":
    from workbench.regularize import make_regularizer

    name, keep = chosen
    return make_regularizer(name, keep=keep)


def _regularizer_of_sum(chosen: Chosen) -> "Regularizer | None":
    return None if chosen[0] == "none" else _make_regularizer(chosen)
