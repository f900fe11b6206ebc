"""The style of all figures: theme, the style of each series, axes, and the check of a table's columns."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from zlib import crc32

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    StrMethodFormatter,
)

from workbench.errors import SpecError
from workbench.registry import series_styles
from workbench.rows import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION, SeriesStyle

_METRICS = {
    "reliability": SeriesStyle(BLUE, "o", "-"),
    "generalization": SeriesStyle(ORANGE, "s", "--"),
    "locality": SeriesStyle(GREEN, "^", "-."),
    "portability": SeriesStyle(PURPLE, "D", ":"),
    "perplexity": SeriesStyle(VERMILION, "o", "-"),
}
# For labels that no row of the registry has, beside labels that one has: other markers, and Tol's muted colors.
_SPARE = (
    SeriesStyle("#332288", "<", "-"),
    SeriesStyle("#882255", "h", "--"),
    SeriesStyle("#999933", "*", "-."),
    SeriesStyle("#44AA99", ">", "-"),
    SeriesStyle("#AA4499", "d", "--"),
    SeriesStyle("#DDCC77", "8", "-."),
)
_MARKERS = "oDs^vPXp"

HEATMAP = "cividis"  # even in brightness, and the same for color-blind readers

RC = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper", font_scale=0.95),
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.9",
    "legend.frameon": False,
    "legend.handlelength": 2.8,  # shows a dash on both sides of a marker
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text is stored as text
    "svg.hashsalt": "workbench",  # the same figure gives the same file
}


def styles_of(labels: Sequence[str]) -> dict[str, SeriesStyle]:
    """Return a style for each series of a figure, by its label.

    Methods, regularizers and metrics have the same style in every figure. Other labels are steps of one series, from
    dark to light, if they are alone; otherwise each gets a style that no other label has.
    """
    known = {label: SeriesStyle(**style) for label, style in series_styles().items()} | _METRICS
    others = [label for label in labels if label not in known]
    if len(others) == len(labels):
        return dict(zip(labels, ordered_styles(len(labels)), strict=True))
    styles = {label: known[label] for label in labels if label in known}
    for label in others:
        start = crc32(label.encode())
        rotated = [_SPARE[(start + i) % len(_SPARE)] for i in range(len(_SPARE))]
        styles[label] = next((style for style in rotated if style not in styles.values()), rotated[0])
    return {label: styles[label] for label in labels}


def ordered_styles(n: int) -> list[SeriesStyle]:
    """Return the styles of `n` steps of one series: black, then dark to light, each with its own marker."""
    colors = mpl.colormaps[HEATMAP]
    shades = [BLACK, *(to_hex(colors(0.15 + 0.45 * i / max(n - 2, 1))) for i in range(n - 1))]
    return [SeriesStyle(shades[i], _MARKERS[i % len(_MARKERS)], "-") for i in range(n)]


def legend_line(style: SeriesStyle, label: str) -> Line2D:
    """Return the legend's entry for a line with markers."""
    line = Line2D([], [], label=label)
    line.set(**style.as_dict())
    return line


def legend_point(style: SeriesStyle, label: str) -> Line2D:
    """Return the legend's entry for points."""
    return Line2D([], [], color=style.color, marker=style.marker, linestyle="", label=label)


def reference_line(label: str) -> Line2D:
    """Return the legend's entry for a dotted line, such as the score of guessing."""
    return Line2D([], [], color="0.5", linewidth=1, linestyle=":", label=label)


@contextmanager
def styled() -> Iterator[None]:
    """Use the workbench's matplotlib settings inside the ``with`` block; in a notebook, show figures as pictures."""
    _show_figures_in_notebooks()
    with mpl.rc_context(RC):
        yield


def _show_figures_in_notebooks() -> None:
    """Let IPython show a Figure as a picture, which it otherwise does only for figures of pyplot."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython  # an optional package, imported only where it is in use
    from IPython.core.pylabtools import print_figure

    shell = get_ipython()
    formatters = shell.display_formatter.formatters if shell else {}
    if formatters and not any(Figure in formatter for formatter in formatters.values()):
        formatters["image/png"].for_type(Figure, partial(print_figure, fmt="png", base64=True))


def edits_label(n_edits: int) -> str:
    """Return the name of a number of edits in legends and titles."""
    return "unedited" if n_edits == 0 else f"{n_edits} edit{'s' * (n_edits > 1)}"


def edits_locator() -> MaxNLocator:
    """Return the ticks of an axis of numbers of edits: a few integers, at steps of 1, 2, 5 or 10 times these."""
    return MaxNLocator(5, integer=True, steps=[1, 2, 5, 10])


def set_perplexity_axis(ax: Axes, table: pd.DataFrame) -> None:
    """Give the y axis a log scale with a few ticks, however far the perplexities of a table spread."""
    low, high = table["value"].min(), table["value"].max()
    if "low" in table:
        low, high = min(low, table["low"].min()), max(high, table["high"].max())
    ax.set_yscale("log")
    ax.yaxis.set_minor_formatter(NullFormatter())
    is_wide = high > 1e4 * low
    ax.yaxis.set_major_formatter(LogFormatterSciNotation() if is_wide else StrMethodFormatter("{x:g}"))
    if high < 3 * low:  # too short an axis for two round ticks of a log scale
        ax.set_ylim(low / 1.1, high * 1.1)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.yaxis.set_major_locator(LogLocator() if is_wide else LogLocator(subs=(1, 2, 5)))


def held_out_title(title: str, table: pd.DataFrame) -> str:
    """Add the number and the lengths of the windows below a title, where the table of perplexities has them."""
    if not {"n", "protocol"} <= set(table.columns):
        return title
    counts = f"{table['n'].min()}" if table["n"].nunique() == 1 else f"{table['n'].min()} to {table['n'].max()}"
    return f"{title}\n{counts} {' or '.join(table['protocol'].unique())}"


def require_columns(table: pd.DataFrame, *columns: str) -> None:
    """Raise `SpecError` unless the table has these columns."""
    if missing := [column for column in columns if column not in table]:
        raise SpecError(f"the table lacks the column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}.")
