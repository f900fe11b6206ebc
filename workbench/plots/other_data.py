"""The same protocol on several sources of facts."""

from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from workbench.plots.intervals import draw_points
from workbench.plots.style import legend_point, require_columns, styles_of

_WIDTH = 13  # characters of a line of the name of a source
_CHANGES = ("likelihood", "text")  # whose unedited value is 0


def sources_compared(summary: pd.DataFrame, figure: Figure, *, titles: dict[str, str]) -> Figure:
    """Draw one panel per score, with a point and its interval per source of facts and regularizer.

    Parameters
    ----------
    summary : DataFrame
        Table of `workbench.analysis.other_data.summarize_sources`, of one method.
    figure : Figure
        The Figure to draw on.
    titles : dict of str to str
        Titles of the scores.

    Returns
    -------
    Figure
    """
    require_columns(summary, "facts", "regularizer", "score", "value", "low", "high", "units")
    scores = [score for score in titles if score in set(summary["score"])]
    styles = styles_of(list(dict.fromkeys(summary["regularizer"])))
    sources = list(dict.fromkeys(summary["facts"]))
    axes = figure.subplots(1, len(scores), squeeze=False)[0]
    for ax, score in zip(axes, scores, strict=True):
        part = summary[summary["score"] == score].assign(series=lambda rows: rows["regularizer"])
        draw_points(part, ax, x="facts", y="value", styles=styles, dodge=0.3)
        ax.set_xticks(range(len(sources)), [fill(source, _WIDTH) for source in sources], fontsize="small")
        ax.set(xlabel="", ylabel="", xlim=(-0.6, len(sources) - 0.4))
        ax.set_title(titles[score].replace(", ", ",\n"), fontsize="small")
        if score in _CHANGES:
            ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        else:
            ax.set_ylim(-0.03, 1.03)
        ax.grid(axis="y")
    axes[0].set_ylabel(f"score (sequences: {summary['units'].max()})")
    handles = [legend_point(style, label) for label, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
