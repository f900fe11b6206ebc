"""The right side of the panel: regularizers, the verdict on the fact, and the tabs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.edit_card import EditCardBox
from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.explorer.tabs.abilities import AbilitiesTab
from workbench.explorer.tabs.answers import AnswersTab
from workbench.explorer.tabs.continuations import ContinuationsTab
from workbench.explorer.tabs.export import ExportTab, Shown
from workbench.explorer.tabs.history import HistoryTab
from workbench.explorer.tabs.lens import LensTab
from workbench.explorer.tabs.schemes import SchemesTab
from workbench.explorer.tabs.sequence import SequenceTab
from workbench.explorer.tabs.spectrum import SpectrumTab
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.tabs.text import TextTab
from workbench.explorer.tabs.timeline import TimelineTab
from workbench.explorer.tabs.trace import TraceTab
from workbench.explorer.tabs.weights import WeightsTab
from workbench.explorer.widgets import add_classes, card
from workbench.html import render

if TYPE_CHECKING:
    from workbench.evaluation.predictions import BeforeAfter

_LOADING = '<div class="wb-small" role="status">{{ sentence }}</div>'


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
    on_repair : callable
        Called when the user asks for the repair of a refused edit.
    """

    def __init__(
        self,
        desk: Desk,
        regularizers: Sequence[RegularizerBar],
        exports: Path,
        on_undo: Callable[[int], None],
        on_matrix: Callable[[], None],
        on_repair: Callable[[], None],
    ) -> None:
        self._verdict = add_classes(widgets.HTML(), "wb-verdict")
        self.card = EditCardBox(on_repair)
        self.answers = AnswersTab(desk)
        self.weights = WeightsTab(desk, on_matrix)
        self.history = HistoryTab(desk, on_undo)
        self.continuations = ContinuationsTab(desk)
        self.abilities = AbilitiesTab(desk)
        self.export = ExportTab(desk, exports, self._collect)
        self.tabs: tuple[Tab, ...] = (
            self.answers,
            TextTab(desk),
            LensTab(desk),
            TraceTab(desk),
            SchemesTab(desk),
            self.weights,
            SpectrumTab(desk),
            self.abilities,
            self.continuations,
            SequenceTab(desk),
            TimelineTab(desk),
            self.history,
            self.export,
        )
        self._tabs = widgets.Tab(self.tabs, titles=[tab.title for tab in self.tabs], selected_index=0)
        self._tabs.observe(lambda change: self.refresh(), "selected_index")
        verdict = add_classes(widgets.VBox([self._verdict, self.card]), "wb-card")
        super().__init__([card("Regularizer", *regularizers), verdict, self._tabs])
        self.add_class("wb-right")
        self.clear()

    def clear(self) -> None:
        """Show no edit."""
        self.card.clear()
        for tab in self.tabs:
            tab.clear()

    def refresh(self) -> None:
        """Bring the open tab up to date; the others follow when they are opened."""
        if (number := self._tabs.selected_index) is not None:
            self.tabs[number].bring_up_to_date()

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the buttons that ask the model, and those that need an edit."""
        self.card.enable(asking=asking)
        for tab in self.tabs:
            tab.enable(asking=asking, edited=edited)

    def announce(self, sentence: str) -> None:
        """Show a sentence in place of the verdict."""
        self._verdict.value = render(_LOADING, sentence=sentence)

    def show_answers(self, answers: "Sequence[BeforeAfter]", n_edits: int) -> None:
        """Show the answers to a fact's prompts after `n_edits` edits, and the verdict on them."""
        from workbench.explorer.markup import render_verdict

        self._verdict.value = render_verdict(answers, n_edits)
        self.answers.show(answers, n_edits)

    def _collect(self) -> Shown:
        abilities = [self.abilities.picture] if self.abilities.picture is not None else []
        views = [(tab.title, view) for tab in self.tabs if tab.is_current for view in tab.views()]
        return Shown(self.weights.pictures + abilities, self.continuations.continued, views)
