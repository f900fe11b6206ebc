"""Scores against the number of edits, one curve per regularizer or method."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.plots.intervals import draw_lines
from workbench.plots.style import (
    edits_locator,
    held_out_title,
    legend_line,
    reference_line,
    require_columns,
    set_perplexity_axis,
    styles_of,
)
from workbench.rows import SeriesStyle

_COLUMNS = 3  # of panels
_MOST_BANDS = 3  # series with bands in one panel: more cover each other
_SMALLEST_SPAN = 0.12  # of the y axis of a score: less would show noise as movement
_QUIET = "0.6"  # color of the title of a panel in which nothing can fall
AT_GUESSING = "at guessing"


def edit_curves(curves: pd.DataFrame, ax: Axes, *, styles: Mapping[str, SeriesStyle] | None = None) -> Axes:
    """Draw the value against the number of edited facts, one line per label in the column `series`, with intervals.

    With more than three series, only the first two have bands, so that every line can be seen. `styles` are those of
    the whole figure, by label; by default those of the labels of this table.
    """
    require_columns(curves, "series", "n_edits", "value", "low", "high")
    series = list(dict.fromkeys(curves["series"]))
    if len(series) > _MOST_BANDS:
        thin = curves["series"].isin(series[2:])
        curves = curves.assign(low=curves["low"].mask(thin), high=curves["high"].mask(thin))
    draw_lines(curves, ax, x="n_edits", series="series", styles=styles)
    ax.set(xlabel="", ylabel="")
    ax.xaxis.set_major_locator(edits_locator())
    ax.grid(axis="y")
    return ax


def perplexity_paths(paths: pd.DataFrame, ax: Axes, *, styles: Mapping[str, SeriesStyle] | None = None) -> Axes:
    """Draw the perplexity after every edit: the geometric mean of each series, and a thin line per trajectory.

    Parameters
    ----------
    paths : DataFrame
        Table with the columns series, trajectory, n_edits and value.
    ax : Axes
        The Axes to draw on.
    styles : mapping of str to SeriesStyle, optional
        Styles of the whole figure, by label; by default those of the labels of this table.

    Returns
    -------
    Axes
    """
    require_columns(paths, "series", "trajectory", "n_edits", "value")
    labels = list(dict.fromkeys(paths["series"]))
    styles = styles or styles_of(labels)
    for label in labels:
        rows, style = paths[paths["series"] == label], styles[label]
        if rows["trajectory"].nunique() > 1:
            for _, path in rows.groupby("trajectory", sort=False):
                ax.step(path["n_edits"], path["value"], where="post", color=style.color, linewidth=0.6, alpha=0.5)
        mean = np.exp(np.log(rows["value"]).groupby(rows["n_edits"]).mean())
        ax.step(
            mean.index, mean, where="post", color=style.color, linestyle=style.linestyle, linewidth=1.5, label=label
        )
    ax.xaxis.set_major_locator(edits_locator())
    ax.grid(axis="y")
    return ax


def ability_curves(scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one panel per ability and one of the perplexity against the number of edited facts, under one legend.

    Every panel has its own limits, around its curves and their intervals. The dotted line is the score of guessing. A
    panel whose curves start there is marked: its ability cannot fall. Perplexities with a column `trajectory` are drawn
    as `perplexity_paths` does.
    """
    _draw_scores(scores, perplexities, figure, xlabel="number of edited facts")
    return figure


def change_curves(changes: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure) -> Figure:
    """Draw how smooth scores differ from those of the unedited model, in panels like those of `ability_curves`.

    Parameters
    ----------
    changes : DataFrame
        Table of `workbench.analysis.curves.change_smooth` with the column `series`.
    perplexities : DataFrame
        As for `ability_curves`.
    figure : Figure
        The Figure to draw on.

    Returns
    -------
    Figure
    """
    changes, labels = changes.assign(floor=0.0), ("number of edited facts", "change, nats per token")
    _draw_panels(changes, perplexities, figure, labels=labels, floor_label="unedited")
    return figure


