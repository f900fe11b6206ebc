"""The tab that reads a text: what the model says reaches the view, and follows the edits."""

from html import unescape

import pytest

from tests.explorer.test_panel import PATIENCE, errors, panel, press  # noqa: F401  panel is a fixture
from workbench.explorer.tabs.text import CONTINUED, OWN, PASSAGE, TextTab
from workbench.microscope.text import compare_text, continued, held_out_passages

TEXT = "The Eiffel Tower is located in the city of Paris."


def tab_of(panel) -> TextTab:  # noqa: F811
    [tab] = [tab for tab in panel._results.tabs if isinstance(tab, TextTab)]
    panel._results._tabs.selected_index = panel._results.tabs.index(tab)
    assert panel.wait(PATIENCE)
    return tab


def read(panel, tab):  # noqa: F811
    """Press the tab's button and wait until all work is done; other tabs have a button of the same name."""
    assert not tab._button.disabled
    tab._button.click()
    assert panel.wait(PATIENCE)


def changes_in(view) -> list[float | None]:
    pairs = [(token["before"], token["after"]) for token in view.data["tokens"]]
    return [None if a is None else b - a for a, b in pairs]


def test_a_text_is_compared_with_the_unedited_model(panel):  # noqa: F811
    tab = tab_of(panel)
    press(panel, "Edit")
    tab._text.value = TEXT
    read(panel, tab)
    [view] = tab.views()
    with panel.session.edited() as lm:
        expected = compare_text(lm, TEXT).tokens
    assert [token["text"] for token in view.data["tokens"]] == expected["token"].tolist()
    found = [change for change in changes_in(view) if change is not None]
    assert found == pytest.approx(expected["change"].dropna().tolist(), abs=1e-3)
    assert view.data["edited"]
    assert tab._live.view == {"kind": "text", "data": view.data}
    assert errors(panel) == []


def test_the_text_is_read_again_when_the_edits_change(panel):  # noqa: F811
    tab = tab_of(panel)
    tab._text.value = TEXT
    read(panel, tab)
    assert not tab.views()[0].data["edited"]
    assert set(changes_in(tab.views()[0])) <= {0.0, None}
    press(panel, "Edit")
    assert tab.views()[0].data["edited"]
    assert any(change for change in changes_in(tab.views()[0]))
    press(panel, "Undo")
    assert not tab.views()[0].data["edited"]


def test_a_passage_and_a_continuation_can_be_read(panel):  # noqa: F811
    tab = tab_of(panel)
    press(panel, "Edit")
    tab._source.value = PASSAGE
    tab._passage.index = 4
    read(panel, tab)
    assert "".join(token["text"] for token in tab.views()[0].data["tokens"]) == held_out_passages()[4]
    tab._source.value, tab._text.value, tab._n_tokens.value = CONTINUED, "The Louvre", 6
    read(panel, tab)
    with panel.session.edited() as lm:
        expected = continued(lm, "The Louvre", 6)
    assert "".join(token["text"] for token in tab.views()[0].data["tokens"]) == expected
    assert len(expected) > len("The Louvre")


def test_an_empty_text_is_refused_in_one_sentence(panel):  # noqa: F811
    tab = tab_of(panel)
    tab._source.value, tab._text.value = OWN, ""
    read(panel, tab)
    assert [unescape(text) for text in errors(panel)] == [
        "the text '' has no token that is predicted; give a longer one."
    ]
