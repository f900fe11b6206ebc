"""Summarization: the exact prompts, and ROUGE counted by hand."""

import pytest

from workbench.data.tasks.examples import SummarizationExample
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.summarization import TASK

PUPPY = SummarizationExample(
    dialogue="A: Hi Tom, are you busy?\nB: I'm pretty sure I am.",
    summary="A wants to see Tom, who is busy.",
)


def scored(text, summary):
    return TASK.score(SummarizationExample("A: Hi.", summary), (Answer(text, ()),), "paper")


def test_the_papers_prompt_asks_for_twenty_five_tokens():
    [query] = TASK.ask(PUPPY, "paper")
    assert query.prompt == "A: Hi Tom, are you busy?\nB: I'm pretty sure I am.\nTL;DR:"
    assert query.max_new_tokens == 25
    assert (query.options, query.stop, query.chat, query.lead) == ((), (), False, "")


def test_the_standard_prompt_holds_the_chat_and_not_its_summary():
    [query] = TASK.ask(PUPPY, "standard")
    assert PUPPY.dialogue in query.prompt
    assert PUPPY.summary not in query.prompt
    assert query.options == ()


@pytest.mark.parametrize(
    ("text", "rouge_1", "rouge_2", "rouge_l"),
    [
        # against "the cat sat on the mat": 6 words, 5 pairs
        # 4 of 6 words (the, cat, on, mat); 1 of 5 pairs (the cat); the, cat, on, mat in this order
        (" The cat lay on a mat.", 4 / 6, 1 / 5, 4 / 6),
        # 3 of 3 and of 6: 2 · 1 · ½ / 1½; 2 of 2 pairs and of 5: 2 · 1 · 2/5 / (7/5)
        ("the cat sat", 2 / 3, 4 / 7, 2 / 3),
        # all words and no pair; in order only "the … the" around one word: 3 of 6
        ("mat the on sat cat the", 1.0, 0.0, 3 / 6),
        ("THE CAT SAT ON THE MAT!", 1.0, 1.0, 1.0),
        ("dogs bark", 0.0, 0.0, 0.0),
        # no stemming: of 3 and 6 words 1 is the same (the)
        ("the cats sitting", 2 / 9, 0.0, 2 / 9),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_rouge_is_that_counted_by_hand(text, rouge_1, rouge_2, rouge_l):
    found = scored(text, "the cat sat on the mat")
    assert found["rouge1"] == pytest.approx(rouge_1)
    assert found["rouge2"] == pytest.approx(rouge_2)
    assert found["rougeL"] == pytest.approx(rouge_l)
    assert found["rouge_mean"] == pytest.approx((rouge_1 + rouge_2 + rouge_l) / 3)


def test_an_answer_without_text_is_invalid():
    assert scored(" \n", "the cat")["valid_rate"] == 0
    assert scored(" a dog", "the cat")["valid_rate"] == 1


def test_the_prompts_own_text_never_counts():
    example = SummarizationExample("A: the cat sat on the mat", "the cat sat on the mat")
    [query] = TASK.ask(example, "paper")
    assert example.summary in query.prompt
    assert set(TASK.score(example, (Answer("", ()),), "paper").values()) == {0.0}
