"""The tab with the scores on the eight tasks."""

from functools import partial
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import button, row, small

if TYPE_CHECKING:
    from workbench.explorer.figures import Picture


class AbilitiesTab(Tab):
    """Scores on the eight tasks.

    Attributes
    ----------
    picture : Picture or None
        The figure of the current scores; None if the edits have changed since.
    """

    title = "Abilities"

    def __init__(self, desk: Desk) -> None:
        self.picture: Picture | None = None
        self.limit = widgets.BoundedIntText(
            value=10,
            min=1,
            max=5000,
            description="Examples of each task",
            layout=widgets.Layout(width="250px"),
            style={"description_width": "160px"},
        )
        self.button = button("Check abilities", self._check, disabled=True)
        self._figure = small("Scores the eight tasks with the unedited and the edited model.")
        super().__init__(desk, [row(self.limit, self.button), self._figure])

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the button."""
        self.button.disabled = not asking

    def fade(self) -> None:
        """Show that the edits have changed since the scores were computed."""
        self.picture = None
        self._figure.add_class("wb-stale")

    def _check(self) -> None:
        self.desk.submit("check", partial(self._do_check, self.limit.value), slow=True)

    def _do_check(self, limit: int, monitor: ProgressMonitor) -> None:
        from workbench.explorer.figures import abilities_picture

        if (session := self.desk.session) is not None:
            self.picture = abilities_picture(session.check_abilities(limit, monitor=monitor))
            self._figure.value = self.picture.to_html()
            self._figure.remove_class("wb-stale")
