"""Sentiment: the exact prompts, and which answers count as positive or negative."""

import pytest

from workbench.data.tasks.examples import SentimentExample
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.sentiment import TASK

CHARMING = SentimentExample("it 's a charming and often affecting journey .", positive=True)
PROBABLE = {"negative": (-1.0, -2.0), "positive": (-2.0, -1.0)}  # log-likelihoods, in the order of the options


def scored(text, positive, *, probable="negative", protocol="paper"):
    example = SentimentExample("A film.", positive)
    return TASK.score(example, (Answer(text, PROBABLE[probable]),), protocol)


def test_the_papers_prompt_asks_for_one_token():
    [query] = TASK.ask(CHARMING, "paper")
    assert query.prompt == (
        "For each snippet of text,label the sentiment of the text as positive or negative."
        "The answer should be exact 'positive' or 'negative'. "
        "text: it 's a charming and often affecting journey . answer:"
    )
    assert query.max_new_tokens == 1
    assert (query.stop, query.chat, query.lead) == ((), False, "")


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_both_labels_are_options_and_negative_comes_first(protocol):
    [query] = TASK.ask(CHARMING, protocol)
    assert query.options == ("negative", "positive")
    assert CHARMING.text in query.prompt


@pytest.mark.parametrize(
    ("text", "positive"), [(" positive", True), ("Positive.", True), (" NEGATIVE", False), (" 'negative'", False)]
)
def test_the_right_label_in_any_case_is_right(text, positive):
    found = scored(text, positive)
    assert (found["accuracy"], found["valid_rate"]) == (1, 1)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("text", ["", " pos", " good", " positively", " nonnegative", " positive or negative", " 1"])
def test_neither_label_or_both_is_invalid_and_counts_as_wrong(text, positive, protocol):
    found = scored(text, positive, protocol=protocol)
    assert (found["accuracy"], found["valid_rate"]) == (0, 0)


def test_the_choice_is_by_likelihood_whatever_is_written():
    assert scored("", True, probable="positive")["choice_accuracy"] == 1
    assert scored(" positive", True, probable="negative")["choice_accuracy"] == 0


def test_the_prompts_own_text_never_counts():
    [query] = TASK.ask(CHARMING, "paper")
    assert "'positive'" in query.prompt
    found = TASK.score(CHARMING, (Answer("", PROBABLE["negative"]),), "paper")
    assert found == {"choice_accuracy": 0, "accuracy": 0, "valid_rate": 0}


def test_what_is_shown_is_what_the_headline_scores():
    answers = (Answer(" negative", PROBABLE["positive"]),)
    assert TASK.show(CHARMING, answers, "paper") == ("positive", "negative")  # as written
    assert TASK.show(CHARMING, answers, "standard") == ("positive", "positive")  # as chosen
