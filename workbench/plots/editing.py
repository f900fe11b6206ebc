"""Scores of edits: by regularizer (Figure 7), by layer, and by method with the cost of an edit."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from workbench.plots.intervals import draw_lines, draw_points
from workbench.plots.style import require_columns, styles_of

_PROTOCOL_FILLS = (None, "white", "0.8", "0.4")  # of the points of each protocol; None is the method's color


def score_points(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the scores of one metric, a point with its 95 % interval per regularizer, in the table's order."""
    require_columns(scores, "regularizer", "value", "low", "high")
    styles = styles_of(list(scores["regularizer"]))
    draw_points(scores.assign(series=scores["regularizer"]), ax, x="regularizer", y="value", styles=styles)
    ax.axhline(scores["value"].iloc[0], color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    ax.set_xticks(range(len(scores)), scores["regularizer"], rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="", ylabel="", ylim=(-0.03, 1.03), xlim=(-0.6, len(scores) - 0.4))
    ax.grid(axis="y")
    return ax


def editing_performance(scores: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one row of panels per protocol, with one panel per metric and one point per regularizer."""
    require_columns(scores, "regularizer", "metric", "protocol", "value", "n", "low", "high")
    protocols, metrics = (list(dict.fromkeys(scores[column])) for column in ("protocol", "metric"))
    axes = figure.subplots(len(protocols), len(metrics), sharex=True, sharey=True, squeeze=False)
    for row, protocol in zip(axes, protocols, strict=True):
        for ax, metric in zip(row, metrics, strict=True):
            score_points(scores[(scores["metric"] == metric) & (scores["protocol"] == protocol)], ax)
        n = scores.loc[scores["protocol"] == protocol, "n"].max()
        row[0].set_ylabel(f"score, {protocol.replace('_', ' ')} (n = {n})")
    for ax, metric in zip(axes[0], metrics, strict=True):
        ax.set_title(metric)
    return figure


def scores_by_layer(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the score against the edited layer, one line per metric; bands are 95 % intervals."""
    require_columns(scores, "layer", "metric", "value", "low", "high")
    draw_lines(scores, ax, x="layer", series="metric", legend=True)
    ax.set(xlabel="edited layer", ylabel="score", ylim=(-0.03, 1.03))
    ax.set_xticks(np.unique(scores["layer"]))
    ax.grid(axis="y")
    ax.legend(loc="lower left")
    return ax


def methods_compared(table: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one panel per metric and one of the seconds per edit, with one row per method and batch size."""
    require_columns(table, "method", "batch_size", "metric", "protocol", "value", "low", "high", "seconds")
    metrics, protocols = (list(dict.fromkeys(table[column])) for column in ("metric", "protocol"))
    batches = table["method"] + ", " + table["batch_size"].astype(str) + " at once"
    names = table["method"].where(table["batch_size"] == 1, batches)
    table = table.assign(name=names)
    order = list(dict.fromkeys(names))
    axes = figure.subplots(1, len(metrics) + 1, sharey=True)
    for ax, metric in zip(axes, metrics, strict=False):
        _draw_metric(table[table["metric"] == metric], ax, order=order, protocols=protocols)
        ax.set_title(metric)
    _draw_cost(table, axes[-1], order=order)
    axes[0].set_yticks(range(len(order)), order)
    axes[0].set_ylim(len(order) - 0.4, -0.6)
    fills = [fill or "0.3" for fill in _PROTOCOL_FILLS[: len(protocols)]]
    handles = [Line2D([], [], markerfacecolor=fill, color="0.3", marker="o", linestyle="") for fill in fills]
    figure.legend(handles, [p.replace("_", " ") for p in protocols], loc="outside lower center", ncols=len(protocols))
    return figure


def _draw_metric(rows: pd.DataFrame, ax: Axes, *, order: list[str], protocols: list[str]) -> None:
    """Draw one row per method: a point with its interval per protocol, each a little lower and with another fill."""
    styles = styles_of(list(dict.fromkeys(rows["method"])))
    for row in rows.to_dict("records"):
        style, i = styles[row["method"]], protocols.index(row["protocol"])
        height = order.index(row["name"]) + 0.3 * (i - (len(protocols) - 1) / 2)
        ends = [[max(row["value"] - row["low"], 0)], [max(row["high"] - row["value"], 0)]]
        fill = _PROTOCOL_FILLS[i] or style.color
        bar = ax.errorbar(row["value"], height, xerr=ends, color=style.color, marker=style.marker, capsize=2)
        bar.lines[0].set_markerfacecolor(fill)
    ax.set(xlim=(-0.03, 1.03), xlabel="score")
    ax.grid(axis="x")


def _draw_cost(table: pd.DataFrame, ax: Axes, *, order: list[str]) -> None:
    """Draw the seconds per edit of each method, on a log axis of whole decades, which have ticks at both ends."""
    styles = styles_of(list(dict.fromkeys(table["method"])))
    for row in table.drop_duplicates("name").to_dict("records"):
        style = styles[row["method"]]
        ax.plot(row["seconds"], order.index(row["name"]), color=style.color, marker=style.marker)
    decades = np.log10([table["seconds"].min(), table["seconds"].max()])
    ax.set(title="cost", xscale="log", xlabel="seconds per edit")
    ax.set_xlim(10.0 ** np.floor(decades[0]), 10.0 ** np.ceil(decades[1]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x")
