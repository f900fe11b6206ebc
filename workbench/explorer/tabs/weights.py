"""The tab with the change of the weights."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import WIDE, add_classes

if TYPE_CHECKING:
    from workbench.explorer.figures import Picture

_NO_EDIT = '<div class="wb-small">Press <b>Edit</b> to see here what the edit does to the weights.</div>'


class WeightsTab(Tab):
    """|ΔW| and δ of one matrix of the last edit.

    Parameters
    ----------
    desk : Desk
        What the tab may use of the panel.
    on_matrix : callable
        Called when the user chooses another matrix.

    Attributes
    ----------
    pictures : list of Picture
        What is shown.
    """

    title = "Weights"

    def __init__(self, desk: Desk, on_matrix: Callable[[], None]) -> None:
        self.pictures: list[Picture] = []
        self._heatmap, self._histogram = widgets.HTML(), widgets.HTML()
        self._is_setting = False
        self._matrix = widgets.Dropdown(description="Matrix", layout=WIDE, style={"description_width": "52px"})
        self._matrix.observe(lambda change: None if self._is_setting else on_matrix(), "value")
        figures = add_classes(widgets.Box([self._heatmap, self._histogram]), "wb-figures")
        super().__init__(desk, [self._matrix, figures])

    @property
    def matrix(self) -> str:
        """Name of the matrix that the figures show."""
        return self._matrix.value

    def clear(self) -> None:
        """Show no edit."""
        self.pictures, self._heatmap.value, self._histogram.value = [], _NO_EDIT, ""
        self._matrix.layout.display = "none"

    def show(self, heatmap: "Picture", histogram: "Picture") -> None:
        """Show the figures of a matrix."""
        self.pictures = [heatmap, histogram]
        self._heatmap.value, self._histogram.value = heatmap.to_html(), histogram.to_html()

    def offer_matrices(self, names: Sequence[str]) -> None:
        """Offer the matrices `names`, and select the first unless the current one is among them."""
        if list(self._matrix.options) != list(names):
            self._is_setting, before = True, self._matrix.value  # new options select the first of them
            self._matrix.options = names
            self._matrix.value = before if before in names else names[0]
            self._is_setting = False
        self._matrix.layout.display = "" if len(names) > 1 else "none"
