"""The right side of the panel, which shows and computes nothing: answers, figures, and the tabs below."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.explorer.tabs import AbilitiesTab, ContinuationsTab, ExportTab, HistoryTab
from workbench.explorer.widgets import WIDE, card, classed

if TYPE_CHECKING:
    from workbench.evaluation.predictions import Answered
    from workbench.explorer.figures import Picture

_NOTHING_YET = '<div class="wb-small">Press <b>Edit</b>: what it does to the weights is shown here.</div>'


class Results(widgets.VBox):
    """Everything that is shown of a session.

    Parameters
    ----------
    regularizer : RegularizerBar
        Stands on top.
    exports : Path
        Where exports go.
    undo : callable
        Takes the number of an edit.
    actions : dict of str to callable
        Called when another matrix is to be shown ("matrix"), and what "continue", "check" and "export" do.
    """

    def __init__(
        self,
        regularizer: RegularizerBar,
        exports: Path,
        undo: Callable[[int], None],
        actions: dict[str, Callable[[], None]],
    ) -> None:
        self._verdict, self._answers = classed(widgets.HTML(), "wb-verdict"), widgets.HTML()
        self._heatmap, self._histogram = widgets.HTML(), widgets.HTML()
        self._offering = False
        self._matrix = widgets.Dropdown(description="Matrix", layout=WIDE, style={"description_width": "52px"})
        self._matrix.observe(lambda change: None if self._offering else actions["matrix"](), "value")
        self.history = HistoryTab(undo)
        self.continuations = ContinuationsTab(actions["continue"])
        self.abilities = AbilitiesTab(actions["check"])
        self.export = ExportTab(exports, actions["export"])
        answers = classed(card("Answers", self._verdict, self._answers), "wb-answers-box")
        figures = classed(widgets.Box([self._heatmap, self._histogram]), "wb-figures")
        weights = classed(card("Weights", self._matrix, figures), "wb-figures-box")
        tabs = widgets.Tab(
            [self.history, self.continuations, self.abilities, self.export],
            titles=("History", "Continuations", "Abilities", "Export"),
        )
        super().__init__([regularizer, classed(widgets.Box([answers, weights]), "wb-results"), tabs])
        self.add_class("wb-right")
        self.clear()

    def clear(self) -> None:
        """Show no edit."""
        self._heatmap.value, self._histogram.value = _NOTHING_YET, ""
        self._matrix.layout.display = "none"
        self.history.clear()
        self.export.clear()

    def enable(self, *, asking: bool, exporting: bool) -> None:
        """Whether what is `asking` the model can be pressed, and `exporting`."""
        self.continuations.button.disabled = self.abilities.button.disabled = not asking
        self.export.button.disabled = not exporting

    def show_answers(self, answers: "Sequence[Answered]", n_edits: int) -> None:
        """Show `answers` to a fact's prompts after `n_edits`."""
        from workbench.explorer.markup import answers_table, verdict

        self._verdict.value = verdict(answers, n_edits)
        self._answers.value = answers_table(answers, n_edits)

    def show_figures(self, heatmap: "Picture", histogram: "Picture") -> None:
        """Show `heatmap` and `histogram` of a matrix."""
        self._heatmap.value, self._histogram.value = heatmap.html(), histogram.html()

    @property
    def matrix(self) -> str:
        """Of which matrix there are figures."""
        return self._matrix.value

    def offer_matrices(self, names: Sequence[str]) -> None:
        """Offer the matrices `names`, the first one chosen unless the present one is among them."""
        if list(self._matrix.options) != list(names):
            self._offering, before = True, self._matrix.value  # new options choose the first of them
            self._matrix.options = names
            self._matrix.value = before if before in names else names[0]
            self._offering = False
        self._matrix.layout.display = "" if len(names) > 1 else "none"
