"""The tab with the edits so far."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import add_classes, button, small

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.evaluation.predictions import BeforeAfter
    from workbench.explorer.session import Session


class HistoryTab(Tab):
    """The edits, each with a button that undoes it, and a table of how far the weights have moved.

    Parameters
    ----------
    desk : Desk
        What the tab may use of the panel.
    on_undo : callable
        Called with the number of the edit to undo.
    """

    title = "History"

    def __init__(self, desk: Desk, on_undo: "Callable[[int], None]") -> None:
        self._on_undo = on_undo
        self._rows, self._growth = widgets.VBox(), widgets.HTML()
        super().__init__(desk, [self._rows, self._growth])
        self.clear()

    def clear(self) -> None:
        """Show no edits."""
        self._rows.children, self._growth.value = [small("No edits yet.")], ""

    def show(self, session: "Session", now: "Sequence[BeforeAfter]") -> None:
        """Show the edits, the answer to the prompt of each edit `now`, and the table of their growth."""
        from workbench.explorer.markup import render_edit, render_growth

        edits = session.edits
        self._rows.children = [
            add_classes(
                widgets.Box([widgets.HTML(render_edit(i, *pair)), self._button(i, len(edits))]), "wb-history-row"
            )
            for i, pair in enumerate(zip(edits, now, strict=True), start=1)
        ]
        self._growth.value = render_growth(session.growth(), session.thresholds, session.accumulated)

    def _button(self, number: int, count: int) -> widgets.Button:
        last = number == count
        return button(
            "Undo" if last else f"Undo {number} to {count}",
            lambda: self._on_undo(number),
            tooltip="Undo this edit" + ("" if last else " and the later ones, which were computed on top of it"),
            layout={"width": "110px"},
        )
