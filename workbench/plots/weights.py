"""Figure 5: where and how far the weights move."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from workbench.plots.style import HEATMAP, edits_label, ordered_styles, require_columns
from workbench.rows import BLACK, BLUE, VERMILION

_DASHES = ("-", "--", "-.", ":")
_DELTA_LABEL = "relative change δ = |ΔW / W|  (outer bins: all beyond)"
_DELTA_AXES = {"xscale": "log", "xlabel": _DELTA_LABEL, "ylabel": "share of entries in bin (%)"}


def weight_heatmap(means: pd.DataFrame, ax: Axes, *, limits: tuple[float, float]) -> Axes:
    """Draw |ΔW| of blocks on a log color scale.

    Parameters
    ----------
    means : DataFrame
        Table with the columns row and column (where a block begins) and value (the mean |ΔW| of the block).
    ax : Axes
        The Axes to draw on.
    limits : tuple of float
        Values of the darkest and the brightest color; panels that are compared share them.

    Returns
    -------
    Axes
    """
    require_columns(means, "row", "column", "value")
    grid = means.pivot(index="row", columns="column", values="value").clip(lower=limits[0])
    bare = {"cbar": False, "xticklabels": False, "yticklabels": False}
    sns.heatmap(grid, cmap=HEATMAP, norm=LogNorm(*limits), rasterized=True, **bare, ax=ax)
    _label_blocks(ax.xaxis, grid.columns.to_numpy())
    _label_blocks(ax.yaxis, grid.index.to_numpy())
    ax.set(xlabel="column of W", ylabel="row of W")
    return ax


def weight_heatmaps(means: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one heatmap per value of `n_edits`, side by side, with shared limits and one color bar."""
    require_columns(means, "n_edits", "row", "column", "value")
    positive = means.loc[means["value"] > 0, "value"]
    limits = (float(np.quantile(positive, 0.01)), float(positive.max()))
    counts = list(dict.fromkeys(means["n_edits"]))
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for ax, count in zip(axes, counts, strict=True):
        weight_heatmap(means[means["n_edits"] == count], ax, limits=limits)
        ax.set_title(edits_label(count))
        ax.label_outer()
    bar = figure.colorbar(axes[0].collections[0], ax=axes, fraction=0.046 / len(counts) * 2, pad=0.02)
    bar.set_label("|ΔW|, mean of block")
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if limits[1] < 100 * limits[0] else (1,)))
    bar.ax.yaxis.set_major_formatter("{x:.2g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure


def relative_change_panel(histogram: pd.DataFrame, thresholds: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the distribution of δ on a log axis, one line per number of edits, and the thresholds as vertical lines.

    Parameters
    ----------
    histogram : DataFrame
        Table with the columns n_edits, low and high (the edges of a bin) and share (of all entries).
    thresholds : DataFrame
        Table with the columns quantile and value, in two rows.
    ax : Axes
        The Axes to draw on.

    Returns
    -------
    Axes
    """
    require_columns(histogram, "n_edits", "low", "high", "share")
    require_columns(thresholds, "quantile", "value")
    counts = list(dict.fromkeys(histogram["n_edits"]))
    for i, (count, style) in enumerate(zip(counts, ordered_styles(len(counts)), strict=True)):
        bins = histogram[histogram["n_edits"] == count]
        dash = _DASHES[i % len(_DASHES)]
        ax.stairs(
            100 * bins["share"],
            _edges(bins),
            label=edits_label(count),
            color=style.color,
            linestyle=dash,
            linewidth=1.5,
        )
    sides = ((VERMILION, "right"), (VERMILION, "left"))
    for row, (color, side) in zip(thresholds.to_dict("records"), sides, strict=True):
        text = f"{100 * row['quantile']:.0f} % quantile\nof single edits: {row['value']:.3f}"
        _mark_threshold(ax, row["value"], text, color=color, side=side)
    ax.set(**_DELTA_AXES)
    ax.set_ylim(0, 1.2 * ax.get_ylim()[1])  # space for the labels of the thresholds
    ax.legend(loc="center left")
    return ax


def kept_change_panel(histogram: pd.DataFrame, threshold: float | None, ax: Axes) -> Axes:
    """Draw the distribution of δ before regularization, as a line, and of the entries kept, filled.

    Parameters
    ----------
    histogram : DataFrame
        Table with the columns kind ("all" or "kept"), low and high (the edges of a bin) and share (of all entries).
    threshold : float or None
        The smallest δ that RECT keeps; None for other regularizers.
    ax : Axes
        The Axes to draw on.

    Returns
    -------
    Axes
    """
    require_columns(histogram, "kind", "low", "high", "share")
    kept, everything = (histogram[histogram["kind"] == kind] for kind in ("kept", "all"))
    patch = ax.stairs(
        100 * kept["share"], _edges(everything), fill=True, color=BLUE, linewidth=0, alpha=0.55, label="applied"
    )
    patch.set_gid("kept")
    ax.stairs(100 * everything["share"], _edges(everything), color=BLACK, linewidth=1.2, label="as computed")
    if threshold is not None and 0 < threshold < np.inf:
        _mark_threshold(ax, threshold, f"kept from δ = {threshold:.3g} up", color=VERMILION, side="right")
    ax.set(**_DELTA_AXES)
    ax.set_ylim(0, 1.2 * float(100 * everything["share"].max()))  # the same for every threshold
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.92))
    return ax


def _label_blocks(axis: Axis, starts: np.ndarray) -> None:
    """Label an axis of blocks, whose unit is one block, with round numbers of rows or columns."""
    size = starts[1] - starts[0] if len(starts) > 1 else 1
    end = size * len(starts)
    ticks = [tick for tick in MaxNLocator(4, integer=True).tick_values(0, end) if 0 <= tick <= end]
    axis.set_ticks([tick / size for tick in ticks], [f"{tick:g}" for tick in ticks])


def _edges(bins: pd.DataFrame) -> list[float]:
    return [*bins["low"], bins["high"].iloc[-1]]


def _mark_threshold(ax: Axes, value: float, text: str, *, color: str, side: str) -> None:
    """Draw a vertical line with its label at the top, whose right or left side is at the line."""
    ax.axvline(value, color=color, linewidth=1.2)
    ax.annotate(
        text,
        (value, 0.99),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if side == "right" else 4, 0),
        textcoords="offset points",
        color=color,
        fontsize=7.5,
        va="top",
        ha=side,
    )
