"""Series have one style in all figures, no two the same, and notebooks show figures as pictures."""

import base64
from types import SimpleNamespace

import matplotlib as mpl
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from workbench.plots.style import set_perplexity_axis, styled, styles_of
from workbench.registry import series_styles


def test_methods_and_regularizers_have_the_styles_of_the_registry():
    styles = series_styles()
    assert {"ROME", "RECT 40 %"} <= styles.keys()
    assert {label: style.as_dict() for label, style in styles_of(list(styles)).items()} == styles


def test_labels_that_no_row_has_get_styles_that_nothing_else_in_the_figure_has():
    labels = ["RECT 50 %", "ROME", "Clip", "Clip 2", "RECT 40 %", "reliability"]
    styles = styles_of(labels)
    assert list(styles) == labels
    assert len({style.marker for style in styles.values()} - {"o", "D"}) == 3
    assert styles == styles_of(labels)
    assert styles_of(["ROME", "Clip"])["Clip"] == styles_of(["RECT 40 %", "Clip"])["Clip"]


def test_the_style_ends_with_the_block():
    before = dict(mpl.rcParams)
    with styled():
        assert mpl.rcParams["svg.hashsalt"] == "workbench"
    assert dict(mpl.rcParams) == before


@pytest.fixture
def formatter(monkeypatch) -> DisplayFormatter:
    """Give the formatter by which a notebook shows the values of cells, for this test only."""
    formatter = DisplayFormatter()
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(display_formatter=formatter))
    return formatter


@pytest.fixture
def figure() -> Figure:
    figure = Figure()
    figure.subplots()
    return figure


def test_a_notebook_shows_a_figure_as_a_picture(formatter, figure):
    assert [*formatter.format(figure)[0]] == ["text/plain"]
    with styled():
        pass
    assert base64.b64decode(formatter.format(figure)[0]["image/png"]).startswith(b"\x89PNG")


def test_a_picture_format_that_the_reader_chose_stays(formatter, figure):
    formatter.formatters["image/svg+xml"].for_type(Figure, lambda figure: "<svg/>")
    with styled():
        pass
    shown, _ = formatter.format(figure)
    assert shown["image/svg+xml"] == "<svg/>"
    assert "image/png" not in shown


@pytest.mark.parametrize("high", [40.8, 53, 115])
def test_a_perplexity_axis_of_a_short_range_has_several_labelled_ticks(high):
    ax = Figure().subplots()
    ax.plot([0, 1], [40, high])
    set_perplexity_axis(ax, pd.DataFrame({"value": [40, high]}))
    low_end, high_end = ax.get_ylim()
    assert low_end < 40 < high < high_end
    shown = [tick for tick in ax.get_yticks() if low_end <= tick <= high_end]
    assert len(shown) >= 3
    assert not len(ax.get_yticks(minor=True))
