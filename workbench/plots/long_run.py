"""The long run: how many facts each method takes, and what is left of facts and model on the way."""

from collections.abc import Callable
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from workbench.plots.style import HEATMAP, require_columns, styles_of
from workbench.printable import percent

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_WORST_FACTOR, _WORST_CHANGE = 10.0, -1.0  # beyond which a cell has the darkest color


class _Strip(NamedTuple):
    column: str
    title: str
    norm: Normalize
    is_reversed: bool  # whether a large value is bad
    text: Callable[[float], str]


_STRIPS = (
    _Strip("natural", "facts answered by itself", Normalize(0, 1), False, lambda x: f"{x:.2f}".lstrip("0") or "0"),
    _Strip("perplexity", "perplexity, × unedited", LogNorm(1, _WORST_FACTOR), True, lambda x: _factor(x)),
    _Strip("abilities", "abilities, nats per token", Normalize(_WORST_CHANGE, 0), False, lambda x: _change(x)),
)


def _change(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0"


def _factor(value: float) -> str:
    if value >= 10_000:
        return f"10{str(round(np.log10(value))).translate(_RAISED)}"
    return f"{value:.2f}" if value < 9.95 else f"{value:,.0f}"


def endurance_figure(
    states: pd.DataFrame, figure: Figure, *, endurance: pd.DataFrame, written: float, damage: float
) -> Figure:
    """Draw one row per contestant, those that last longest on top: facts held, and three strips over the facts so far.

    Parameters
    ----------
    states : DataFrame
        Table of `workbench.analysis.long_run.follow_states`.
    figure : Figure
        The Figure to draw on.
    endurance : DataFrame
        Table of `workbench.analysis.long_run.find_endurance`, by the same limits.
    written, damage : float
        The limits; cells beyond them are hatched.

    Returns
    -------
    Figure
        Bright cells are good in every strip; each has the mean over sequences.
    """
    require_columns(states, "contestant", "n_edits", "operation", "method", *(strip.column for strip in _STRIPS))
    require_columns(endurance, "contestant", "lasts", "edits")
    spans = endurance.groupby("contestant")["lasts"].agg(["min", "max", "mean"])
    final = states[states["n_edits"] == states["n_edits"].max()].groupby("contestant")["natural"].mean()
    order = spans.assign(final=final).sort_values(["min", "mean", "final"], ascending=False).index.tolist()
    axes = figure.subplots(1, 1 + len(_STRIPS), width_ratios=[1.1, *[1.5] * len(_STRIPS)], sharey=True)
    _draw_bars(states, spans.loc[order], int(endurance["edits"].max()), axes[0])
    means = states[states["operation"] > 0].groupby(["contestant", "n_edits"])[[s.column for s in _STRIPS]].mean()
    limits = {"natural": lambda x: x < written, "perplexity": lambda x: x > damage}
    for strip, ax in zip(_STRIPS, axes[1:], strict=True):
        grid = means[strip.column].unstack("n_edits").loc[order]
        _draw_strip(strip, grid, ax, limits.get(strip.column))
    handles = [
        Patch(
            facecolor="none",
            edgecolor="0.3",
            hatch="////",
            label=f"fewer than {percent(written)} of the facts answered, or perplexity above {damage:g} times the "
            "unedited",
        )
    ]
    figure.legend(handles=handles, loc="outside lower center")
    return figure


def _draw_bars(states: pd.DataFrame, spans: pd.DataFrame, n_edits: int, ax: Axes) -> None:
    methods = dict(zip(states["contestant"], states["method"], strict=True))
    styles = styles_of(list(dict.fromkeys(methods.values())))
    for i, (name, row) in enumerate(spans.iterrows()):
        ax.barh(i, row["mean"], color=styles[methods[str(name)]].color, height=0.7)
        if row["min"] < row["max"]:
            ax.plot([row["min"], row["max"]], [i, i], color="0.2", linewidth=1.2, marker="|", markersize=7)
        if row["min"] == n_edits:
            ax.text(n_edits * 0.97, i, "to the end", ha="right", va="center", color="white", fontsize="small")
    ax.set(yticks=range(len(spans)), yticklabels=spans.index, xlim=(0, n_edits))
    ax.set_xlabel("facts held with the model whole")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_ylim(len(spans) - 0.5, -0.5)


def _draw_strip(strip: _Strip, grid: pd.DataFrame, ax: Axes, fails: Callable[[float], bool] | None) -> None:
    colors = mpl.colormaps[HEATMAP].reversed() if strip.is_reversed else mpl.colormaps[HEATMAP]
    colors = colors.with_extremes(bad="0.85")
    values = grid.to_numpy(float)
    ax.imshow(np.ma.masked_invalid(values), cmap=colors, norm=strip.norm, aspect="auto", interpolation="nearest")
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        color = colors(float(np.clip(strip.norm(value), 0, 1)))
        is_dark = np.dot(color[:3], (0.3, 0.59, 0.11)) < 0.5
        behind = {"facecolor": color, "edgecolor": "none", "pad": 1.5}  # keeps the hatching off the number
        ink = "w" if is_dark else "k"
        ax.text(j, i, strip.text(value), ha="center", va="center", fontsize="x-small", color=ink, bbox=behind)
        if fails is not None and fails(value):
            edge = "0.85" if is_dark else "0.3"
            ax.add_patch(
                mpl.patches.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", edgecolor=edge, linewidth=0)
            )
    ax.set(xticks=range(len(grid.columns)), xticklabels=grid.columns, xlabel="facts so far", title=strip.title)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
