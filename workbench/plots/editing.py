"""Figure 7: reliability, generalization and locality under each regularizer; and scores over layers."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from workbench.plots.style import error_bar, look_of, require_columns


def score_points(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Scores of one metric, a point and a 95 % interval for each regularizer, in the table's order."""
    require_columns(scores, "regularizer", "value", "low", "high")
    for place, row in enumerate(scores.itertuples()):
        look = look_of(row.regularizer)
        ax.errorbar(
            place, row.value, yerr=error_bar(row), color=look["color"], marker=look["marker"], capsize=2.5, markersize=6
        )
    first = scores.iloc[0]
    ax.axhline(first["value"], color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    ax.set_xticks(range(len(scores)), scores["regularizer"], rotation=40, ha="right", rotation_mode="anchor")
    ax.set(ylim=(-0.03, 1.03), xlim=(-0.6, len(scores) - 0.4))
    return ax


def editing_performance(scores: pd.DataFrame, figure: Figure) -> Figure:
    """A row of panels for each protocol: one panel a metric, one point a regularizer."""
    require_columns(scores, "regularizer", "metric", "protocol", "value", "n", "low", "high")
    protocols, metrics = (list(dict.fromkeys(scores[column])) for column in ("protocol", "metric"))
    axes = figure.subplots(len(protocols), len(metrics), sharex=True, sharey=True, squeeze=False)
    for row, protocol in zip(axes, protocols, strict=True):
        for ax, metric in zip(row, metrics, strict=True):
            score_points(scores[(scores["metric"] == metric) & (scores["protocol"] == protocol)], ax)
            ax.grid(axis="y", color="0.9", zorder=0)
        n = scores.loc[scores["protocol"] == protocol, "n"].max()
        row[0].set_ylabel(f"score, {protocol.replace('_', ' ')} (n = {n})")
    for ax, metric in zip(axes[0], metrics, strict=True):
        ax.set_title(metric)
    return figure


def scores_by_layer(scores: pd.DataFrame, ax: Axes) -> Axes:
    """Score against edited layer, one line a metric; bands are 95 % intervals."""
    require_columns(scores, "layer", "metric", "value", "low", "high")
    for metric, curve in scores.groupby("metric", sort=False):
        look = look_of(metric)
        ax.plot(curve["layer"], curve["value"], label=metric, **look)
        ax.fill_between(curve["layer"], curve["low"], curve["high"], color=look["color"], alpha=0.15, linewidth=0)
    ax.set(xlabel="edited layer", ylabel="score", ylim=(-0.03, 1.03))
    ax.set_xticks(np.unique(scores["layer"]))
    ax.grid(axis="y", color="0.9", zorder=0)
    ax.legend(loc="lower left")
    return ax


def methods_compared(table: pd.DataFrame, figure: Figure) -> Figure:
    """One panel a metric and one for the seconds an edit; one line a method and batch size."""
    require_columns(table, "method", "batch_size", "metric", "protocol", "value", "low", "high", "seconds")
    metrics, protocols = (list(dict.fromkeys(table[column])) for column in ("metric", "protocol"))
    groups = list(table.groupby(["method", "batch_size"], sort=False))
    axes = figure.subplots(1, len(metrics) + 1, sharey=True)
    for ax, metric in zip(axes, metrics, strict=False):
        for place, ((method, _), rows) in enumerate(groups):
            _protocol_points(rows[rows["metric"] == metric], place, look_of(method), ax, protocols)
        ax.set(title=metric, xlim=(-0.03, 1.03), xlabel="score")
        ax.grid(axis="x", color="0.9", zorder=0)
    for place, ((method, _), rows) in enumerate(groups):
        axes[-1].plot(rows["seconds"].iloc[0], place, color=look_of(method)["color"], marker=look_of(method)["marker"])
    lowest, highest = table["seconds"].min(), table["seconds"].max()
    decades = (
        10.0 ** np.floor(np.log10(lowest)),
        10.0 ** np.ceil(np.log10(highest)),
    )  # whole ones have ticks at both ends
    axes[-1].set(title="cost", xscale="log", xlabel="seconds an edit", xlim=decades)
    axes[-1].xaxis.set_major_formatter("{x:g}")
    axes[-1].xaxis.set_minor_formatter(NullFormatter())
    axes[-1].grid(axis="x", color="0.9", zorder=0)
    names = [method if size == 1 else f"{method}, {size} at once" for (method, size), _ in groups]
    axes[0].set_yticks(range(len(groups)), names)
    axes[0].set_ylim(len(groups) - 0.4, -0.6)
    handles = [Line2D([], [], **_FILLS[i], color="0.3", marker="o", linestyle="") for i in range(len(protocols))]
    figure.legend(handles, [p.replace("_", " ") for p in protocols], loc="outside lower center", ncols=len(protocols))
    return figure


_FILLS = ({"markerfacecolor": "0.3"}, {"markerfacecolor": "white"}, {"markerfacecolor": "0.8"})


def _protocol_points(rows: pd.DataFrame, place: int, look: dict, ax: Axes, protocols: list[str]) -> None:
    """A method's score of one metric under each protocol: the first filled, the second hollow, a little lower."""
    for i, protocol in enumerate(protocols):
        for row in rows[rows["protocol"] == protocol].itertuples():
            fill = look["color"] if i == 0 else _FILLS[i]["markerfacecolor"]
            height = place + 0.3 * (i - (len(protocols) - 1) / 2)
            point = {"color": look["color"], "marker": look["marker"], "markerfacecolor": fill, "capsize": 2}
            ax.errorbar(row.value, height, xerr=error_bar(row), **point)
