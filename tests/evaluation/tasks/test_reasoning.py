"""Reasoning: the exact prompts, and numbers in the notations that people use."""

from decimal import Decimal

import pytest

from workbench.data.tasks.examples import ReasoningExample
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.reasoning import TASK, find_numbers

ROBE = ReasoningExample(
    question="A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total?",
    reasoning="It takes 2/2=1 bolt of white fiber.\nSo the total amount of fabric is 2+1=3 bolts.",
    answer="3",
)


def scored(text, gold, protocol="paper"):
    example = ReasoningExample("How many?", "Count them.", gold)
    return TASK.score(example, (Answer(text, ()),), protocol)


def solved(text, gold, protocol="paper"):
    return scored(text, gold, protocol)["solve_rate"]


def test_the_papers_prompt_holds_the_gold_reasoning_and_asks_for_five_tokens():
    [query] = TASK.ask(ROBE, "paper")
    assert query.prompt == (
        "Q: A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total? "
        "A:Let's think step by step. It takes 2/2=1 bolt of white fiber.\n"
        "So the total amount of fabric is 2+1=3 bolts. Therefore, the answer (arabic numerals) is:"
    )
    assert query.max_new_tokens == 5
    assert (query.options, query.stop, query.chat, query.lead) == ((), (), False, "")


def test_the_standard_prompt_gives_no_hint():
    [query] = TASK.ask(ROBE, "standard")
    everything = query.prompt + query.lead
    assert ROBE.question in everything
    for line in ROBE.reasoning.splitlines():
        assert line not in everything
    assert ROBE.answer not in everything
    assert "step by step" not in everything
    assert query.options == ()


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (" 8", "8"),
        (" $8.", "8"),
        ("8 apples", "8"),
        (" 1,234", "1234"),
        (" $1,234,567.", "1234567"),
        (" 12345", "12345"),
        (" -5", "-5"),
        ("(-5)", "-5"),
        (" 2.50", "2.5"),
        (" 8.0", "8"),
        (" 8", "8.00"),
        (" 1,000.5 g", "1000.5"),
        ("7-5", "5"),
        ("A-5", "5"),
        (" 08", "8"),
        (" 3 or 8", "8"),
    ],
)
def test_an_equal_number_solves(text, gold):
    assert solved(text, gold) == 1


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (" 18", "8"),
        (" 80", "8"),
        (" 1.8", "8"),
        (" 8.5", "8"),
        (" 8", "18"),
        (" 1,234", "234"),
        (" 1,234", "1"),
        (" 12,345", "2345"),
        (" 5", "-5"),
        (" -5", "5"),
        (" 7-5", "-5"),
        (" eight", "8"),
        ("", "8"),
    ],
)
def test_another_number_does_not_solve(text, gold):
    assert solved(text, gold) == 0


def test_the_paper_takes_any_number_written_and_standard_the_last_one():
    assert solved(" 3, then 8", "3", "paper") == 1
    assert solved(" 3, then 8", "3", "standard") == 0
    assert solved(" 3, then 8", "8", "standard") == 1
    assert solved(" none", "8", "standard") == 0


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_an_answer_without_a_number_is_invalid_and_counts_as_wrong(protocol):
    assert scored(" I do not know", "8", protocol) == {"solve_rate": 0, "valid_rate": 0}
    assert scored(" 9", "8", protocol) == {"solve_rate": 0, "valid_rate": 1}
    assert scored(" 8", "8", protocol) == {"solve_rate": 1, "valid_rate": 1}


def test_the_prompts_own_text_never_counts():
    [query] = TASK.ask(ROBE, "paper")
    assert "3 bolts" in query.prompt
    assert TASK.score(ROBE, (Answer("", ()),), "paper") == {"solve_rate": 0, "valid_rate": 0}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("no number", []),
        ("It costs $1,250.75, less 10% (or -3).", ["1250.75", "10", "-3"]),
        ("16 - 3 - 4 = 9", ["16", "3", "4", "9"]),
        ("16-3=13", ["16", "3", "13"]),
        ("in 2021, 3 of 4", ["2021", "3", "4"]),
        ("12345,678", ["12345", "678"]),
        ("99.", ["99"]),
    ],
)
def test_numbers_are_read_in_order(text, numbers):
    assert find_numbers(text) == [Decimal(number) for number in numbers]


def test_a_decimal_without_its_leading_zero_is_not_a_whole_number():
    assert solved(" $.50", "50") == 0
    assert solved(" .5", "0.5") == 1


def test_a_comma_before_other_than_three_digits_separates_two_numbers():
    assert find_numbers("10,2000") == [Decimal(10), Decimal(2000)]
