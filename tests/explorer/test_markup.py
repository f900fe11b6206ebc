"""Tables agree with the numbers, and escape what they are given."""

import pytest

import workbench as wb
from tests.explorer.conftest import EDITOR, FACT
from workbench.explorer.edits import Continuation
from workbench.explorer.markup import (
    format_probability,
    render_answers,
    render_code,
    render_continuations,
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
