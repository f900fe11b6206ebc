"""Which share of an update to apply: scores against the share, and the front of editing and what is kept."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from workbench.plots.style import edits_label, legend_line, legend_point, ordered_styles, require_columns, styles_of
from workbench.rows import BLACK, BLUE, ORANGE, SeriesStyle

_LABELS = {
    "likelihood": "reference answers,\nchange in nats per token",
    "text": "held-out text,\nchange in nats per token",
    "locality": "locality",
}
_FIXED, _CHOSEN = SeriesStyle(BLUE, "o", "-"), SeriesStyle(ORANGE, "*", "")
_FEWEST = 5  # sequences whose interval is drawn
_APART = 2.2  # smallest ratio of shares that have a tick each
_NEAR = (0.22, 0.05)  # points this close, as shares of a panel, have one label


def share_curves(fronts: pd.DataFrame, figure: Figure, *, fixed: dict[str, float]) -> Figure:
    """Draw one row of panels per method: the editing score and what is kept, against the share of entries applied.

    Parameters
    ----------
    fronts : DataFrame
        Table of `workbench.analysis.which_k.tabulate_fronts`.
    figure : Figure
        The Figure to draw on.
    fixed : dict of str to float
        Shares by the labels of their regularizers; the other regularizers chose theirs and are drawn as stars.

    Returns
    -------
    Figure
    """
    require_columns(fronts, "method", "n_edits", "measure", "regularizer", "share", "editing", "kept")
    methods, measures = (list(dict.fromkeys(fronts[column])) for column in ("method", "measure"))
    axes = figure.subplots(len(methods), len(measures) + 1, sharex=True, squeeze=False)
    counts = sorted(map(int, fronts["n_edits"].unique()))
    styles = dict(zip(counts, ordered_styles(len(counts)), strict=True))
    for row, method in zip(axes, methods, strict=True):
        rows = fronts[fronts["method"] == method]
        _draw_shares(rows[rows["measure"] == measures[0]], row[0], "editing", fixed, styles)
        row[0].set_ylabel(f"{method}\nediting")
        for ax, measure in zip(row[1:], measures, strict=True):
            _draw_shares(rows[rows["measure"] == measure], ax, "kept", fixed, styles)
            ax.set_ylabel(_LABELS[measure])
    for ax in axes[-1]:
        ax.set_xlabel("entries applied (%)")
    handles = [legend_line(style, edits_label(count)) for count, style in styles.items()]
    handles.append(legend_point(SeriesStyle("0.3", _CHOSEN.marker, ""), "share chosen by the rule"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_shares(
    rows: pd.DataFrame, ax: Axes, score: str, fixed: dict[str, float], styles: dict[int, SeriesStyle]
) -> None:
    for count, style in styles.items():
        part = rows[rows["n_edits"] == count].sort_values("share")
        is_fixed = part["regularizer"].isin(fixed)
        curve, chosen = part[is_fixed], part[~is_fixed]
        ax.plot(curve["share"], curve[score], label=edits_label(count), color=style.color, marker=style.marker)
        if (curve["units"] >= _FEWEST).all():
            low, high = curve[f"{score}_low"], curve[f"{score}_high"]
            ax.fill_between(curve["share"], low, high, color=style.color, alpha=0.12, linewidth=0)
        ax.plot(chosen["share"], chosen[score], color=style.color, marker="*", markersize=9, linestyle="")
    _set_share_axis(ax, sorted(fixed.values()))
    values = rows[score]
    is_share = score == "editing" or rows["measure"].eq("locality").all()
    margin = max(0.1 * float(np.ptp(values)), 0.05 if is_share else 0.01)
    ax.set_ylim(values.min() - margin, values.max() + margin)  # bands of few sequences are wider than what moves
    ax.grid(axis="y")


def _set_share_axis(ax: Axes, shares: list[float]) -> None:
    ax.set_xscale("log")
    ticks = shares[-1:]
    for share in reversed(shares):
        if share * _APART <= ticks[-1]:
            ticks.append(share)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def front_panels(fronts: pd.DataFrame, figure: Figure, *, fixed: dict[str, float]) -> Figure:
    """Draw the editing score against each measure of what is kept, one row of panels per method.

    Fixed shares are points on one line, labeled by their share; filled points are on the front. Stars are the shares
    that the rule chose.

    Parameters
    ----------
    fronts : DataFrame
        Table of `workbench.analysis.which_k.tabulate_fronts`, at one number of edits per method.
    figure : Figure
        The Figure to draw on.
    fixed : dict of str to float
        Shares by the labels of their regularizers.

    Returns
    -------
    Figure
    """
    require_columns(fronts, "method", "n_edits", "measure", "regularizer", "editing", "kept", "on_front")
    methods, measures = (list(dict.fromkeys(fronts[column])) for column in ("method", "measure"))
    axes = figure.subplots(len(methods), len(measures), sharey="row", squeeze=False)
    for row, method in zip(axes, methods, strict=True):
        for ax, measure in zip(row, measures, strict=True):
            part = fronts[(fronts["method"] == method) & (fronts["measure"] == measure)]
            _draw_front(part, fixed, ax)
            ax.set_xlabel(_LABELS[measure].replace("\n", " "))
        first = fronts[fronts["method"] == method].iloc[0]
        row[0].set_ylabel(f"{method}, {edits_label(int(first['n_edits']))} (n = {first['units']})\nediting")
    handles = [
        legend_line(_FIXED, "fixed share; filled: on the front"),
        *(legend_point(style, label) for label, style in _rules(fronts, fixed).items()),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_front(part: pd.DataFrame, fixed: dict[str, float], ax: Axes) -> None:
    curve = part[part["regularizer"].isin(fixed)].sort_values("share")
    ax.plot(curve["kept"], curve["editing"], color=_FIXED.color, linewidth=0.8, alpha=0.6)
    for row in curve.to_dict("records"):
        fill = _FIXED.color if row["on_front"] else "white"
        ax.plot(row["kept"], row["editing"], marker="o", color=_FIXED.color, markerfacecolor=fill, linestyle="")
    for label, style in _rules(part, fixed).items():
        point = part[part["regularizer"] == label]
        fill = style.color if point["on_front"].any() else "white"
        face: dict[str, Any] = {"markerfacecolor": fill, "markersize": 8, "zorder": 3}
        ax.plot(point["kept"], point["editing"], color=style.color, marker=style.marker, linestyle="", **face)
    for group in _close_points(curve):
        shares = [fixed[label] for label in group["regularizer"]]
        strong = "bold" if np.isclose(shares, 0.4).any() else "normal"
        place: dict[str, Any] = {"xytext": (4, -9), "textcoords": "offset points", "fontsize": 7, "weight": strong}
        text = ", ".join(f"{100 * share:g}" for share in shares)
        ax.annotate(f"{text} %", tuple(group[["kept", "editing"]].iloc[-1]), color=BLACK, **place)
    ax.margins(0.15)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.grid()


def _close_points(curve: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the points in groups whose labels would cover one another."""
    place = curve[["kept", "editing"]].to_numpy(dtype=float)
    spread = np.ptp(place, axis=0) * _NEAR
    groups: list[list[int]] = []
    for i, point in enumerate(place):
        near = [group for group in groups if (np.abs(place[group[0]] - point) <= spread).all()]
        if near:
            near[0].append(i)
        else:
            groups.append([i])
    return [curve.iloc[group] for group in groups]


def _rules(table: pd.DataFrame, fixed: dict[str, float]) -> dict[str, SeriesStyle]:
    styles = styles_of(list(dict.fromkeys(table["regularizer"])))
    return {label: style for label, style in styles.items() if label not in fixed}
