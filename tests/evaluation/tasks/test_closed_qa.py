"""Closed-domain QA: the exact prompts, and which answers count as yes or no."""

import pytest

from workbench.data.tasks.examples import ClosedQAExample
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.closed_qa import TASK

ETHANOL = ClosedQAExample(
    question="does ethanol take more energy make that produces",
    passage="All biomass goes through at least some of these steps.",
    answer=False,
)
PROBABLE = {"no": (-1.0, -2.0), "yes": (-2.0, -1.0)}  # log-likelihoods, in the order of the options


def scored(text, answer, *, probable="no", protocol="paper"):
    example = ClosedQAExample("is it wet", "It rains.", answer)
    return TASK.score(example, (Answer(text, PROBABLE[probable]),), protocol)


def test_the_papers_prompt_asks_for_one_token():
    [query] = TASK.ask(ETHANOL, "paper")
    assert query.prompt == (
        "Please answer the given question based on the passage. The answer should be exact 'yes' or 'no'. "
        "passage: All biomass goes through at least some of these steps. "
        "question: does ethanol take more energy make that produces. answer:"
    )
    assert query.max_new_tokens == 1
    assert (query.stop, query.chat, query.lead) == ((), False, "")


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_both_labels_are_options_and_no_comes_first(protocol):
    [query] = TASK.ask(ETHANOL, protocol)
    assert query.options == ("no", "yes")


def test_the_standard_prompt_holds_passage_and_question_with_one_question_mark():
    [query] = TASK.ask(ETHANOL, "standard")
    assert ETHANOL.passage in query.prompt
    assert query.prompt.endswith("does ethanol take more energy make that produces?")
    [asked] = TASK.ask(ClosedQAExample("Is it wet?", "It rains.", True), "standard")
    assert asked.prompt.endswith("Is it wet?")


@pytest.mark.parametrize(("text", "answer"), [(" yes", True), ("Yes, it is", True), (" NO", False), (" no.", False)])
def test_the_right_label_in_any_case_is_right(text, answer):
    found = scored(text, answer)
    assert (found["accuracy"], found["valid_rate"]) == (1, 1)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("text", ["", " maybe", " not", " yesterday", " know", " yes or no", " '", " true"])
def test_neither_yes_nor_no_or_both_is_invalid_and_counts_as_wrong(text, answer, protocol):
    found = scored(text, answer, protocol=protocol)
    assert (found["accuracy"], found["valid_rate"]) == (0, 0)


def test_the_choice_is_by_likelihood_whatever_is_written():
    assert scored("", True, probable="yes")["choice_accuracy"] == 1
    assert scored(" yes", True, probable="no")["choice_accuracy"] == 0


def test_the_prompts_own_text_never_counts():
    [query] = TASK.ask(ETHANOL, "paper")
    assert "'no'" in query.prompt
    found = TASK.score(ETHANOL, (Answer("", PROBABLE["yes"]),), "paper")
    assert found == {"choice_accuracy": 0, "accuracy": 0, "valid_rate": 0}


def test_what_is_shown_is_what_the_headline_scores():
    answers = (Answer(" yes", PROBABLE["no"]),)
    assert TASK.show(ETHANOL, answers, "paper") == ("no", "yes")  # as written
    assert TASK.show(ETHANOL, answers, "standard") == ("no", "no")  # as chosen
