"""Figure 6: RECT by a worked example, drawn by the code that regularizes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.plots.style import HEATMAP, look_of, require_columns


def number_grid(entries: pd.DataFrame, ax: Axes, *, vmax: float, number_format: str = "{:g}") -> Axes:
    """A small matrix as shaded cells with its numbers; cells with `kept` false are struck out.

    `entries` has the columns row, column, value, kept.
    """
    require_columns(entries, "row", "column", "value", "kept")
    grid = entries.pivot(index="row", columns="column", values="value").to_numpy()
    ax.pcolormesh(grid, cmap=HEATMAP, vmin=0, vmax=vmax, edgecolors="white", linewidth=1.5, alpha=0.85)
    for cell in entries.itertuples():
        dark = cell.value < 0.55 * vmax
        text = number_format.format(cell.value) if cell.kept else "0"
        color = ("white" if dark else "black") if cell.kept else "0.6"
        weight = "bold" if cell.kept else "normal"
        ax.text(cell.column + 0.5, cell.row + 0.5, text, ha="center", va="center", color=color, fontweight=weight)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def rect_example(entries: pd.DataFrame, figure: Figure) -> Figure:
    """The four matrices W, ΔW, δ and the regularized ΔW in a row; `entries` has a column `matrix` besides."""
    require_columns(entries, "matrix", "row", "column", "value", "kept")
    names = list(dict.fromkeys(entries["matrix"]))
    axes = figure.subplots(1, len(names))
    for ax, name in zip(axes, names, strict=True):
        part = entries[entries["matrix"] == name]
        number_grid(part, ax, vmax=float(part["value"].max()))
        ax.set_title(name)
    return figure


def kept_share_curves(table: pd.DataFrame, ax: Axes) -> Axes:
    """Share of ‖ΔW‖² that survives against the share of entries kept, one line a regularizer.

    `table` has the columns keep, regularizer, value, both in [0, 1].
    """
    require_columns(table, "keep", "regularizer", "value")
    for name, curve in table.groupby("regularizer", sort=False):
        ax.plot(100 * curve["keep"], 100 * curve["value"], label=name, **look_of(f"{name} 40 %"))
    ends = np.array([0, 100])
    ax.plot(ends, ends, color="0.7", linewidth=0.8, linestyle=":")
    ax.set(xlabel="entries kept (%)", ylabel="‖ΔW‖² kept (%)", xlim=(0, 102), ylim=(0, 102))
    ax.grid(color="0.92")
    ax.legend(loc="lower right")
    return ax
