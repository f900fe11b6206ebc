"""The edit card in the panel: it follows the edits, and a refused edit can be repaired from it."""

from html import unescape

import workbench as wb
from tests.explorer.conftest import SECOND
from tests.explorer.test_panel import PATIENCE, button, fill_quick, panel, press  # noqa: F401  panel is a fixture
from workbench.explorer.edit_card import render_written
from workbench.microscope.card import SYMBOLS, describe_risk
from workbench.microscope.written import Written, WrittenToken, WrittenVector, read_written


def card_of(panel):  # noqa: F811
    return panel._results.card


def test_every_edit_has_a_card_with_what_it_writes(panel):  # noqa: F811
    assert card_of(panel).layout.display == "none"
    press(panel, "Edit")
    [edit] = panel.session.edits
    expected = describe_risk(edit.risk, edit.editor, edit.regularizer)
    text = unescape(card_of(panel)._card.value)
    assert expected.sentence in text
    assert expected.title in text
    assert expected.title.startswith(SYMBOLS[expected.level])
    [written] = read_written(edit.update, panel.session.lm)
    html = unescape(card_of(panel)._written.value)
    assert f"<td>{written.vectors[0].answer_rank} of {panel.session.lm.vocabulary_size}</td>" in html
    assert written.parameter in html
    assert button(panel, "Repair and apply").layout.display == "none"
    press(panel, "Undo")
    assert card_of(panel).layout.display == "none"
    assert card_of(panel)._card.value == card_of(panel)._written.value == ""


def test_the_card_is_that_of_the_last_edit(panel):  # noqa: F811
    press(panel, "Edit")
    first = card_of(panel)._card.value
    fill_quick(panel, SECOND)
    press(panel, "Edit")
    assert SECOND.filled_prompt in card_of(panel)._card.value
    press(panel, "Undo last")
    assert card_of(panel)._card.value == first


def refuse(panel):  # noqa: F811
    panel._method._method.value = "ft"
    panel._method._fields["lr"][1].value = "1.0"
    press(panel, "Edit")
    assert panel.session.edits == ()


def test_a_refused_edit_is_repaired_from_its_card(panel, monkeypatch):  # noqa: F811
    refuse(panel)
    text = unescape(card_of(panel)._card.value)
    assert "✗ Would damage the model" in text
    assert "Not applied" in text
    assert "A guard would try: singular values above σ₁(W) restrained (PRUNE)." in text
    assert "(either sign)" in card_of(panel)._written.value  # fine-tuning has no keys
    refused, lm = panel.session.refused, panel.session.lm
    kls = [wb.assess(update, lm).kl for update in (refused.computed, wb.PRUNE()(refused.computed, lm))]
    monkeypatch.setattr("workbench.explorer.proposals.Guard", lambda: wb.Guard(limit=sum(kls) / 2))
    press(panel, "Repair and apply")
    [edit] = panel.session.edits
    assert edit.regularizer == wb.PRUNE()
    assert panel._regularizer.read_choice() == ("prune", None)
    assert "Applied" in card_of(panel)._card.value


def test_a_repair_that_does_not_help_leaves_the_edit_refused(panel):  # noqa: F811
    refuse(panel)
    press(panel, "Repair and apply")
    assert panel.session.edits == ()
    assert panel._anyway.layout.display == ""
    press(panel, "Apply anyway")
    assert len(panel.session.edits) == 1


def test_what_is_written_is_escaped_and_what_is_not_read_is_named():
    vector = WrittenVector(0.5, (WrittenToken(1, " <b>", 2.0),), (WrittenToken(2, "\n", -2.0),), is_signed=True)
    html = render_written([Written("a.weight", (vector,)), Written("b.weight", (), "b.weight is not read.")], 3, 100)
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "50 %" in html
    assert "b.weight is not read." in html
    assert "3 matrices with a smaller ‖ΔW‖ are left out." in html


def test_an_update_that_cannot_be_read_says_so():
    html = render_written([Written("b.weight", (), "b.weight is not read.")], 0, 100)
    assert "What it writes: it cannot be read as tokens" in html
