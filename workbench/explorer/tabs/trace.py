"""The tab with causal traces, which show where a fact is carried and set the layer to edit."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.data.facts import load_bundled_facts
from workbench.explorer.desk import Desk
from workbench.explorer.live import LiveView
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import button, row, small
from workbench.html import render
from workbench.interactive import View

if TYPE_CHECKING:
    from workbench.microscope.trace import CausalTrace
    from workbench.request import EditRequest

_ABOUT = (
    "Noise on the subject makes the unedited model lose its answer; then one state at a time is put back. Where the "
    "answer returns, the fact is carried. A click on a cell sets the layer of the method."
)
_KINDS = {
    "Hidden states": ("state",),
    "MLPs": ("mlp",),
    "Attentions": ("attention",),
    "All three": ("state", "mlp", "attention"),
}
_OWN, _TRUE, _NEW = "the model's own answer", "the true answer", "the new answer"
_N_FACTS = 10  # over which a layer is suggested


class TraceTab(Tab):
    """Causal traces of the fact, by the unedited model, and the layer that they suggest."""

    title = "Trace"

    def __init__(self, desk: Desk) -> None:
        narrow = {"description_width": "60px"}
        self.kind = widgets.Dropdown(
            options=list(_KINDS), value="MLPs", description="Restored", layout={"width": "210px"}, style=narrow
        )
        self.answer = widgets.Dropdown(
            options=[_OWN, _TRUE, _NEW], description="Answer", layout={"width": "260px"}, style=narrow
        )
        self.samples = widgets.BoundedIntText(
            value=10, min=1, max=100, description="Samples", layout=widgets.Layout(width="130px"), style=narrow
        )
        self.seed = widgets.BoundedIntText(
            value=0, min=0, max=10**6, description="Seed", layout=widgets.Layout(width="130px"), style=narrow
        )
        self.button = button("Trace", self._submit, disabled=True)
        self.suggest = button(
            "Suggest a layer",
            self._submit_suggestion,
            tooltip=f"Average the effect of MLPs at the subject's last token over {_N_FACTS} bundled facts",
            layout={"width": "150px"},
            disabled=True,
        )
        self._live, self._said = LiveView(self._pick), widgets.HTML()
        chosen = row(self.kind, self.answer, self.samples, self.seed, self.button, self.suggest)
        super().__init__(desk, [small(_ABOUT), chosen, self._live, self._said])

    def clear(self) -> None:
        """Show no trace, as after another model was loaded."""
        self._live.show(None)
        self._said.value = ""

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the buttons."""
        self.button.disabled = self.suggest.disabled = not asking

    def views(self) -> list[View]:
        """Return the trace that is shown."""
        return self._live.views()

    def _pick(self, gesture: Mapping[str, Any]) -> None:
        if isinstance(layer := gesture.get("layer"), int):
            self.desk.set_layer(layer)

    def _submit(self) -> None:
        if (request := self.desk.fact()) is not None:
            answer = {_NEW: request.target_new, _TRUE: request.target_true}.get(self.answer.value)
            settings = self._settings(_KINDS[self.kind.value])
            self.desk.submit("trace", partial(self._do_trace, request, answer, settings), slow=True)

    def _submit_suggestion(self) -> None:
        self.desk.submit("suggest layer", partial(self._do_suggest, self._settings(("mlp",))[0]), slow=True)

    def _settings(self, kinds: tuple[Any, ...]) -> "list[CausalTrace]":
        from workbench.microscope.trace import CausalTrace  # torch takes seconds to import

        return [CausalTrace(kind=kind, n_samples=self.samples.value, seed=self.seed.value) for kind in kinds]

    def _do_trace(
        self, request: "EditRequest", answer: str | None, settings: "list[CausalTrace]", monitor: ProgressMonitor
    ) -> None:
        from workbench.microscope.layer_choice import describe_suggestion, read_layer_sweep, suggest_layer
        from workbench.microscope.trace_view import trace_view

        if (session := self.desk.session) is None:
            return
        expected = sum(each.count_passes(session.lm, request) for each in settings)
        monitor.stage(f"Tracing {request.name}", expected)
        with session.edited(monitor) as lm, lm.unedited():
            traces = [each(lm, request, answer=answer) for each in settings]
        self._live.show(trace_view(traces))
        of_mlps = [trace for trace in traces if trace.settings.kind == "mlp"]
        sweep = read_layer_sweep(session.lm.name)
        self._say(describe_suggestion(suggest_layer(of_mlps), sweep) if of_mlps else "")

    def _do_suggest(self, settings: "CausalTrace", monitor: ProgressMonitor) -> None:
        from dataclasses import replace

        from workbench.microscope.layer_choice import describe_suggestion, read_layer_sweep, suggest_layer

        if (session := self.desk.session) is None:
            return
        settings = replace(settings, tokens="subject last")
        requests = load_bundled_facts().with_words_before_subject().sample(_N_FACTS, seed=settings.seed)
        expected = sum(settings.count_passes(session.lm, request) for request in requests)
        monitor.stage(f"Tracing {_N_FACTS} facts", expected)
        with session.edited(monitor) as lm, lm.unedited():
            suggestion = suggest_layer([settings(lm, request) for request in requests])
        self.desk.set_layer(suggestion.layer)
        self._say(describe_suggestion(suggestion, read_layer_sweep(session.lm.name)))

    def _say(self, sentence: str) -> None:
        self._said.value = render('<div class="wb-note">{{ sentence }}</div>', sentence=sentence) if sentence else ""
