"""The tab with the answers to a fact's prompts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.tabs.tab import Tab

if TYPE_CHECKING:
    from workbench.evaluation.predictions import BeforeAfter


class AnswersTab(Tab):
    """The most probable next tokens of each prompt of a fact, by the unedited and the edited model."""

    title = "Answers"

    def __init__(self, desk: Desk) -> None:
        self._table = widgets.HTML()
        super().__init__(desk, [self._table])

    def show(self, answers: "Sequence[BeforeAfter]", n_edits: int) -> None:
        """Show the answers to a fact's prompts after `n_edits` edits."""
        from workbench.explorer.markup import render_answers

        self._table.value = render_answers(answers, n_edits)
