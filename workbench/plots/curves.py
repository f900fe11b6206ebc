"""Scores against the number of edits, one curve a regularizer or method."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workbench.plots.style import edits_locator, looks_of, perplexity_axis, require_columns


def edit_curves(curves: pd.DataFrame, ax: Axes) -> Axes:
    """Value against number of facts edited, one line for each label in the column `series`; bands are intervals."""
    require_columns(curves, "series", "n_edits", "value", "low", "high")
    looks = looks_of(list(dict.fromkeys(curves["series"])))
    for label, curve in curves.groupby("series", sort=False):
        look = looks[label]
        ax.plot(curve["n_edits"], curve["value"], label=label, **look)
        ax.fill_between(curve["n_edits"], curve["low"], curve["high"], color=look["color"], alpha=0.15, linewidth=0)
    ax.xaxis.set_major_locator(edits_locator())
    ax.grid(axis="y", color="0.9", zorder=0)
    return ax


def ability_curves(scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure) -> Figure:
    """A panel an ability, with what guessing reaches, and one of the perplexity; one legend."""
    require_columns(scores, "title", "floor", "series", "high")
    titles = list(dict.fromkeys(scores["title"]))
    n_columns = 3
    n_rows = -(-(len(titles) + 1) // n_columns)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
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
    perplexity_axis(last, perplexities)
    for ax in axes[len(titles) + 1 :]:
        ax.set_axis_off()
    figure.supxlabel("number of facts edited", fontsize="medium")
    looks = looks_of(list(dict.fromkeys(scores["series"])))
    handles = [Line2D([], [], **look, label=label) for label, look in looks.items()]
    handles.append(Line2D([], [], color="0.5", linewidth=1, linestyle=":", label="guessing"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure
