"""The tab that continues prompts."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import WIDE, button, filled_lines, row

if TYPE_CHECKING:
    from workbench.explorer.edits import Continuation


class ContinuationsTab(Tab):
    """Prompts that the user types, and their continuations.

    Attributes
    ----------
    continued : list of Continuation
        What is shown.
    """

    title = "Continuations"

    def __init__(self, desk: Desk) -> None:
        self.continued: list[Continuation] = []
        self._prompts = widgets.Textarea(
            description="Prompts", placeholder="Prompts to continue, one per line", rows=3, layout=WIDE
        )
        self._n_tokens = widgets.BoundedIntText(
            value=20, min=1, max=400, description="Tokens", layout=widgets.Layout(width="140px")
        )
        self.button = button("Continue", partial(self._submit, slow=True), disabled=True)
        self._table = widgets.HTML()
        super().__init__(desk, [self._prompts, row(self._n_tokens, self.button), self._table])

    def suggest(self, prompts: Sequence[str]) -> None:
        """Put prompts into the field if it is empty."""
        if not self._prompts.value.strip():
            self._prompts.value = "\n".join(prompts)

    def refresh(self) -> None:
        """Continue the prompts again, if there are any."""
        if filled_lines(self._prompts.value):
            self._submit(slow=False)

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the button."""
        self.button.disabled = not asking

    def _submit(self, *, slow: bool) -> None:
        work = partial(self._do_continue, filled_lines(self._prompts.value), self._n_tokens.value)
        self.desk.submit("continue" if slow else "continue again", work, slow=slow, idle_only=not slow)

    def _do_continue(self, prompts: list[str], n_tokens: int, monitor: ProgressMonitor) -> None:
        from workbench.explorer.markup import render_continuations

        if (session := self.desk.session) is not None:
            monitor.stage("Continuing the prompts")
            self.continued = session.continue_prompts(prompts, n_tokens, monitor=monitor)
            self._table.value = render_continuations(self.continued, bool(session.edits))
