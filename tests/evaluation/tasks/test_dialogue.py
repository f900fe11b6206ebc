"""Dialogue: the exact prompts, letters that are separate words, and the choice per character."""

import pytest

from workbench.data.tasks.examples import DialogueExample
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.dialogue import TASK

HOTEL = DialogueExample(
    dialogue="m : hi , della . how long will you stay ? f : only 4 days .",
    options=("m : so long ?", "m : that is short .", "m : i am della .", "m : 4 weeks are fine ."),
    answer=1,
)
EQUAL = (-1.0, -1.0, -1.0, -1.0)


def scored(text, answer, *, protocol="paper", likelihoods=EQUAL):
    example = DialogueExample("m : hi .", ("f : one .", "f : two .", "f : ten .", "f : six ."), answer)
    answers = (Answer(text, likelihoods),)
    if protocol == "standard":
        answers = (Answer(text, ()), Answer("", likelihoods))
    return TASK.score(example, answers, protocol)


def test_the_papers_prompt_asks_for_one_token():
    [query] = TASK.ask(HOTEL, "paper")
    assert query.prompt == (
        "Q: m : hi , della . how long will you stay ? f : only 4 days . Which choice is correct? Answer Chioces: "
        "(A)m : so long ?(B)m : that is short .(C)m : i am della .(D)m : 4 weeks are fine . "
        "A: Among A through D, the answer is"
    )
    assert query.max_new_tokens == 1
    assert query.options == ("A", "B", "C", "D")
    assert (query.stop, query.chat, query.lead) == ((), False, "")


def test_standard_asks_for_the_letter_and_for_the_turns_as_continuations():
    letter, turns = TASK.ask(HOTEL, "standard")
    for label, option in zip("ABCD", HOTEL.options, strict=True):
        assert f"{label}. {option}" in letter.prompt
    assert HOTEL.dialogue in letter.prompt
    assert turns.prompt == HOTEL.dialogue
    assert turns.options == HOTEL.options
    assert turns.max_new_tokens == 0


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize(
    ("text", "answer"), [(" A", 0), ("A.", 0), (" (A)", 0), (" B", 1), (" C:", 2), (" D\n", 3), (" B, I think", 1)]
)
def test_the_letter_is_the_answer_and_a_is_a_letter_like_the_others(text, answer, protocol):
    found = scored(text, answer, protocol=protocol)
    assert (found["accuracy"], found["valid_rate"]) == (1, 1)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("text", ["", " Della", " E", " A or B", " m", " clear", " 1"])
def test_no_letter_or_several_is_invalid_and_counts_as_wrong(text, protocol):
    for answer in range(4):
        found = scored(text, answer, protocol=protocol)
        assert (found["accuracy"], found["valid_rate"]) == (0, 0)


def test_the_article_is_not_the_letter():
    assert scored(" that it is a pity", 0, protocol="standard")["accuracy"] == 0
    assert scored(" that it is a pity", 0, protocol="standard")["valid_rate"] == 0
    assert scored(" B, as it is a pity", 1, protocol="standard")["accuracy"] == 1


def test_a_piece_of_a_contraction_is_not_the_letter():
    assert scored(" I'd say so", 3, protocol="standard")["valid_rate"] == 0
    assert scored(" B, I'd say", 1, protocol="standard")["accuracy"] == 1


def test_the_standard_choice_is_per_character():
    options = ("ab", "abcdefgh", "abcd", "abcde")  # 2, 8, 4 and 5 characters
    example = DialogueExample("m : hi .", options, 1)
    # sums say the first option; per character they are -2, -1, -1.5 and -1.2
    answers = (Answer("", ()), Answer("", (-4.0, -8.0, -6.0, -6.0)))
    assert TASK.score(example, answers, "standard")["choice_accuracy"] == 1
    assert TASK.show(example, answers, "standard") == ("abcdefgh", "abcdefgh")


def test_the_papers_choice_is_of_the_letter():
    likelihoods = (-3.0, -2.0, -1.0, -4.0)
    assert scored("", 2, likelihoods=likelihoods)["choice_accuracy"] == 1
    assert scored(" B", 1, likelihoods=likelihoods)["choice_accuracy"] == 0


def test_the_prompts_own_text_never_counts():
    [query] = TASK.ask(HOTEL, "paper")
    assert "(B)" in query.prompt
    found = TASK.score(HOTEL, (Answer("", EQUAL),), "paper")
    assert (found["accuracy"], found["valid_rate"]) == (0, 0)


def test_what_is_shown_is_what_the_headline_scores():
    assert TASK.show(HOTEL, (Answer(" C", EQUAL),), "paper") == ("B", "C")
