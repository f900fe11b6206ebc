"""Tables agree with the numbers, and escape what they are given."""

import pytest

import workbench as wb
from tests.explorer.conftest import EDITOR, FACT
from workbench.explorer.markup import answers_table, chance, shown, verdict


@pytest.mark.parametrize(
    ("p", "text"),
    [(1, "1.00"), (0.4567, "0.46"), (0.0995, "0.10"), (0.0994, "0.099"), (0.001, "0.001"), (0.00012, "1e-4"), (0, "0")],
)
def test_a_chance_has_the_digits_that_matter(p, text):
    assert chance(p) == text


def test_control_characters_are_spelled_out_and_marks_escaped():
    assert shown("a<b>\n\x1b&'\"") == "a&lt;b&gt;\\n\\x1b&amp;&#x27;&quot;"


def test_the_verdict_agrees_with_the_scores(edited):
    answers, _ = edited.predict(FACT)
    text = verdict(answers, 1)
    for metric, what in (("generalization", "rephrasings"), ("locality", "other prompts")):
        scores = [a.score for a in answers if a.probe.metric == metric]
        assert f"{sum(s == 1 for s in scores)} of {len(scores)} {what}" in text


def test_the_table_has_one_row_per_prompt_and_a_second_column_only_after_an_edit(session):
    before = answers_table(session.predict(FACT)[0], 0)
    session.edit(FACT, EDITOR)
    after = answers_table(session.predict(FACT)[0], 1)
    assert before.count("<tr>") == after.count("<tr>") == 6
    assert (before.count("<td>"), after.count("<td>")) == (5, 10)
    assert "Edited" not in before


def test_answers_and_prompts_are_escaped(session):
    request = wb.EditRequest(subject="<img src=x>", prompt="The {} is", target_new="<i>", target_true="<u>")
    session.edit(request, EDITOR)
    table = answers_table(session.predict(request)[0], 1) + verdict(session.predict(request)[0], 1)
    assert "&lt;img src=x&gt;" in table
    assert not any(tag in table for tag in ("<img", "<i>", "<u>"))
