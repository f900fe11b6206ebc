"""Figure 6: RECT by a worked example, and the share of the update that it keeps."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.plots.style import HEATMAP, require_columns, styles_of


def number_grid(entries: pd.DataFrame, ax: Axes, *, vmax: float) -> Axes:
    """Draw a small matrix as shaded cells with their numbers; those not kept are a gray 0.

    Parameters
    ----------
    entries : DataFrame
        Table with the columns row, column, value and kept.
    ax : Axes
        The Axes to draw on.
    vmax : float
        Value of the brightest color.

    Returns
    -------
    Axes
    """
    require_columns(entries, "row", "column", "value", "kept")
    values, kept = (entries.pivot(index="row", columns="column", values=name) for name in ("value", "kept"))
    texts = values.map("{:g}".format).where(kept, "0")
    colors = {"cmap": HEATMAP, "vmin": 0, "vmax": vmax, "alpha": 0.85, "linewidths": 1.5, "linecolor": "white"}
    bare = {"square": True, "cbar": False, "xticklabels": False, "yticklabels": False}
    sns.heatmap(values, annot=texts, fmt="", **colors, **bare, ax=ax)
    cells = zip(ax.texts, values.to_numpy().ravel(), kept.to_numpy().ravel(), strict=True)
    for text, value, is_kept in cells:
        shade = "white" if value < 0.55 * vmax else "black"  # seaborn's own choice is hard to read on middle shades
        text.set(color=shade if is_kept else "0.6", fontweight="bold" if is_kept else "normal")
    ax.set(xlabel="", ylabel="")
    return ax


def rect_example(entries: pd.DataFrame, figure: Figure) -> Figure:
    """Draw the matrices W, ΔW, δ and the regularized ΔW side by side; `entries` has a column `matrix` too."""
    require_columns(entries, "matrix", "row", "column", "value", "kept")
    names = list(dict.fromkeys(entries["matrix"]))
    axes = figure.subplots(1, len(names))
    for ax, name in zip(axes, names, strict=True):
        part = entries[entries["matrix"] == name]
        number_grid(part, ax, vmax=float(part["value"].max()))
        ax.set_title(name)
    return figure


def kept_share_curves(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the share of ‖ΔW‖² that is kept against the share of entries kept, one line per regularizer.

    `table` has the columns keep, regularizer and value; keep and value lie in [0, 1].
    """
    require_columns(table, "keep", "regularizer", "value")
    names = {name: f"{name} 40 %" for name in dict.fromkeys(table["regularizer"])}  # each in the style of one share
    styles = styles_of(list(names.values()))
    for name, curve in table.groupby("regularizer", sort=False):
        style = styles[names[name]]
        [line] = ax.plot(100 * curve["keep"], 100 * curve["value"], label=name)
        line.set(**style.as_dict())
    ax.plot([0, 100], [0, 100], color="0.7", linewidth=0.8, linestyle=":")
    ax.set(xlabel="entries kept (%)", ylabel="‖ΔW‖² kept (%)", xlim=(0, 102), ylim=(0, 102))
    ax.grid()
    ax.legend(loc="lower right")
    return ax
