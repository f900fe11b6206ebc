"""The tab with the spectrum of the sum of all edits, and what a regularizer of the sum does to it."""

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.live import LiveView
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.range import Range
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import row, small
from workbench.interactive import View

if TYPE_CHECKING:
    import pandas as pd

    from workbench.regularize import Regularizer

_NO_EDIT = "Make an edit to see the singular values of what it adds to the weights."
_FACTS = 3  # the last ones, which are scored after each move of a slider
_NONE, _RECT, _PRUNE, _SPHERE = "none", "RECT", "PRUNE", "SPHERE"
_FORMS = (("log (α = e)", "log"), ("log₂", "log2"), ("log₁.₅", "log1.5"), ("log₁.₂", "log1.2"), ("linear", "linear"))


class SpectrumTab(Tab):
    """Singular values of W₀, W_t and ΔW on one log axis, with sliders for a regularizer of the sum.

    Nothing is applied: the regularizer here is tried beside the edits as they are.
    """

    title = "Spectrum"

    def __init__(self, desk: Desk) -> None:
        self._kind = widgets.ToggleButtons(
            options=[_NONE, _RECT, _PRUNE, _SPHERE],
            description="Regularizer of the sum",
            style={"button_width": "76px"},
        )
        self._kind.style.description_width = "150px"
        self._keep = Range(label="keep", value=0.4, min=0.01, max=1.0, step=0.01)
        self._form = widgets.Dropdown(options=_FORMS, description="α, scheme", layout={"width": "230px"})
        self._eta = Range(label="η", value=0.5, max=1.0, step=0.01)
        self._alpha = Range(label="α", value=0.8, max=1.0, step=0.01)
        self._matrix = widgets.Dropdown(description="Matrix", layout={"width": "auto"})
        self._live = LiveView()
        self._scores = small(_NO_EDIT)
        self._plain: tuple[int, pd.DataFrame] | None = None  # scores of the sum as computed, and the state they are of
        self._is_setting = False
        settings = row(self._keep, self._form, self._eta, self._alpha)
        super().__init__(desk, [self._kind, settings, self._matrix, self._live, self._scores])
        self._show_settings()
        for widget in (self._kind, self._keep, self._form, self._eta, self._alpha, self._matrix):
            widget.observe(lambda change: self._change(), "value")

    def clear(self) -> None:
        """Show no edits."""
        self._live.show(None)
        self._scores.value = small(_NO_EDIT).value
        self._matrix.layout.display = "none"

    def refresh(self) -> None:
        """Show the spectrum of the current edits."""
        session = self.desk.session
        if session is None or not session.edits:
            self.clear()
            return
        self._offer(list(session.update))
        self._submit()

    def views(self) -> list[View]:
        """Return the spectrum."""
        return self._live.views()

    def _offer(self, names: list[str]) -> None:
        if list(self._matrix.options) != names:
            self._is_setting = True
            self._matrix.options, self._matrix.index = names, 0
            self._is_setting = False
        self._matrix.layout.display = "" if len(names) > 1 else "none"

    def _change(self) -> None:
        self._show_settings()
        if not self._is_setting and self.desk.session is not None and self.desk.session.edits:
            self._submit()

    def _show_settings(self) -> None:
        shown = {_RECT: (self._keep,), _PRUNE: (self._form,), _SPHERE: (self._eta, self._alpha)}.get(
            self._kind.value, ()
        )
        for widget in (self._keep, self._form, self._eta, self._alpha):
            widget.layout.display = "" if widget in shown else "none"

    def _submit(self) -> None:
        chosen = {
            "keep": self._keep.value,
            "form": self._form.value,
            "eta": self._eta.value,
            "alpha": self._alpha.value,
        }
        work = partial(self._do_show, self._kind.value, chosen, self._matrix.value, self.desk.state())
        self.desk.submit("spectrum", work)

    def _do_show(
        self, kind: str, chosen: dict[str, Any], name: str | None, state: int, monitor: ProgressMonitor
    ) -> None:
        from workbench.explorer.sequence_views import render_scores, spectrum_view
        from workbench.microscope.spectrum import PLAIN, compare_spectra, score_sum

        session = self.desk.session
        if session is None or not session.edits:
            return
        regularizer = _make_regularizer(kind, chosen)
        with session.unedited(monitor) as sequence:
            base, facts = sequence.base, sequence.requests[-_FACTS:]
            versions = {PLAIN: base}
            if regularizer is not None:
                versions[regularizer.label] = regularizer(base, session.lm)
            self._live.show(spectrum_view(compare_spectra(versions, session.lm, name=name)))
            if self._plain is None or self._plain[0] != state:
                self._plain = state, score_sum(base, session.lm, facts)
            label, last = list(versions.items())[-1]
            after = None if last is base else score_sum(last, session.lm, facts)
        self._scores.value = render_scores(self._plain[1], after, label)


def _make_regularizer(kind: str, chosen: dict[str, Any]) -> "Regularizer | None":
    from workbench.regularize import RECT
    from workbench.spectral import PRUNE, SPHERE

    if kind == _NONE:
        return None
    if kind == _RECT:
        return RECT(chosen["keep"])
    return PRUNE(chosen["form"]) if kind == _PRUNE else SPHERE(chosen["eta"], chosen["alpha"])
