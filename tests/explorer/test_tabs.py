"""All tabs of the panel."""

import ipywidgets as widgets
import pytest

from workbench.explorer.panel import Explorer
from workbench.explorer.results import Results

OWN = set(dir(widgets.VBox()))


class Plain(widgets.VBox):
    """A widget that adds nothing."""

    def __init__(self) -> None:
        super().__init__()


@pytest.fixture
def results(tiny) -> Results:
    """Give the right side of a panel."""
    panel = Explorer(tiny)
    assert panel.wait(120)
    yield panel._results
    panel.close()


def test_tabs_have_titles_of_their_own(results):
    titles = [tab.title for tab in results.tabs]
    assert len(titles) == len(set(titles)) > 10
    assert list(results._tabs.titles) == titles


def test_no_tab_hides_what_its_widget_uses(results):
    # such as Widget._compare, without which the page is not shown
    instance = vars(widgets.VBox()).keys()
    for tab in results.tabs:
        assert {name for name in vars(tab) if name in OWN} <= instance, tab.title
        assert {name for name in vars(type(tab)) if name in OWN} <= vars(Plain).keys()
