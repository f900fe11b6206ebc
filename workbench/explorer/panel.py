"""The explorer as a panel of widgets, in JupyterLab and under Voilà: what is asked for goes to a `Session`."""

import logging
import time
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.data.facts import load_facts
from workbench.errors import EditError, ModelError, WorkbenchError, first_line
from workbench.explorer.fact_form import FactForm
from workbench.explorer.method_form import MethodForm
from workbench.explorer.progress import Cancelled, Progress, Watch
from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.explorer.results import Results
from workbench.explorer.style import style
from workbench.explorer.widgets import button, classed, row
from workbench.explorer.worker import Job, Jobs, Work

if TYPE_CHECKING:
    from workbench.explorer.edits import Continued
    from workbench.explorer.figures import Picture
    from workbench.explorer.session import Session
    from workbench.regularize import Regularizer
    from workbench.request import EditRequest

log = logging.getLogger(__name__)

MODELS = ("smollm2-135m", "gpt2", "gpt2-xl", "EleutherAI/gpt-j-6b", "meta-llama/Llama-2-7b-hf")
_SHOWN_EVERY = 0.1  # seconds


class Explorer(widgets.VBox):
    """Edit facts in a language model, and see what it does.

    Each panel has a model, a session and a thread of its own. It is there at once; the model is loaded behind it.

    Parameters
    ----------
    model : str
        What `wb.load` takes.
    facts : str
        ``"bundled"``, or a file of facts.
    exports_dir : str or Path
        Folder in which exports are made.

    Raises
    ------
    RequestError
        If the facts cannot be read.
    """

    _jobs: Jobs | None = None

    def __init__(
        self, model: str = "smollm2-135m", *, facts: str = "bundled", exports_dir: str | Path = "explorer-exports"
    ) -> None:
        self.session: Session | None = None
        self._shown: EditRequest | None = None  # whose answers are on the right
        self._pictures: dict[str, Picture] = {}
        self._continued: list[Continued] = []
        self._told = 0.0
        self._facts = FactForm(load_facts(facts), self._ask)
        self._method = MethodForm()
        self._regularizer = RegularizerBar(self._reregularize)
        self._results = Results(
            self._regularizer,
            Path(exports_dir).expanduser().resolve(),
            self._undo,
            {
                "matrix": lambda: self._put("figures", lambda watch: self._redraw()),
                "continue": self._go_on,
                "check": self._check,
                "export": self._export,
            },
        )
        super().__init__([widgets.HTML(f"<style>{style()}</style>"), self._head(model), self._columns()])
        self.add_class("wb-explorer")
        self._enable(None)
        self._jobs = Jobs(watch=lambda job: Watch(partial(self._report, job)), begun=self._begun, ended=self._ended)
        self._facts.first()
        self._load()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was asked for is done; whether that came within `timeout` seconds."""
        return self._jobs.wait(timeout)

    def close(self) -> None:
        """Close the panel and end its thread."""
        if self._jobs is not None:
            self._jobs.close()
        super().close()

    # what is there

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
        self._status = classed(widgets.HTML(), "wb-small", "wb-status")
        return classed(row(self._model, self._load_button, self._status), "wb-head")

    def _columns(self) -> widgets.Widget:
        flexible = {"width": "auto", "flex": "1 1 90px"}
        self._edit_button = button("Edit", self._edit, button_style="primary", layout=flexible)
        self._ask_button = button(
            "Ask only", self._ask, tooltip="What the model answers now, without an edit", layout=flexible
        )
        self._undo_button = button("Undo last", lambda: self._undo(None), layout=flexible)
        self._bar = widgets.IntProgress(layout={"width": "auto", "flex": "1 1 120px"})
        self._stage = classed(widgets.HTML(), "wb-small")
        cancel = button("Cancel", lambda: self._jobs.cancel(), layout={"width": "90px"})
        self._progress = widgets.VBox([row(self._bar, cancel), self._stage], layout={"display": "none"})
        self._message = widgets.HTML()
        buttons = row(self._edit_button, self._ask_button, self._undo_button)
        acts = classed(widgets.VBox([buttons, self._progress, self._message]), "wb-card")
        left = classed(widgets.VBox([self._facts, acts, self._method]), "wb-left")
        return classed(widgets.Box([left, self._results]), "wb-columns")

    # what is asked for: in the kernel's own thread, which only reads widgets and hands the work on

    def _put(self, name: str, work: Work, *, slow: bool = False, idle_only: bool = False) -> None:
        self._jobs.put(Job(name, work, slow=slow, idle_only=idle_only))

    def _load(self) -> None:
        name = self._model.value.strip()
        self._put("load", partial(self._loaded, name), slow=True)

    def _ask(self) -> None:
        if (request := self._read()) is not None:
            self._put("look", partial(self._looked, request))

    def _read(self) -> "EditRequest | None":
        """The fact that the form describes; None if it describes none, which is said."""
        try:
            return self._facts.request()
        except WorkbenchError as err:
            self._say(err)
            return None

    def _edit(self) -> None:
        # a second click may be under way when the button is disabled
        if self._edit_button.disabled or (request := self._read()) is None:
            return
        try:
            method, fields = self._method.chosen()
        except WorkbenchError as err:
            self._say(err)
            return
        work = partial(self._edited, request=request, method=method, fields=fields, chosen=self._regularizer.chosen())
        self._edit_button.disabled = True
        self._put("edit", work, slow=True)

    def _reregularize(self) -> None:
        if self.session and self.session.edits:
            self._put("regularize", partial(self._regularized, chosen=self._regularizer.chosen()))

    def _undo(self, number: int | None) -> None:
        self._put("undo", partial(self._undone, number))

    def _go_on(self) -> None:
        self._put("continue", partial(self._went_on, *self._results.continuations.asked()), slow=True)

    def _check(self) -> None:
        self._put("check", partial(self._checked, self._results.abilities.limit.value), slow=True)

    def _export(self) -> None:
        self._put("export", partial(self._exported, self._results.export.folder.value.strip()), slow=True)

    # what is done: in the panel's thread

    def _loaded(self, name: str, watch: Watch) -> None:
        if not name:
            raise ModelError(f"no model is named; give {MODELS[0]!r}, a hub id or a folder.")
        watch.stage(f"Loading {name}")
        from workbench.commands.printing import quiet_libraries
        from workbench.explorer.session import Session
        from workbench.lm import load

        quiet_libraries()
        session = Session(load(name))
        watch.check()  # from here on it is all or nothing
        self.session = session
        self._method.attach(session)
        self._results.clear()
        self._regularizer.show(None)
        self._looked(self._facts.request(), Watch())

    def _looked(self, request: "EditRequest", watch: Watch) -> None:
        answers, _ = self._open().look(request, watch=watch)
        self._shown = request
        self._results.show_answers(answers, len(self.session.edits))

    def _open(self) -> "Session":
        if self.session is None:
            raise ModelError("no model is loaded; name one and press Load.")
        return self.session

    def _edited(self, watch: Watch, *, request: "EditRequest", method: str, fields: dict, chosen: tuple) -> None:
        session = self._open()
        session.edit(request, session.editor(method, fields), _regularizer(chosen), watch=watch)
        self._shown = request
        self._results.continuations.suggest([request.filled_prompt, request.subject])
        self._show_edits()

    def _regularized(self, watch: Watch, *, chosen: tuple) -> None:
        self._open().regularize(_regularizer(chosen), watch=watch)
        self._show_edits()

    def _undone(self, number: int | None, watch: Watch) -> None:
        session = self._open()
        undone = session.undo(number)
        self._shown = session.edits[-1].request if session.edits else undone[0].request
        if session.edits:
            self._regularizer.set(session.edits[-1].regularizer)
        else:
            self._results.clear()
            self._regularizer.show(None)
        self._show_edits()

    def _show_edits(self) -> None:
        """Show all that hangs on the edits; the slower parts when nothing else is asked for."""
        session = self.session
        if session.edits:
            self._results.offer_matrices(session.matrices())
            self._redraw()
            self._regularizer.show(session.kept())
        answers, history = session.look(self._shown)
        self._results.show_answers(answers, len(session.edits))
        if session.edits:
            self._results.history.show(session.edits, history, session.growth(), session.thresholds)
            self._put("code", self._show_code, idle_only=True)
        if self._pictures.pop("abilities", None):
            self._results.abilities.fade()
        prompts, n_tokens = self._results.continuations.asked()
        if prompts:
            self._put("go on", partial(self._went_on, prompts, n_tokens), idle_only=True)

    def _redraw(self) -> None:
        from workbench.explorer.figures import heatmap_picture, histogram_picture

        session = self._open()
        view = session.weight_view(self._results.matrix)
        heatmap, histogram = heatmap_picture(view), histogram_picture(view, session.edits[-1].regularizer.label)
        self._pictures |= {"heatmap": heatmap, "histogram": histogram}
        self._results.show_figures(heatmap, histogram)

    def _show_code(self, watch: Watch) -> None:
        from workbench.explorer.script import script_of

        self._results.export.show_code(script_of(self.session.lm, self.session.edits))

    def _went_on(self, prompts: list[str], n_tokens: int, watch: Watch) -> None:
        session = self._open()
        watch.stage("Continuing the prompts")
        self._continued = session.continue_prompts(prompts, n_tokens, watch=watch)
        self._results.continuations.show(self._continued, bool(session.edits))

    def _checked(self, limit: int, watch: Watch) -> None:
        from workbench.explorer.figures import abilities_picture

        picture = abilities_picture(self._open().check_abilities(limit, watch=watch))
        self._pictures["abilities"] = picture
        self._results.abilities.show(picture)

    def _exported(self, folder: str, watch: Watch) -> None:
        from workbench.explorer.export import export

        if not folder:
            raise EditError("no folder is named; give one to export into.")
        watch.stage("Exporting")
        pictures = list(self._pictures.values())
        self._results.export.show_written(*export(self._open(), folder, pictures, self._continued))

    # what is said

    def _begun(self, job: Job) -> None:
        if not job.idle_only:  # else it would take back what the job before had to say
            self._message.value = ""
        self._status.value = f"{self._model_line()} · working …"
        if job.slow:
            self._stage.value, self._bar.value, self._bar.max = "", 0, 1
            self._progress.layout.display = ""
        self._enable(job)

    def _ended(self, job: Job, error: Exception | None) -> None:
        self._progress.layout.display = "none"
        self._enable(None)
        self._status.value = self._model_line()
        for note in job.notes:
            self._message.value += f'<div class="wb-note">{escape(note)}</div>'
        if isinstance(error, Cancelled):
            if not job.idle_only:
                self._message.value = '<div class="wb-note">Cancelled; nothing was changed.</div>'
        elif error is not None:
            self._say(error)

    def _say(self, error: Exception) -> None:
        if isinstance(error, WorkbenchError):
            sentence = str(error)
        else:
            log.debug("the explorer met an error", exc_info=error)
            sentence = f"This did not work: {first_line(error)} ({type(error).__name__})."
        line = " ".join(part.strip() for part in sentence.splitlines())
        self._message.value = f'<div class="wb-error" role="alert">{escape(line)}</div>'

    def _enable(self, job: Job | None) -> None:
        """What can be pressed while a job runs: all if none does, all but what needs its end else."""
        free, session = job is None or not job.slow, self.session
        asking, edited = bool(free and session), bool(free and session and session.edits)
        self._edit_button.disabled = self._ask_button.disabled = not asking
        self._load_button.disabled, self._undo_button.disabled = not free, not edited
        self._results.enable(asking=asking, exporting=edited)

    def _model_line(self) -> str:
        if self.session is None:
            return "no model yet"
        lm, count = self.session.lm, len(self.session.edits)
        size = sum(parameter.numel() for parameter in lm.model.parameters()) / 1e6
        return (
            f"{escape(lm.name)}: {escape(lm.arch.name)}, {size:,.0f} M parameters, layers 0 to {lm.n_layers - 1}, "
            f"on {escape(str(lm.device))} · {count or 'no'} edit{'s' * (count != 1)}"
        )

    def _report(self, job: Job, progress: Progress) -> None:
        now = time.monotonic()
        if not job.slow or (now - self._told < _SHOWN_EVERY and progress.done):
            return
        self._told = now
        self._stage.value = escape(_progress_line(progress))
        self._bar.max = progress.expected or 1
        self._bar.value = min(progress.done, progress.expected) if progress.expected else 1
        self._bar.bar_style = "" if progress.expected else "info"


def _regularizer(chosen: tuple[str, float | None]) -> "Regularizer":
    from workbench.commands.method_options import choose_regularizer

    return choose_regularizer(*chosen, seed=0)


def _progress_line(progress: Progress) -> str:
    if progress.expected:
        return f"{progress.stage}: {progress.done} of {'' if progress.exact else 'at most '}{progress.expected}"
    return progress.stage + (f": {progress.done} passes" if progress.done else "")
