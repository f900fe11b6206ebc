"""Tables agree with the numbers, and escape what they are given."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

import workbench as wb
from tests.explorer.conftest import EDITOR, FACT
from workbench.explorer.edits import Continuation
from workbench.explorer.markup import (
    format_probability,
    render_answers,
    render_code,
    render_continuations,
    render_edit,
    render_growth,
    render_verdict,
)


@pytest.mark.parametrize(
    ("p", "text"),
    [(1, "1.00"), (0.4567, "0.46"), (0.0995, "0.10"), (0.0994, "0.099"), (0.001, "0.001"), (0.00012, "1e-4"), (0, "0")],
)
def test_a_probability_has_the_digits_that_matter(p, text):
    assert format_probability(p) == text


def test_control_characters_are_spelled_out_and_markup_is_escaped():
    text = "a<b>\n\x1b&'\""
    assert "a&lt;b&gt;\\n\\x1b&amp;&#39;&#34;</span>" in render_continuations([Continuation(text, "", "")], False)
    assert "<code>a&lt;b&gt;\n\\x1b&amp;&#39;&#34;</code>" in render_code(text)


def test_the_verdict_agrees_with_the_scores(edited):
    answers, _ = edited.predict(FACT)
    text = render_verdict(answers, 1)
    for metric, what in (("generalization", "rephrasings"), ("locality", "other prompts")):
        scores = [a.score for a in answers if a.probe.metric == metric]
        assert f"{sum(s == 1 for s in scores)} of {len(scores)} {what}" in text


def test_one_hop_questions_are_rows_and_are_counted(session):
    request = replace(FACT, portability=(wb.PortabilityProbe("It stands in the country of", "Italy"),))
    session.edit(request, EDITOR)
    answers, _ = session.predict(request)
    [portable] = [a for a in answers if a.probe.metric == "portability"]
    counted = f"{int(portable.score == 1)} of 1 one-hop questions have the answer that follows."
    assert counted in render_verdict(answers, 1)
    outcome = "✓ the answer that follows" if portable.score == 1 else "✗ another answer"
    row = render_answers(answers, 1).split("<tr>")[-1]
    assert "follows</span>" in row
    assert outcome in row


def test_the_table_has_one_row_per_prompt_and_a_second_column_only_after_an_edit(session):
    before = render_answers(session.predict(FACT)[0], 0)
    session.edit(FACT, EDITOR)
    after = render_answers(session.predict(FACT)[0], 1)
    assert before.count("<tr>") == after.count("<tr>") == 6
    assert (before.count("<td>"), after.count("<td>")) == (5, 10)
    assert "Edited" not in before


def test_answers_and_prompts_are_escaped(session):
    request = wb.EditRequest(subject="<img src=x>", prompt="The {} is", target_new="<i>", target_true="<u>")
    session.edit(request, EDITOR)
    table = render_answers(session.predict(request)[0], 1) + render_verdict(session.predict(request)[0], 1)
    assert "&lt;img src=x&gt;" in table
    assert not any(tag in table for tag in ("<img", "<i>", "<u>"))


def test_an_edit_of_the_history_shows_the_fact_and_how_it_was_edited(edited):
    [edit] = edited.edits
    [record], [losses] = edit.computed.records, edit.computed.records[0].losses
    _, [answered] = edited.predict(FACT)
    before, now = (
        format_probability(each.probabilities[FACT.target_new]) for each in (answered.before, answered.after)
    )
    text = "".join(ElementTree.fromstring(render_edit(1, edit, answered)).itertext())
    assert " ".join(text.split()) == (
        f"1{FACT.filled_prompt} … Paris → Rome, Italy ROME, layer 1, Unregularized · {edit.seconds:.1f} s · "
        f"loss {losses[0]:.2f} → {losses[-1]:.2f} in {len(losses)} steps · "
        f"denominator {record.diagnostics['denominator']:.3g} · P(Rome, Italy) {before} → {now} now"
    )


def test_every_table_of_an_edit_is_well_formed(edited):
    answers, [answered] = edited.predict(FACT)
    continuations = edited.continue_prompts(["The river"], 2)
    parts = [
        render_verdict(answers, 1),
        render_answers(answers, 1),
        render_continuations(continuations, True),
        render_edit(1, edited.edits[0], answered),
        render_growth(edited.growth(), edited.thresholds),
    ]
    for part in parts:
        ElementTree.fromstring(f"<div>{part}</div>")
