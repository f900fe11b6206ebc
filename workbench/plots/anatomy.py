"""The anatomy of a collapse: six panels from the key of the fatal edit to the abilities."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from workbench.plots.style import legend_line, require_columns, set_perplexity_axis
from workbench.rows import BLACK, BLUE, GRAY, GREEN, ORANGE, VERMILION, SeriesStyle

_STYLES = {
    "unedited": SeriesStyle(BLACK, "", "-"),
    "before the edit": SeriesStyle(BLUE, "s", "--"),
    "after the edit": SeriesStyle(VERMILION, "o", "-."),
    "ΔW of the edit": SeriesStyle(GREEN, "D", ":"),
    "ROME": SeriesStyle(VERMILION, "o", "-"),
    "uᵀk": SeriesStyle(BLUE, "s", "--"),
    "σ₁(ΔW) / σ₁(W₀)": SeriesStyle(VERMILION, "o", "-"),
    "perplexity": SeriesStyle(VERMILION, "o", ""),
    "this fact": SeriesStyle(BLUE, "s", ""),
    "earlier facts": SeriesStyle(ORANGE, "^", ""),
}
_TITLES = {
    "perplexity": "a · perplexity",
    "key": "b · key and length of each edit",
    "spectrum": "c · singular values of the matrix",
    "activations": "d · what the edited layer gives",
    "abilities": "e · abilities",
    "remedies": "f · what a remedy would have left",
}
_LINES_ONLY = 24  # points of a line above which markers are left out
_NEAR_ZERO = 0.1  # nats; smaller changes of log-likelihood are drawn on a linear scale


def collapse_panels(table: pd.DataFrame, figure: Figure, *, fatal: int) -> Figure:
    """Draw six panels: perplexity, key and length of each edit, spectrum, activations, abilities, remedies.

    Parameters
    ----------
    table : DataFrame
        Table of `workbench.microscope.anatomy.tabulate_collapse`.
    figure : Figure
        The Figure to draw on.
    fatal : int
        Number of the edit that does the damage, marked in the first two panels.

    Returns
    -------
    Figure
    """
    require_columns(table, "panel", "series", "x", "name", "value")
    axes = figure.subplots(2, 3).ravel()
    draw = (_perplexity, _keys, _spectrum, _activations, _abilities, _remedies)
    for ax, (name, title), draw_panel in zip(axes, _TITLES.items(), draw, strict=True):
        draw_panel(table[table["panel"] == name], ax)
        ax.set_title(title, loc="left", fontsize="medium")
    for ax in axes[:2]:
        ax.axvline(fatal, color=GRAY, linewidth=6, alpha=0.25, zorder=0)
    return figure


def _draw_lines(rows: pd.DataFrame, ax: Axes) -> None:
    for series, line in rows.groupby("series", sort=False):
        style = _STYLES[str(series)].as_dict()
        if len(line) > _LINES_ONLY:
            style |= {"marker": ""}
        [drawn] = ax.plot(line["x"], line["value"], label=series)
        drawn.set(**style)


def _perplexity(rows: pd.DataFrame, ax: Axes) -> None:
    _draw_lines(rows, ax)
    set_perplexity_axis(ax, rows)
    ax.set(xlabel="edits", ylabel="perplexity of other text")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _keys(rows: pd.DataFrame, ax: Axes) -> None:
    _draw_lines(rows.assign(value=rows["value"].abs()), ax)
    _set_log(ax, "y")
    ax.set(xlabel="edit", ylabel="|uᵀk|, and σ₁(ΔW) / σ₁(W₀)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize="small")


def _spectrum(rows: pd.DataFrame, ax: Axes) -> None:
    _draw_lines(rows, ax)
    for name in ("x", "y"):
        _set_log(ax, name)
    ax.set(xlabel="index", ylabel="singular value")
    ax.legend(fontsize="small")


def _activations(rows: pd.DataFrame, ax: Axes) -> None:
    _draw_lines(rows, ax)
    _set_log(ax, "y")
    ax.set(xlabel="position in the text", ylabel="norm of its output")
    ax.legend(fontsize="small")


def _abilities(rows: pd.DataFrame, ax: Axes) -> None:
    for series, dots in rows.groupby("series", sort=False):
        style = _STYLES[str(series)]
        ax.plot(dots["value"], dots["x"], color=style.color, marker=style.marker, linestyle="", label=series)
    wide = rows.pivot_table(index="x", columns="series", values="value")
    ax.hlines(wide.index, wide.min(axis=1), wide.max(axis=1), color=GRAY, linewidth=1, zorder=0)
    names = rows.drop_duplicates("x").set_index("x")["name"]
    ax.set_yticks(names.index, names)
    ax.set_ylim(len(names) + 0.5, -0.5)  # the last row is for the legend
    ax.axvline(0, color="0.5", linewidth=1, linestyle=":")
    ax.set_xscale("symlog", linthresh=_NEAR_ZERO)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(left=min(1.6 * rows["value"].min(), -_NEAR_ZERO))
    ax.set(xlabel="change of log-likelihood, nats per token")
    ax.legend(fontsize="small", loc="lower left", ncols=2)


def _remedies(rows: pd.DataFrame, ax: Axes) -> None:
    """Draw perplexity as bars on a log axis, and the reliabilities as points on a second one."""
    names = rows.drop_duplicates("x").set_index("x")["name"]
    factors = rows[rows["series"] == "perplexity"]
    style = _STYLES["perplexity"]
    ax.bar(factors["x"], factors["value"] - 1, bottom=1, width=0.5, color=style.color, alpha=0.55)
    _set_log(ax, "y")
    ax.axhline(1, color="0.5", linewidth=1)
    ax.set_ylim(min(0.8, factors["value"].min() * 0.9), max(2.0, factors["value"].max() * 1.5))
    ax.set_xticks(names.index, names)
    ax.set(ylabel="perplexity / unedited (bars)")
    shares = ax.twinx()
    shares.spines["right"].set_visible(True)
    for series, dots in rows[rows["series"] != "perplexity"].groupby("series", sort=False):
        shift = -0.12 if series == "this fact" else 0.12
        style = _STYLES[str(series)]
        shares.plot(dots["x"] + shift, dots["value"], color=style.color, marker=style.marker, linestyle="", zorder=3)
    shares.set(ylim=(-0.05, 1.05), ylabel="reliability (points)")
    present = [name for name in ("this fact", "earlier facts") if (rows["series"] == name).any()]
    shares.legend(handles=[legend_line(_STYLES[name], name) for name in present], fontsize="small", loc="center right")


def _set_log(ax: Axes, name: Literal["x", "y"]) -> None:
    """Give an axis a log scale with few labels."""
    ax.set(**{f"{name}scale": "log"})
    axis = ax.xaxis if name == "x" else ax.yaxis
    low, high = (abs(end) for end in ax.get_xlim()) if name == "x" else (abs(end) for end in ax.get_ylim())
    subs = (1.0, 2.0, 5.0) if np.log10(max(high, 1e-12) / max(low, 1e-12)) < 2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
