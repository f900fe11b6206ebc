"""What all tabs share."""

from collections.abc import Sequence
from typing import ClassVar

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.interactive import View


class Tab(widgets.VBox):
    """A tab of the panel.

    Parameters
    ----------
    desk : Desk
        What the tab may use of the panel.
    children : sequence of Widget
        Its parts.

    Attributes
    ----------
    title : str
        What is written on the tab.
    """

    title: ClassVar[str]

    def __init__(self, desk: Desk, children: Sequence[widgets.Widget] = ()) -> None:
        self.desk = desk
        self._state: int | None = None
        super().__init__(children)
        self.add_class("wb-tab")

    def bring_up_to_date(self) -> None:
        """Bring the tab up to date if anything has changed since it was last shown."""
        if self.desk.session is not None and not self.is_current:
            self._state = self.desk.state()
            self.refresh()

    @property
    def is_current(self) -> bool:
        """Whether nothing has changed since the tab was brought up to date."""
        return self._state == self.desk.state()

    def refresh(self) -> None:
        """Show the current edits and fact; called from any thread, so that work is submitted and not done here."""

    def clear(self) -> None:
        """Show no edits."""

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the buttons: those that ask the model, and those that need an edit."""

    def views(self) -> list[View]:
        """Return what the tab shows and a saved page can show, too."""
        return []
