"""The right side of the panel: answers, figures, and the tabs below. It shows results and computes none."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.explorer.tabs import AbilitiesTab, ContinuationsTab, ExportTab, HistoryTab
from workbench.explorer.widgets import WIDE, add_classes, card

if TYPE_CHECKING:
    from workbench.evaluation.predictions import BeforeAfter
    from workbench.explorer.figures import Picture

_NO_EDIT = '<div class="wb-small">Press <b>Edit</b> to see here what the edit does to the weights.</div>'


class Results(widgets.VBox):
    """Everything that is shown of a session.

    Parameters
    ----------
    regularizer : RegularizerBar
        The card at the top.
    exports : Path
        Folder that is suggested for exports.
    on_undo : callable
        Called with the number of the edit to undo.
    actions : dict of str to callable
        Called when the user chooses another matrix ("matrix"), and presses the buttons of the tabs ("continue",
        "check", "export").
    """

    def __init__(
        self,
        regularizers: Sequence[RegularizerBar],
        exports: Path,
        on_undo: Callable[[int], None],
        actions: dict[str, Callable[[], None]],
    ) -> None:
        self._verdict, self._answers = add_classes(widgets.HTML(), "wb-verdict"), widgets.HTML()
        self._heatmap, self._histogram = widgets.HTML(), widgets.HTML()
        self._is_setting = False
        self._matrix = widgets.Dropdown(description="Matrix", layout=WIDE, style={"description_width": "52px"})
        self._matrix.observe(lambda change: None if self._is_setting else actions["matrix"](), "value")
        self.history = HistoryTab(on_undo)
        self.continuations = ContinuationsTab(actions["continue"])
        self.abilities = AbilitiesTab(actions["check"])
        self.export = ExportTab(exports, actions["export"])
        answers = add_classes(card("Answers", self._verdict, self._answers), "wb-answers-box")
        figures = add_classes(widgets.Box([self._heatmap, self._histogram]), "wb-figures")
        weights = add_classes(card("Weights", self._matrix, figures), "wb-figures-box")
        tabs = widgets.Tab(
            [self.history, self.continuations, self.abilities, self.export],
            titles=("History", "Continuations", "Abilities", "Export"),
        )
        super().__init__(
            [card("Regularizer", *regularizers), add_classes(widgets.Box([answers, weights]), "wb-results"), tabs]
        )
        self.add_class("wb-right")
        self.clear()

    def clear(self) -> None:
        """Show no edit."""
        self._heatmap.value, self._histogram.value = _NO_EDIT, ""
        self._matrix.layout.display = "none"
        self.history.clear()
        self.export.clear()

    def enable(self, *, asking: bool, exporting: bool) -> None:
        """Enable or disable the buttons that ask the model, and the one that exports."""
        self.continuations.button.disabled = self.abilities.button.disabled = not asking
        self.export.button.disabled = not exporting

    def show_answers(self, answers: "Sequence[BeforeAfter]", n_edits: int) -> None:
        """Show the answers to a fact's prompts after `n_edits` edits."""
        from workbench.explorer.markup import render_answers, render_verdict

        self._verdict.value = render_verdict(answers, n_edits)
        self._answers.value = render_answers(answers, n_edits)

    def show_figures(self, heatmap: "Picture", histogram: "Picture") -> None:
        """Show the figures of a matrix."""
        self._heatmap.value, self._histogram.value = heatmap.to_html(), histogram.to_html()

    @property
    def matrix(self) -> str:
        """Name of the matrix that the figures show."""
        return self._matrix.value

    def offer_matrices(self, names: Sequence[str]) -> None:
        """Offer the matrices `names`, and select the first unless the current one is among them."""
        if list(self._matrix.options) != list(names):
            self._is_setting, before = True, self._matrix.value  # new options select the first of them
            self._matrix.options = names
            self._matrix.value = before if before in names else names[0]
            self._is_setting = False
        self._matrix.layout.display = "" if len(names) > 1 else "none"
