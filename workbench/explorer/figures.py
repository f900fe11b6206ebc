"""Figures of the explorer: one matrix of an edit, and the abilities; as files, and as images in HTML."""

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from workbench.explorer.weights import WeightView
from workbench.html import render
from workbench.plots.abilities import before_after_figure
from workbench.plots.style import edits_label, styled
from workbench.plots.weights import kept_change_panel, weight_heatmap

_DRAWING = threading.RLock()  # all threads share matplotlib's settings and caches
_SCREEN_DPI = 160
_CSS_DPI = 100  # CSS pixels per inch of a figure
_IMAGE = '<img class="wb-figure" alt="{{ alt }}" width="{{ width }}" src="data:image/png;base64,{{ data }}">'


@contextmanager
def drawing() -> Iterator[None]:
    """Use the matplotlib settings of the workbench inside the ``with`` block, in one thread at a time."""
    with _DRAWING, styled():
        yield


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its data and a description.

    Attributes
    ----------
    name : str
        File name without ending.
    alt : str
        Description of the figure, for readers who cannot see it.
    figure : Figure
        The figure.
    table : DataFrame
        The data that the figure shows.
    """

    name: str
    alt: str
    figure: Figure
    table: pd.DataFrame

    def to_html(self) -> Markup:
        """Return the figure as an image element with embedded data."""
        return render_image(self.to_png(), self.alt, width=round(self.figure.get_figwidth() * _CSS_DPI))

    def to_png(self) -> bytes:
        """Return the figure as a PNG for screens."""
        buffer = io.BytesIO()
        with drawing(), mpl.rc_context({"savefig.bbox": "standard"}):
            self.figure.savefig(buffer, format="png", dpi=_SCREEN_DPI)
        return buffer.getvalue()


def render_image(png: bytes, alt: str, *, width: int) -> Markup:
    """Return a PNG as an image element with embedded data.

    Parameters
    ----------
    png : bytes
        Content of the file.
    alt : str
        Description of the image.
    width : int
        Largest width, in CSS pixels.

    Returns
    -------
    Markup
    """
    return render(_IMAGE, alt=alt, width=width, data=base64.b64encode(png).decode())


def heatmap_picture(view: WeightView) -> Picture:
    """Return a heatmap of |ΔW|, which shows where the last edit changes a matrix."""
    with drawing():
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        ax = figure.subplots()
        weight_heatmap(view.means, ax, limits=view.limits)
        figure.colorbar(ax.collections[0], ax=ax, pad=0.02).set_label("|ΔW|, mean of block")
        ax.set_title(view.name)
    rows, columns = view.means["row"].nunique(), view.means["column"].nunique()
    alt = (
        f"Heatmap of |ΔW| of {view.name}, {rows} by {columns} blocks, mean of each; "
        f"the largest of all is {view.means['value'].max():.3g}."
    )
    return Picture("heatmap", alt, figure, view.means)


def histogram_picture(view: WeightView, label: str) -> Picture:
    """Return a histogram of the relative change δ of the entries of a matrix, before and after regularization.

    Parameters
    ----------
    view : WeightView
        The matrix.
    label : str
        Label of the regularizer.

    Returns
    -------
    Picture
    """
    with drawing():
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        ax = kept_change_panel(view.histogram, view.threshold, figure.subplots())
        ax.set_title(label)
    kept_from = "" if view.threshold is None else f" Entries from δ = {view.threshold:.3g} up are kept."
    return Picture(
        "relative_change", f"Histogram of δ = |ΔW/W| of {view.name}, {label}.{kept_from}", figure, view.histogram
    )


def abilities_picture(scores: pd.DataFrame) -> Picture:
    """Return a bar chart of the scores of the unedited and the edited model on the eight tasks.

    Parameters
    ----------
    scores : DataFrame
        Table from `Session.check_abilities`.

    Returns
    -------
    Picture
    """
    with drawing():
        figure = before_after_figure(scores, Figure(figsize=(6.4, 3.8), layout="constrained"))
    values = "; ".join(
        f"{title}: " + ", ".join(f"{edits_label(row['n_edits'])} {row['value']:.2f}" for row in rows.to_dict("records"))
        for title, rows in scores.groupby("title", sort=False)
    )
    return Picture("abilities", f"Scores with 95 % intervals. {values}.", figure, scores)
