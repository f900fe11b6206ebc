"""The eight abilities before and after edits."""

import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workbench.plots.intervals import GIVEN, draw_lines, draw_points, stack_intervals
from workbench.plots.style import (
    edits_label,
    edits_locator,
    held_out_title,
    legend_point,
    ordered_styles,
    reference_line,
    require_columns,
    set_perplexity_axis,
)
from workbench.rows import BLUE, SeriesStyle

_NEEDED = ("title", "n_edits", "value", "low", "high", "floor")
_STEP = 0.18  # distance between the points of one task, whose rows have height 1
_BARS = 0.76  # height of all bars of one task
_BEFORE_AFTER = ("0.78", BLUE)


def ability_points(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one row per task, with a point and its 95 % interval for each number of edits, and the score of guessing."""
    require_columns(scores, *_NEEDED)
    styles = _styles(scores)
    series = scores["n_edits"].map(edits_label)
    draw_points(scores.assign(series=series), ax, x="value", y="title", styles=styles, dodge=_STEP * (len(styles) - 1))
    return _set_task_rows(scores, ax)


def ability_bars(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one row per task, with a bar and its 95 % interval before and after the edits, and the score of guessing."""
    require_columns(scores, *_NEEDED)
    counts = list(dict.fromkeys(scores["n_edits"]))
    bars = {"hue": "n_edits", "hue_order": counts, "palette": list(_BEFORE_AFTER[: len(counts)]), "saturation": 1}
    options = {"width": _BARS, "linewidth": 0, "capsize": 0.3, "err_kws": {"linewidth": 1, "color": "0.1"}}
    sns.barplot(stack_intervals(scores), x="value", y="title", **bars, **options, **GIVEN, legend=False, ax=ax)
    return _set_task_rows(scores, ax)


def _styles(scores: pd.DataFrame) -> dict[str, SeriesStyle]:
    """Return the style of each number of edits, by its name in legends."""
    labels = [edits_label(n) for n in dict.fromkeys(scores["n_edits"])]
    return dict(zip(labels, ordered_styles(len(labels)), strict=True))


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
    ax.set(xlabel="number of edits", ylabel="perplexity", title=held_out_title("held-out text", table))
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
    _add_legend(figure, [legend_point(style, label) for label, style in _styles(scores).items()])
    return figure


def before_after_figure(scores: pd.DataFrame, figure: Figure) -> Figure:
    """Draw the abilities as bars, of the unedited and of the edited model."""
    ability_bars(scores, figure.subplots())
    counts = dict.fromkeys(scores["n_edits"])
    _add_legend(figure, [Patch(color=_BEFORE_AFTER[i], label=edits_label(n)) for i, n in enumerate(counts)])
    return figure


def _add_legend(figure: Figure, handles: list[Artist]) -> None:
    """Add a legend below all panels, which also explains the marks of guessing."""
    figure.legend(handles=[*handles, reference_line("guessing")], loc="outside lower center", ncols=len(handles) + 1)
