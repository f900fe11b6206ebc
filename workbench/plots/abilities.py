"""The eight abilities before and after edits."""

import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workbench.plots.intervals import draw_lines, given_interval, given_value, stack_intervals
from workbench.plots.style import (
    edits_label,
    edits_locator,
    guessing_line,
    legend_point,
    ordered_styles,
    require_columns,
    set_perplexity_axis,
)
from workbench.registry import BLUE

_NEEDED = ("title", "n_edits", "value", "low", "high", "floor")
_STEP = 0.18  # distance between the points of one task, whose rows have height 1
_BARS = 0.76  # height of all bars of one task
_BEFORE_AFTER = ("0.78", BLUE)


def ability_points(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one row per task, with a point and its 95 % interval for each number of edits, and the score of guessing."""
    require_columns(scores, *_NEEDED)
    n_counts = scores["n_edits"].nunique()
    styles = ordered_styles(n_counts)
    sns.pointplot(
        stack_intervals(scores),
        x="value",
        y="title",
        hue="n_edits",
        hue_order=list(dict.fromkeys(scores["n_edits"])),
        estimator=given_value,
        errorbar=given_interval,
        palette=[style.color for style in styles],
        markers=[style.marker for style in styles],
        linestyle="none",
        linewidth=1.5,
        markersize=5,
        dodge=_STEP * (n_counts - 1) if n_counts > 1 else False,
        capsize=0.08,
        legend=False,
        ax=ax,
    )
    return _set_task_rows(scores, ax)


def ability_bars(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one row per task, with a bar and its 95 % interval before and after the edits, and the score of guessing."""
    require_columns(scores, *_NEEDED)
    counts = list(dict.fromkeys(scores["n_edits"]))
    sns.barplot(
        stack_intervals(scores),
        x="value",
        y="title",
        hue="n_edits",
        hue_order=counts,
        estimator=given_value,
        errorbar=given_interval,
        palette=list(_BEFORE_AFTER[: len(counts)]),
        saturation=1,
        width=_BARS,
        linewidth=0,
        capsize=0.3,
        err_kws={"linewidth": 1, "color": "0.1"},
        legend=False,
        ax=ax,
    )
    return _set_task_rows(scores, ax)


def _set_task_rows(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Set the axes of tasks, and mark the score of guessing: over bars, but under points."""
    titles = list(dict.fromkeys(scores["title"]))
    for row, floor in enumerate(scores.drop_duplicates("title")["floor"]):
        if floor:
            ax.plot([floor, floor], [row - 0.4, row + 0.4], color="0.5", linewidth=1.2, linestyle=":", zorder=1.5)
    ax.set_yticks(range(len(titles)), titles)
    ax.set(xlabel="score", ylabel="", xlim=(-0.03, 1.03), ylim=(len(titles) - 0.5, -0.5))
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    return ax


def perplexity_curve(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the perplexity, on a log axis, against the number of edits, with its 95 % interval."""
    require_columns(table, "n_edits", "value", "low", "high")
    draw_lines(table.assign(series="perplexity"), ax, x="n_edits", series="series")
    ax.set(xlabel="number of edits", ylabel="perplexity", title="held-out text")
    ax.xaxis.set_major_locator(edits_locator())
    set_perplexity_axis(ax, table)
    ax.grid(axis="y")
    return ax


def side_effects_figure(scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure) -> Figure:
    """Draw the abilities on the left and the perplexity on the right, above one legend."""
    left, right = figure.subplots(1, 2, width_ratios=[2.4, 1])
    ability_points(scores, left)
    least, most = scores["n"].min(), scores["n"].max()
    left.set_title(f"abilities ({most if least == most else f'{least} to {most}'} examples each)")
    perplexity_curve(perplexities, right)
    counts = list(dict.fromkeys(scores["n_edits"]))
    pairs = zip(counts, ordered_styles(len(counts)), strict=True)
    _add_legend(figure, [legend_point(style, edits_label(n)) for n, style in pairs])
    return figure


def before_after_figure(scores: pd.DataFrame, figure: Figure) -> Figure:
    """Draw the abilities as bars, of the unedited and of the edited model."""
    ability_bars(scores, figure.subplots())
    counts = dict.fromkeys(scores["n_edits"])
    _add_legend(figure, [Patch(color=_BEFORE_AFTER[i], label=edits_label(n)) for i, n in enumerate(counts)])
    return figure


def _add_legend(figure: Figure, handles: list[Artist]) -> None:
    """Add a legend below all panels, which also explains the marks of guessing."""
    figure.legend(handles=[*handles, guessing_line()], loc="outside lower center", ncols=len(handles) + 1)
