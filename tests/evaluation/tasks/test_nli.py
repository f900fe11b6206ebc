"""Natural language inference: the exact prompts, and which answers count as true or false."""

import pytest

from workbench.data.tasks.examples import NLIExample
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.nli import TASK

IRAQ = NLIExample(
    premise="No Weapons of Mass Destruction Found in Iraq Yet.",
    hypothesis="Weapons of Mass Destruction Found in Iraq.",
    entailment=False,
)
PROBABLE = {"False": (-1.0, -2.0), "True": (-2.0, -1.0)}  # log-likelihoods, in the order of the options


def scored(text, entailment, *, probable="False", protocol="paper"):
    example = NLIExample("It rains.", "It is wet.", entailment)
    return TASK.score(example, (Answer(text, PROBABLE[probable]),), protocol)


def test_the_papers_prompt_asks_for_one_token():
    [query] = TASK.ask(IRAQ, "paper")
    assert query.prompt == (
        "No Weapons of Mass Destruction Found in Iraq Yet. entails the "
        "Weapons of Mass Destruction Found in Iraq.. True or False? answer:"
    )
    assert query.max_new_tokens == 1
    assert (query.stop, query.chat, query.lead) == ((), False, "")


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_both_labels_are_options_and_false_comes_first(protocol):
    [query] = TASK.ask(IRAQ, protocol)
    assert query.options == ("False", "True")


def test_the_standard_prompt_holds_premise_and_hypothesis():
    [query] = TASK.ask(IRAQ, "standard")
    assert IRAQ.premise in query.prompt
    assert IRAQ.hypothesis in query.prompt
    assert query.chat


@pytest.mark.parametrize(("text", "entailment"), [(" True", True), ("true.", True), (" FALSE", False), ("False\n", 0)])
def test_the_right_label_in_any_case_is_right(text, entailment):
    assert scored(text, bool(entailment))["accuracy"] == 1
    assert scored(text, bool(entailment))["valid_rate"] == 1


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("entailment", [True, False])
@pytest.mark.parametrize("text", ["", " yes", " untrue", " Falsehood", " True or False", "\n", " 1"])
def test_neither_label_or_both_is_invalid_and_counts_as_wrong(text, entailment, protocol):
    found = scored(text, entailment, protocol=protocol)
    assert (found["accuracy"], found["valid_rate"]) == (0, 0)


def test_a_wrong_label_is_valid_and_wrong():
    found = scored(" True", False)
    assert (found["accuracy"], found["valid_rate"]) == (0, 1)


def test_the_choice_is_by_likelihood_whatever_is_written():
    assert scored(" True", False, probable="False")["choice_accuracy"] == 1
    assert scored(" False", False, probable="True")["choice_accuracy"] == 0
    assert scored("", True, probable="True")["choice_accuracy"] == 1


def test_the_prompts_own_text_never_counts():
    [query] = TASK.ask(IRAQ, "paper")
    assert "False" in query.prompt
    found = TASK.score(IRAQ, (Answer("", PROBABLE["True"]),), "paper")
    assert found == {"choice_accuracy": 0, "accuracy": 0, "valid_rate": 0}


def test_what_is_shown_is_what_the_headline_scores():
    answers = (Answer(" True", PROBABLE["False"]),)
    assert TASK.show(IRAQ, answers, "paper") == ("False", "True")  # as written
    assert TASK.show(IRAQ, answers, "standard") == ("False", "False")  # as chosen
