"""Choosing a regularizer and how much it keeps."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.widgets import row

if TYPE_CHECKING:
    from workbench.explorer.weights import Kept
    from workbench.regularize import Regularizer

KINDS = {"Unregularized": "none", "RECT": "rect", "RandomK": "random", "PCAK": "pca"}  # by class


class RegularizerBar(widgets.VBox):
    """Which regularizer, how much it keeps, and what that is of the last edit.

    Parameters
    ----------
    changed : callable
        Called when either is changed by hand.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed, self._setting = changed, False
        self._kind = widgets.ToggleButtons(
            options=[("None", "none"), ("RECT", "rect"), ("Random", "random"), ("PCA", "pca")],
            tooltips=[
                "The update as the method computed it",
                "Keep the entries with the largest relative change δ",
                "Keep entries drawn at random",
                "Principal components, as in the paper's code",
            ],
            style={"button_width": "84px"},
        )
        self._keep = widgets.IntSlider(
            value=40,
            min=1,
            max=100,
            continuous_update=False,
            disabled=True,
            description="keep %",
            layout=widgets.Layout(width="auto", flex="1 1 220px", min_width="220px"),
            style={"description_width": "52px"},
        )
        self._said = widgets.HTML()
        super().__init__([widgets.HTML("<h2>Regularizer</h2>"), row(self._kind, self._keep), self._said])
        self.add_class("wb-card")
        for widget in (self._kind, self._keep):
            widget.observe(self._chosen, "value")

    def chosen(self) -> tuple[str, float | None]:
        """The regularizer's name and the share it keeps, as `choose_regularizer` takes them."""
        return self._kind.value, None if self._kind.value == "none" else self._keep.value / 100

    def set(self, regularizer: "Regularizer") -> None:
        """Show the `regularizer` of an edit; one from elsewhere is left to its label in the history."""
        self._setting = True
        self._kind.value = KINDS.get(type(regularizer).__name__, self._kind.value)
        if hasattr(regularizer, "keep"):
            self._keep.value = round(100 * regularizer.keep)
        self._setting = False

    def show(self, kept: "Kept | None") -> None:
        """Say what is `kept` of the last edit; nothing without one."""
        self._said.value = (
            ""
            if kept is None
            else f"<b>{100 * kept.share:.1f} %</b> of the entries changed ({kept.entries:,} of {kept.total:,}), "
            f"with <b>{100 * kept.norm_share:.1f} %</b> of ‖ΔW‖²"
        )

    def _chosen(self, change: dict) -> None:
        self._keep.disabled = self._kind.value == "none"
        if not self._setting:
            self._changed()
