"""The tab that compares schemes: rows come from the forms, results appear row by row, and one click applies a row."""

import workbench as wb
from tests.explorer.conftest import FACT
from tests.explorer.test_panel import PATIENCE, button, errors, fill_quick, panel, press, shown  # noqa: F401  a fixture
from workbench.explorer.desk import Choice
from workbench.explorer.tabs.schemes import _SUGGESTED, MAX_ROWS, SchemesTab

ADD = "Add the settings on the left"


def tab_of(panel) -> SchemesTab:  # noqa: F811
    [tab] = [tab for tab in panel._results.tabs if isinstance(tab, SchemesTab)]
    panel._results._tabs.selected_index = panel._results.tabs.index(tab)
    assert panel.wait(PATIENCE)
    return tab


def add_two(panel):  # noqa: F811
    """Add ROME, without and with RECT."""
    press(panel, ADD)
    panel._regularizer._kind.value, panel._regularizer._keep.value = "rect", 30
    assert panel.wait(PATIENCE)
    press(panel, ADD)


def test_rows_are_the_settings_on_the_left(panel):  # noqa: F811
    tab = tab_of(panel)
    assert "No rows yet." in shown(tab)
    add_two(panel)
    assert "1. ROME, layer 1</div>" in shown(tab)
    assert "2. ROME, layer 1, RECT 30 %</div>" in shown(tab)
    tab._rows.children[0].children[1].click()
    assert "1. ROME, layer 1, RECT 30 %</div>" in shown(tab)
    panel._method._fields["layer"][1].value = "high"
    button(panel, ADD).click()
    assert len(errors(panel)) == 1
    assert len(tab._choices) == 1


def test_no_more_rows_than_can_be_compared_are_added(panel):  # noqa: F811
    tab = tab_of(panel)
    press(panel, "Suggest six")
    assert len(tab._choices) == MAX_ROWS == 6
    assert button(panel, ADD).disabled


def test_suggested_rows_are_schemes_that_can_be_made(panel):  # noqa: F811
    for choice in _SUGGESTED:
        scheme = choice.to_scheme()
        assert panel.session.editor(scheme.method, scheme.fields)
        assert choice.label


def test_labels_name_layers_and_both_regularizers():
    choice = Choice("memit", {"layers": (3, 4)}, ("rect", 0.25), ("prune", None))
    assert choice.label == "MEMIT, layers 3, 4, RECT 25 %, PRUNE of the sum"
    assert choice.to_scheme().regularizer == wb.RECT(0.25)
    assert choice.to_scheme().accumulated == wb.PRUNE()


def test_rows_are_compared_and_one_click_applies_one(panel):  # noqa: F811
    tab = tab_of(panel)
    add_two(panel)
    panel._regularizer._kind.value = "none"
    assert panel.wait(PATIENCE)
    press(panel, "Compare")
    [view] = tab.views()
    rows = view.data["rows"]
    assert view.data["fact"] == FACT.filled_prompt
    assert [row["regularizer"] for row in rows] == ["Unregularized", "RECT 30 %"]
    assert [row["shared"] for row in rows] == [False, True]
    assert not view.data["stale"]
    assert rows[0]["norm"] > rows[1]["norm"] > 0
    assert panel.session.edits == ()
    tab._live.gesture = {"row": 1, "number": 1}
    assert panel.wait(PATIENCE)
    [edit] = panel.session.edits
    assert (edit.request, edit.regularizer) == (FACT, wb.RECT(0.3))
    assert panel._regularizer.read_choice() == ("rect", 0.3)

    assert tab.views()[0].data["stale"]
    assert "Applied" in panel._results.card._card.value
    tab._live.gesture = {"row": 0, "number": 2}
    assert panel.wait(PATIENCE)
    assert errors(panel) == ["the edits have changed since the schemes were compared; compare them again."]


def test_a_fact_that_has_been_edited_is_compared_with_a_notice(panel):  # noqa: F811
    tab = tab_of(panel)
    press(panel, ADD)
    press(panel, "Compare")
    assert "already wrote" not in shown(tab)
    press(panel, "Edit")
    press(panel, "Compare")
    assert "Edit 1 already wrote to this prompt" in shown(tab)
    press(panel, "Undo")
    press(panel, "Compare")
    assert "already wrote" not in shown(tab)


def test_a_row_that_fails_is_shown_with_its_sentence(panel):  # noqa: F811
    tab = tab_of(panel)
    panel._method._fields["layer"][1].value = "9"
    press(panel, ADD)
    press(panel, "Compare")
    [view] = tab.views()
    assert view.data["rows"][0]["error"] == f"layer 9 is out of range: {panel.session.lm.name} has layers 0 to 3."
    assert view.data["rows"][0]["error"] in view.fallback
    assert view.data["rows"][0]["seconds"] is None


def test_comparing_no_row_is_refused(panel):  # noqa: F811
    tab_of(panel)
    press(panel, "Compare")
    assert errors(panel) == ["there is no row to compare; add the settings on the left, or the suggested rows."]
