"""In a notebook, a figure made in the workbench's look is a picture."""

import base64
from types import SimpleNamespace

import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from workbench.plots import style as look


@pytest.fixture
def formatter(monkeypatch) -> DisplayFormatter:
    """Give what a notebook shows the values of cells with, in force for this test."""
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
    with look.styled():
        pass
    assert base64.b64decode(formatter.format(figure)[0]["image/png"]).startswith(b"\x89PNG")


def test_a_form_of_pictures_that_the_reader_chose_stays(formatter, figure):
    formatter.formatters["image/svg+xml"].for_type(Figure, lambda figure: "<svg/>")
    with look.styled():
        pass
    shown, _ = formatter.format(figure)
    assert shown["image/svg+xml"] == "<svg/>"
    assert "image/png" not in shown
