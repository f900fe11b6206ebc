"""Why abilities are lost: what predicts the loss, and spectra of the accumulated update."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from workbench.plots.style import legend_point, require_columns, styles_of
from workbench.rows import BLACK, BLUE, GRAY, VERMILION, SeriesStyle

_ALONE, _TOGETHER = SeriesStyle(BLUE, "o", ""), SeriesStyle(VERMILION, "s", "")
_SPECTRA = {
    "W₀": SeriesStyle(BLACK, "", "-"),
    "W_t": SeriesStyle(VERMILION, "", "--"),
    "ΔW": SeriesStyle(BLUE, "", "-."),
}
_NEAR_ZERO = 0.01  # log perplexity ratios below are drawn on a linear scale
_PANELS = {
    "angle_in": ("input side: angle of\nleading subspaces (degrees)", "linear"),
    "angle_out": ("output side: angle of\nleading subspaces (degrees)", "linear"),
    "activation_growth": ("norm of the layer's outputs,\nW_t / W₀", "linear"),
    "delta_90": ("90 % quantile of δ", "log"),
    "text": ("log perplexity ratio", "symlog"),
}


def predictor_strengths(
    ranked: pd.DataFrame, figure: Figure, *, names: dict[str, str], titles: dict[str, str]
) -> Figure:
    """Draw standardized coefficients with their intervals: a row of panels per group, a panel per response.

    Parameters
    ----------
    ranked : DataFrame
        Table of `workbench.analysis.why.rank_predictors`.
    figure : Figure
        The Figure to draw on.
    names, titles : dict of str to str
        Names of the predictors and of the responses.

    Returns
    -------
    Figure
    """
    require_columns(ranked, "group", "response", "predictor", "alone", "together", "left_out", "sequences")
    groups = list(dict.fromkeys(ranked["group"]))
    axes = figure.subplots(max(1, len(groups)), len(titles), sharex=True, sharey=True, squeeze=False)
    for row, group in zip(axes, groups, strict=False):
        for ax, (response, title) in zip(row, titles.items(), strict=True):
            part = ranked[(ranked["group"] == group) & (ranked["response"] == response)].set_index("predictor")
            _draw_strengths(part.reindex(list(names)), ax)
            count = f" (n = {int(part['sequences'].iloc[0])})" if len(part) else " (not measured)"
            ax.set_title(f"{group}: {title}{count}", fontsize="small")
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(names)), list(names.values()))
        ax.set_ylim(len(names) - 0.5, -0.5)
    for ax in axes[-1]:
        ax.set_xlabel("standardized coefficient")
    labels = ("alone (rank correlation)", "together with the others")
    handles = [legend_point(style, label) for style, label in zip((_ALONE, _TOGETHER), labels, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _draw_strengths(part: pd.DataFrame, ax: Axes) -> None:
    for shift, kind, style in ((-0.15, "alone", _ALONE), (0.15, "together", _TOGETHER)):
        heights = np.arange(len(part)) + shift
        ax.plot(part[kind], heights, color=style.color, marker=style.marker, linestyle="")
        ax.hlines(heights, part[f"{kind}_low"], part[f"{kind}_high"], color=style.color, linewidth=1.2)
    ax.axvline(0, color="0.5", linewidth=0.8, linestyle=":")
    ax.set_xlim(-1.6, 1.6)  # coefficients of predictors that move together can be far larger
    ax.grid(axis="y")


def _set_log(ax: Axes, name: Literal["x", "y"]) -> None:
    """Give an axis a log scale with ticks at 1, 2 and 5 times powers of ten."""
    ax.set(**{f"{name}scale": "log"})
    axis = ax.xaxis if name == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _set_symlog(ax: Axes, values: "pd.Series[float]") -> None:
    """Give the y axis a scale that is logarithmic on both sides of 0, and room for the finite values."""
    ax.set_yscale("symlog", linthresh=_NEAR_ZERO)
    known = values[np.isfinite(values)]
    if len(known):
        ax.set_ylim(min(known.min(), 0) - _NEAR_ZERO, 2 * max(known.max(), _NEAR_ZERO))


def spectral_view(values: pd.DataFrame, damage: pd.DataFrame, figure: Figure) -> Figure:
    """Draw the singular values of one edited matrix, and what all stored edits did against σ₁(ΔW)/σ₁(W).

    Parameters
    ----------
    values : DataFrame
        Table of `workbench.analysis.spectra.tabulate_singular_values`.
    damage : DataFrame
        Table of `workbench.analysis.why.collect_damage`.
    figure : Figure
        The Figure to draw on.

    Returns
    -------
    Figure
    """
    require_columns(values, "matrix", "index", "value")
    require_columns(damage, "method", "regularizer", "spectral_ratio", *_PANELS)
    first, *others = figure.subplots(2, 3).ravel()
    for label, rows in values.groupby("matrix", sort=False):
        style = _SPECTRA[str(label)]
        positive = rows[rows["value"] > rows["value"].max() * 1e-9]
        ends = {"marker": "o"} if len(positive) == 1 else {}
        first.plot(
            positive["index"], positive["value"], color=style.color, linestyle=style.linestyle, label=label, **ends
        )
    first.set(xlabel="index of the singular value", ylabel="singular value")
    for name in ("x", "y"):
        _set_log(first, name)
    if len(values):
        first.legend()
    styles = styles_of(list(dict.fromkeys(damage["method"])))
    for ax, (column, (label, scale)) in zip(others, _PANELS.items(), strict=True):
        for (method, regularized), rows in damage.groupby(["method", damage["regularizer"] != "Unregularized"]):
            style = styles[str(method)]
            fill = {"markerfacecolor": "none" if regularized else style.color, "markersize": 3.5, "alpha": 0.8}
            ax.plot(rows["spectral_ratio"], rows[column], color=style.color, marker=style.marker, linestyle="", **fill)
        ax.set(xlabel="σ₁(ΔW) / σ₁(W)", ylabel=label)
        _set_log(ax, "x")
        if scale == "log":
            _set_log(ax, "y")
        elif scale == "symlog":
            _set_symlog(ax, damage[column])
        ax.axvline(1, color=GRAY, linewidth=0.8, linestyle=":")
        ax.grid()
    handles: list[Line2D] = [legend_point(style, method) for method, style in styles.items()]
    if (damage["regularizer"] != "Unregularized").any():
        handles.append(
            Line2D([], [], color="0.3", marker="o", markerfacecolor="none", linestyle="", label="regularized")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
