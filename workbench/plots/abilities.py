"""The eight abilities before and after edits."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from workbench.plots.style import (
    BLUE,
    edits_locator,
    error_bar,
    look_of,
    ordered_looks,
    perplexity_axis,
    require_columns,
)

_NEEDED = ("title", "n_edits", "value", "low", "high", "floor")
_STEP = 0.18  # between the points of one task
_BARS = 0.76  # how much of a task's row its bars take
_BEFORE_AFTER = ("0.78", BLUE)


def ability_points(scores: pd.DataFrame, ax: Axes) -> Axes:
    """One row a task, one point with its 95 % interval for each number of edits; a tick where guessing would be."""
    require_columns(scores, *_NEEDED)
    looks = ordered_looks(scores["n_edits"].nunique())
    for row, i, height in _placed(scores, _STEP):
        color, marker = looks[i]["color"], looks[i]["marker"]
        ax.errorbar(row.value, height, xerr=error_bar(row), color=color, marker=marker, capsize=2, linestyle="")
    return _task_rows(scores, ax)


def ability_bars(scores: pd.DataFrame, ax: Axes) -> Axes:
    """One row a task, a bar with its 95 % interval before and one after the edits; a tick where guessing would be."""
    require_columns(scores, *_NEEDED)
    thickness = _BARS / scores["n_edits"].nunique()
    for row, i, height in _placed(scores, thickness):
        interval = {"xerr": error_bar(row), "capsize": 2, "error_kw": {"elinewidth": 1}, "ecolor": "0.1"}
        ax.barh(height, row.value, thickness, color=_BEFORE_AFTER[i], **interval)
    return _task_rows(scores, ax)


def _placed(scores: pd.DataFrame, step: float) -> Iterator[tuple[Any, int, float]]:
    """Each score, the place of its number of edits among all, and its height on the axis of tasks."""
    titles, counts = (list(dict.fromkeys(scores[column])) for column in ("title", "n_edits"))
    for row in scores.itertuples():
        i = counts.index(row.n_edits)
        yield row, i, titles.index(row.title) + step * (i - (len(counts) - 1) / 2)


def _task_rows(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Axes of tasks one below the other, and a tick where guessing would be: above bars, below points."""
    titles = list(dict.fromkeys(scores["title"]))
    floors = scores.drop_duplicates("title")
    for place, floor in enumerate(floors["floor"]):
        if floor:
            ax.plot([floor, floor], [place - 0.4, place + 0.4], color="0.5", linewidth=1.2, linestyle=":", zorder=1.5)
    ax.set_yticks(range(len(titles)), titles)
    ax.set(xlabel="score", xlim=(-0.03, 1.03), ylim=(len(titles) - 0.5, -0.5))
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    return ax


def perplexity_curve(table: pd.DataFrame, ax: Axes) -> Axes:
    """Perplexity, on a log axis, against the number of edits; the band is the 95 % interval."""
    require_columns(table, "n_edits", "value", "low", "high")
    look = look_of("perplexity")
    ax.plot(table["n_edits"], table["value"], **look)
    ax.fill_between(table["n_edits"], table["low"], table["high"], color=look["color"], alpha=0.15, linewidth=0)
    ax.set(xlabel="number of edits", ylabel="perplexity", title="held-out text")
    ax.xaxis.set_major_locator(edits_locator())
    perplexity_axis(ax, table)
    ax.grid(axis="y", color="0.9", zorder=0)
    return ax


def side_effects_figure(scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure) -> Figure:
    """Abilities on the left, perplexity on the right, one legend."""
    left, right = figure.subplots(1, 2, width_ratios=[2.4, 1])
    ability_points(scores, left)
    least, most = scores["n"].min(), scores["n"].max()
    left.set_title(f"abilities ({most if least == most else f'{least} to {most}'} examples each)")
    perplexity_curve(perplexities, right)
    counts = list(dict.fromkeys(scores["n_edits"]))
    pairs = zip(counts, ordered_looks(len(counts)), strict=True)
    _legend(figure, [Line2D([], [], **look, linestyle="", label=edits_label(n)) for n, look in pairs])
    return figure


def before_after_figure(scores: pd.DataFrame, figure: Figure) -> Figure:
    """The abilities as bars, unedited and edited."""
    ability_bars(scores, figure.subplots())
    counts = dict.fromkeys(scores["n_edits"])
    _legend(figure, [Patch(color=_BEFORE_AFTER[i], label=edits_label(n)) for i, n in enumerate(counts)])
    return figure


def _legend(figure: Figure, handles: list[Artist]) -> None:
    """A legend below all panels, with what marks guessing at its end."""
    handles = [*handles, Line2D([], [], color="0.5", linewidth=1, linestyle=":", label="guessing")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def edits_label(n_edits: int) -> str:
    """What a number of edits is called in legends."""
    return "unedited" if n_edits == 0 else f"{n_edits} edit{'s' * (n_edits > 1)}"
