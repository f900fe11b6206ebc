"""The row that chooses a regularizer and the share it keeps."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.range import Range
from workbench.explorer.widgets import add_classes, row, small
from workbench.html import render
from workbench.parameters import parameters_of
from workbench.registry import regularizer_row, regularizers

if TYPE_CHECKING:
    from workbench.explorer.weights import KeptShare
    from workbench.regularize import Regularizer

_KEPT = """
<b>{{ "%.1f"|format(100 * kept.share) }} %</b> of the entries changed
({{ "{:,}".format(kept.entries) }} of {{ "{:,}".format(kept.total) }}),
with <b>{{ "%.1f"|format(100 * kept.norm_share) }} %</b> of ‖ΔW‖²
"""


class RegularizerBar(widgets.VBox):
    """A regularizer, the share it keeps, and what that leaves of an update.

    Parameters
    ----------
    of : str
        What is regularized: one edit, or the sum of all.
    on_change : callable
        Called when the user changes either.
    """

    def __init__(self, of: str, on_change: Callable[[], None]) -> None:
        self._on_change, self._is_setting = on_change, False
        self._kind = widgets.ToggleButtons(
            options=[(each.title, each.name) for each in regularizers().values()],
            tooltips=[each.description for each in regularizers().values()],
            style={"button_width": "auto"},
        )
        self._keep = Range(label="keep", unit=" %", value=40, min=1)
        self._kept = widgets.HTML()
        self._show_keep()
        super().__init__([row(add_classes(small(of), "wb-of"), self._kind, self._keep), self._kept])
        self._kind.observe(lambda change: self._show_keep(), "value")
        for widget in (self._kind, self._keep):
            widget.observe(lambda change: None if self._is_setting else self._on_change(), "value")

    def read_choice(self) -> tuple[str, float | None]:
        """Return the name of the regularizer and the share it keeps, None for one that keeps no share."""
        return self._kind.value, self._keep.value / 100 if self._keeps_share() else None

    def set(self, regularizer: "Regularizer") -> None:
        """Show the regularizer of an edit; one without a row is named in the history only."""
        names = {each.kind: each.name for each in regularizers().values()}
        self._is_setting = True
        self._kind.value = names.get(type(regularizer).__name__, self._kind.value)
        if (keep := getattr(regularizer, "keep", None)) is not None:
            self._keep.value = round(100 * keep)
        self._is_setting = False

    def show(self, kept: "KeptShare | None") -> None:
        """Show what is `kept`; nothing without an edit."""
        self._kept.value = "" if kept is None else render(_KEPT, kept=kept)

    def _show_keep(self) -> None:
        self._keep.layout.display = "" if self._keeps_share() else "none"

    def _keeps_share(self) -> bool:
        return "keep" in parameters_of(regularizer_row(self._kind.value).regularizer)
