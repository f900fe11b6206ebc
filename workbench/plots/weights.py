"""Figure 5: where and how far the weights move."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from workbench.plots.style import BLACK, BLUE, HEATMAP, ORANGE, VERMILION, require_columns


def weight_heatmap(maxima: pd.DataFrame, ax: Axes, *, limits: tuple[float, float]) -> Axes:
    """|ΔW| as block maxima on a log color scale, between `limits`; panels that are compared share them."""
    require_columns(maxima, "row", "column", "value")
    grid = maxima.pivot(index="row", columns="column", values="value")
    ends = [
        np.append(starts, 2 * starts[-1] - starts[-2]) for starts in (grid.columns.to_numpy(), grid.index.to_numpy())
    ]
    ax.pcolormesh(*ends, grid.to_numpy().clip(min=limits[0]), cmap=HEATMAP, norm=LogNorm(*limits), rasterized=True)
    ax.set_ylim(ends[1][-1], 0)
    ax.locator_params(nbins=4)
    ax.set(xlabel="column of W", ylabel="row of W")
    return ax


def weight_heatmaps(maxima: pd.DataFrame, figure: Figure) -> Figure:
    """One heatmap for each value of `n_edits`, side by side with shared limits and one color bar."""
    require_columns(maxima, "n_edits", "row", "column", "value")
    positive = maxima.loc[maxima["value"] > 0, "value"]
    limits = (float(np.quantile(positive, 0.01)), float(positive.max()))
    counts = list(dict.fromkeys(maxima["n_edits"]))
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for ax, count in zip(axes, counts, strict=True):
        weight_heatmap(maxima[maxima["n_edits"] == count], ax, limits=limits)
        ax.set_title(f"{count} edit{'s' if count > 1 else ''}")
        ax.label_outer()
    bar = figure.colorbar(axes[0].collections[0], ax=axes, fraction=0.046 / len(counts) * 2, pad=0.02)
    bar.set_label("|ΔW|, largest of block")
    return figure


def relative_change_panel(histogram: pd.DataFrame, thresholds: pd.DataFrame, ax: Axes) -> Axes:
    """Histogram of δ on a log axis, a line for each number of edits, and the thresholds as vertical lines.

    `histogram` has the columns n_edits, low, high, share; `thresholds` has quantile and value.
    """
    require_columns(histogram, "n_edits", "low", "high", "share")
    require_columns(thresholds, "quantile", "value")
    counts = list(dict.fromkeys(histogram["n_edits"]))
    shades = np.linspace(0.35, 1.0, len(counts))
    dashes = ["-", "--", "-.", ":"]
    for i, (count, shade) in enumerate(zip(counts, shades, strict=True)):
        bins = histogram[histogram["n_edits"] == count]
        label = f"{count} edit{'s' if count > 1 else ''}"
        ax.stairs(
            100 * bins["share"],
            [*bins["low"], bins["high"].iloc[-1]],
            label=label,
            color=BLUE,
            alpha=float(shade),
            linestyle=dashes[i % len(dashes)],
            linewidth=1.5,
        )
    sides = ((ORANGE, "right", -4), (VERMILION, "left", 4))
    for row, (color, align, shift) in zip(thresholds.itertuples(), sides, strict=True):
        ax.axvline(row.value, color=color, linewidth=1.2)
        ax.annotate(
            f"{100 * row.quantile:.0f} % quantile\nof single edits: {row.value:.3f}",
            (row.value, 0.99),
            xycoords=("data", "axes fraction"),
            xytext=(shift, 0),
            textcoords="offset points",
            color=color,
            fontsize=7.5,
            va="top",
            ha=align,
        )
    ax.set(xscale="log", xlabel="relative change δ = |ΔW / W|", ylabel="share of entries in bin (%)")
    ax.set_ylim(0, 1.2 * ax.get_ylim()[1])  # room for the thresholds' names
    ax.legend(loc="center left")
    return ax


def kept_change_panel(histogram: pd.DataFrame, threshold: float | None, ax: Axes) -> Axes:
    """Histogram of δ before regularization, as a line, and of the entries kept, filled; where RECT's threshold lies.

    `histogram` has the columns kind ("all" or "kept"), low, high, share (of all entries).
    """
    require_columns(histogram, "kind", "low", "high", "share")
    parts = {kind: histogram[histogram["kind"] == kind] for kind in ("kept", "all")}
    edges = [*parts["all"]["low"], parts["all"]["high"].iloc[-1]]
    kept = ax.stairs(100 * parts["kept"]["share"], edges, fill=True, color=BLUE, alpha=0.55, label="applied")
    kept.set_gid("kept")
    ax.stairs(100 * parts["all"]["share"], edges, color=BLACK, linewidth=1.2, label="as computed")
    if threshold is not None and 0 < threshold < np.inf:
        ax.axvline(threshold, color=VERMILION, linewidth=1.3)
        ax.annotate(
            f"kept from δ = {threshold:.3g} up",
            (threshold, 0.99),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            color=VERMILION,
            va="top",
            ha="right",
        )
    ax.set(xscale="log", xlabel="relative change δ = |ΔW / W|", ylabel="share of entries in bin (%)")
    ax.set_ylim(0, 1.2 * float(100 * parts["all"]["share"].max()))  # the same for every threshold
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.92))
    return ax
