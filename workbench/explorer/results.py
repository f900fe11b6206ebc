"""The right side of the panel: answers, figures, and the tabs below."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.explorer.tabs.abilities import AbilitiesTab
from workbench.explorer.tabs.continuations import ContinuationsTab
from workbench.explorer.tabs.export import ExportTab, Shown
from workbench.explorer.tabs.history import HistoryTab
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import WIDE, add_classes, card

if TYPE_CHECKING:
    from workbench.evaluation.predictions import BeforeAfter
    from workbench.explorer.figures import Picture

_NO_EDIT = '<div class="wb-small">Press <b>Edit</b> to see here what the edit does to the weights.</div>'


class Results(widgets.VBox):
    """Everything that is shown of a session.

    Parameters
    ----------
    desk : Desk
        What the tabs may use of the panel.
    regularizers : sequence of RegularizerBar
        The card at the top.
    exports : Path
        Folder that is suggested for exports.
    on_undo : callable
        Called with the number of the edit to undo.
    on_matrix : callable
        Called when the user chooses another matrix.
    """

    def __init__(
        self,
        desk: Desk,
        regularizers: Sequence[RegularizerBar],
        exports: Path,
        on_undo: Callable[[int], None],
        on_matrix: Callable[[], None],
    ) -> None:
        self._verdict, self._answers = add_classes(widgets.HTML(), "wb-verdict"), widgets.HTML()
        self._heatmap, self._histogram = widgets.HTML(), widgets.HTML()
        self._pictures: list[Picture] = []
        self._is_setting = False
        self._matrix = widgets.Dropdown(description="Matrix", layout=WIDE, style={"description_width": "52px"})
        self._matrix.observe(lambda change: None if self._is_setting else on_matrix(), "value")
        self.history = HistoryTab(desk, on_undo)
        self.continuations = ContinuationsTab(desk)
        self.abilities = AbilitiesTab(desk)
        self.export = ExportTab(desk, exports, self._collect)
        self.tabs: tuple[Tab, ...] = (self.history, self.continuations, self.abilities, self.export)
        answers = add_classes(card("Answers", self._verdict, self._answers), "wb-answers-box")
        figures = add_classes(widgets.Box([self._heatmap, self._histogram]), "wb-figures")
        weights = add_classes(card("Weights", self._matrix, figures), "wb-figures-box")
        self._tabs = widgets.Tab(self.tabs, titles=[tab.title for tab in self.tabs])
        self._tabs.observe(lambda change: self.refresh(), "selected_index")
        super().__init__(
            [card("Regularizer", *regularizers), add_classes(widgets.Box([answers, weights]), "wb-results"), self._tabs]
        )
        self.add_class("wb-right")
        self.clear()

    def clear(self) -> None:
        """Show no edit."""
        self._heatmap.value, self._histogram.value = _NO_EDIT, ""
        self._matrix.layout.display = "none"
        for tab in self.tabs:
            tab.clear()

    def refresh(self) -> None:
        """Bring the open tab up to date; the others follow when they are opened."""
        if (number := self._tabs.selected_index) is not None:
            self.tabs[number].bring_up_to_date()

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the buttons that ask the model, and those that need an edit."""
        for tab in self.tabs:
            tab.enable(asking=asking, edited=edited)

    def show_answers(self, answers: "Sequence[BeforeAfter]", n_edits: int) -> None:
        """Show the answers to a fact's prompts after `n_edits` edits."""
        from workbench.explorer.markup import render_answers, render_verdict

        self._verdict.value = render_verdict(answers, n_edits)
        self._answers.value = render_answers(answers, n_edits)

    def show_figures(self, heatmap: "Picture", histogram: "Picture") -> None:
        """Show the figures of a matrix."""
        self._pictures = [heatmap, histogram]
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

    def _collect(self) -> Shown:
        abilities = [self.abilities.picture] if self.abilities.picture is not None else []
        views = [(tab.title, view) for tab in self.tabs if tab.is_current for view in tab.views()]
        return Shown(self._pictures + abilities, self.continuations.continued, views)