def retention_curves(retention: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one panel per metric of the edits, against the number of operations since a fact's own, under one legend.

    Parameters
    ----------
    retention : DataFrame
        Table of `workbench.analysis.retention.retention_by_age`, of one protocol, with the column `series`.
    figure : Figure
        The Figure to draw on.

    Returns
    -------
    Figure
    """
    require_columns(retention, "series", "metric", "age", "value", "low", "high")
    metrics = list(dict.fromkeys(retention["metric"]))
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    styles = styles_of(list(dict.fromkeys(retention["series"])))
    oldest = max(float(retention["age"].max()), 1.0)
    for ax, metric in zip(axes, metrics, strict=True):
        panel = retention[retention["metric"] == metric]
        edit_curves(panel.assign(n_edits=panel["age"]), ax, styles=styles)
        ax.set(title=metric, xlabel="operations since the fact's own")
        ax.set(xlim=(-0.06 * oldest, 1.06 * oldest), ylim=(-0.03, 1.03))
    axes[0].set_ylabel("score")
    handles = [legend_line(style, label) for label, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def batch_size_curves(scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure) -> Figure:
    """Draw the panels of `ability_curves` against the number of facts in one operation, evenly spaced."""
    sizes = sorted({*scores["n_edits"], *perplexities["n_edits"]})
    place = {size: i for i, size in enumerate(sizes)}
    scores, perplexities = (part.assign(n_edits=part["n_edits"].map(place)) for part in (scores, perplexities))
    for ax in _draw_scores(scores, perplexities, figure, xlabel="facts edited in one operation"):
        ax.set_xticks(range(len(sizes)), [f"{size:g}" if size else "none" for size in sizes])
    return figure


def _draw_scores(scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure, *, xlabel: str) -> list[Axes]:
    require_columns(scores, "title", "floor", "n_edits", "low")
    unedited = scores[scores["n_edits"] == scores["n_edits"].min()]
    at_guessing = (unedited["low"] <= unedited["floor"]).groupby(unedited["title"]).all()
    marked = scores["title"].map(at_guessing)
    scores = scores.assign(title=scores["title"].mask(marked, scores["title"] + f" ({AT_GUESSING})"))
    return _draw_panels(scores, perplexities, figure, labels=(xlabel, "score"), floor_label="guessing")


def _draw_panels(
    scores: pd.DataFrame, perplexities: pd.DataFrame, figure: Figure, *, labels: tuple[str, str], floor_label: str
) -> list[Axes]:
    require_columns(scores, "title", "floor", "series", "low", "high")
    require_columns(perplexities, "series")
    titles = list(dict.fromkeys(scores["title"]))
    styles = styles_of(list(dict.fromkeys([*scores["series"], *perplexities["series"]])))
    n_columns = min(_COLUMNS, len(titles) + 1)
    n_rows = -(-(len(titles) + 1) // n_columns)
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).ravel())
    for ax, title in zip(axes, titles, strict=False):
        _draw_ability(scores[scores["title"] == title], ax, styles)
    last = axes[len(titles)]
    draw = perplexity_paths if "trajectory" in perplexities else edit_curves
    draw(perplexities, last, styles=styles)
    last.set_title(held_out_title("perplexity of held-out text", perplexities))
    set_perplexity_axis(last, perplexities)
    for ax in axes[len(titles) + 1 :]:
        ax.set_axis_off()
    shown, (xlabel, ylabel) = axes[: len(titles) + 1], labels
    for ax in shown[-n_columns:]:  # no panel is below these
        ax.set_xlabel(xlabel)
    for ax in shown[::n_columns]:
        ax.set_ylabel("perplexity" if ax is last else ylabel)
    figure.align_ylabels(shown[::n_columns])
    handles = [*(legend_line(style, label) for label, style in styles.items()), reference_line(floor_label)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return shown


def _draw_ability(panel: pd.DataFrame, ax: Axes, styles: Mapping[str, SeriesStyle]) -> None:
    edit_curves(panel, ax, styles=styles)
    title, floor = panel["title"].iloc[0], panel["floor"].iloc[0]
    ax.axhline(floor, color="0.5", linewidth=1, linestyle=":", zorder=0)
    ax.set_title(title, color=_QUIET if title.endswith(f"({AT_GUESSING})") else "black")
    ax.set_ylim(*_limits(panel, floor))


def _limits(panel: pd.DataFrame, floor: float) -> tuple[float, float]:
    """Return the limits of a score's axis: around the means, their intervals, and guessing."""
    shown = [*panel["value"], *panel["low"], *panel["high"], floor]
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    missing = max(_SMALLEST_SPAN - (high - low), 0) / 2
    margin = 0.05 * (high - low + 2 * missing)
    bottom, top = low - missing - margin, high + missing + margin
    return (-margin, top - bottom - margin) if low >= 0 and bottom < -margin else (bottom, top)
