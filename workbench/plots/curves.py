"""Scores against the number of edits, one curve per regularizer or method."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.plots.intervals import draw_lines
from workbench.plots.style import (
    edits_locator,
    guessing_line,
    legend_line,
    require_columns,
    set_perplexity_axis,
    styles_of,
)

_COLUMNS = 3  # of panels


def edit_curves(curves: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the value against the number of edited facts, one line per label in the column `series`, with intervals."""
    require_columns(curves, "series", "n_edits", "value", "low", "high")
    draw_lines(curves, ax, x="n_edits", series="series")
    ax.set(xlabel="", ylabel="")
    ax.xaxis.set_major_locator(edits_locator())
    ax.grid(axis="y")
    return ax


def ability_curves(scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one panel per ability, with the score that guessing reaches, and one of the perplexity, under one legend."""
    require_columns(scores, "title", "floor", "series", "high")
    titles = list(dict.fromkeys(scores["title"]))
    n_rows = -(-(len(titles) + 1) // _COLUMNS)
    axes = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
    highest = max(scores["high"].max(), scores["value"].max())
    for ax, title in zip(axes, titles, strict=False):
        panel = scores[scores["title"] == title]
        edit_curves(panel, ax)
        if floor := panel["floor"].iloc[0]:
            ax.axhline(floor, color="0.5", linewidth=1, linestyle=":", zorder=0)
        ax.set(title=title, ylim=(-0.03, min(1.03, highest + 0.05)))
    last = axes[len(titles)]
    edit_curves(perplexities, last)
    last.set(title="perplexity of held-out text")
    set_perplexity_axis(last, perplexities)
    for ax in axes[len(titles) + 1 :]:
        ax.set_axis_off()
    figure.supxlabel("number of edited facts", fontsize="medium")
    styles = styles_of(list(dict.fromkeys(scores["series"])))
    handles = [*(legend_line(style, label) for label, style in styles.items()), guessing_line()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure
