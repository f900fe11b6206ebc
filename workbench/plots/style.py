"""One look for all figures: a regularizer or series has one color, marker and dash everywhere."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from workbench.errors import SpecError

# Okabe and Ito's palette: safe for the color-blind; markers and dashes tell the same apart in gray
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)

LOOK: dict[str, dict] = {
    "Unregularized": {"color": BLACK, "marker": "o", "linestyle": "-"},
    "RECT 80 %": {"color": SKY, "marker": "^", "linestyle": "-"},
    "RECT 60 %": {"color": GREEN, "marker": "s", "linestyle": "--"},
    "RECT 40 %": {"color": BLUE, "marker": "D", "linestyle": "-"},
    "RECT 20 %": {"color": PURPLE, "marker": "v", "linestyle": "-."},
    "Random 40 %": {"color": ORANGE, "marker": "P", "linestyle": "--"},
    "PCA 40 %": {"color": VERMILION, "marker": "X", "linestyle": ":"},
    "ROME": {"color": BLACK, "marker": "o", "linestyle": "-"},
    "R-ROME": {"color": "#777777", "marker": "p", "linestyle": "--"},
    "MEMIT": {"color": BLUE, "marker": "D", "linestyle": "-"},
    "KN": {"color": VERMILION, "marker": "X", "linestyle": ":"},
    "MEND": {"color": GREEN, "marker": "s", "linestyle": "--"},
    "FT": {"color": ORANGE, "marker": "P", "linestyle": "-."},
    "FT-L": {"color": PURPLE, "marker": "v", "linestyle": "-."},
    "reliability": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "generalization": {"color": ORANGE, "marker": "s", "linestyle": "--"},
    "perplexity": {"color": VERMILION, "marker": "o", "linestyle": "-"},
    "locality": {"color": GREEN, "marker": "^", "linestyle": "-."},
}
_MARKERS = "oDs^vPXp"
_SPARE = ("#444444", "#777777", "#AAAAAA")

HEATMAP = "cividis"  # even in brightness, the same for all eyes

RC = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "workbench",  # the same figure, the same file
}


def look_of(label: str) -> dict:
    """Color, marker and line style of a series; labels outside `LOOK` get a gray by their name."""
    if label in LOOK:
        return LOOK[label]
    return {"color": _SPARE[sum(map(ord, label)) % len(_SPARE)], "marker": "o", "linestyle": "-"}


def looks_of(labels: Sequence[str]) -> dict[str, dict]:
    """A look for each series of a figure: those that have one everywhere; else steps from dark to light."""
    if all(label in LOOK for label in labels):
        return {label: LOOK[label] for label in labels}
    return dict(zip(labels, ordered_looks(len(labels)), strict=True))


def ordered_looks(n: int) -> list[dict]:
    """Looks of n steps of one series: the first black, the others from dark to light, each with its own marker."""
    colors = mpl.colormaps[HEATMAP]
    return [
        {
            "color": BLACK if i == 0 else colors(0.15 + 0.6 * (i - 1) / max(n - 2, 1)),
            "marker": _MARKERS[i % len(_MARKERS)],
        }
        for i in range(n)
    ]


@contextmanager
def styled() -> Iterator[None]:
    """The workbench's matplotlib settings for the time of the block."""
    _show_figures_in_notebooks()
    with mpl.rc_context(RC):
        yield


def _show_figures_in_notebooks() -> None:
    """In a notebook, let a Figure that a cell ends in be a picture; without pyplot, nobody has asked for that."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython
    from IPython.core.pylabtools import print_figure

    shell = get_ipython()
    formatters = shell.display_formatter.formatters if shell else {}
    if formatters and not any(Figure in formatter for formatter in formatters.values()):
        formatters["image/png"].for_type(Figure, partial(print_figure, fmt="png", base64=True))


def error_bar(row: object) -> list[list[float]]:
    """Lengths of an error bar below and above `row.value`, from `row.low` to `row.high`, as matplotlib takes them."""
    return [[max(row.value - row.low, 0)], [max(row.high - row.value, 0)]]


def edits_locator() -> MaxNLocator:
    """Ticks for numbers of edits: a few whole ones, at steps of 1, 2 or 5 and their tens."""
    return MaxNLocator(5, integer=True, steps=[1, 2, 5, 10])


def perplexity_axis(ax: Axes, table: pd.DataFrame) -> None:
    """A log axis for the perplexities of a table, with a few ticks whether they span a decade or twenty."""
    low, high = table["low"].min(), table["high"].max()
    wide = np.log10(high / low) > 4
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator() if wide else LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(LogFormatterSciNotation() if wide else StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    if high < 3 * low:  # too few whole ticks on so short an axis
        ax.set_ylim(low / 1.5, high * 1.5)


def require_columns(table: pd.DataFrame, *columns: str) -> None:
    """Raise `SpecError` unless the table has these columns."""
    if missing := [column for column in columns if column not in table]:
        raise SpecError(f"the table lacks the column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}.")
