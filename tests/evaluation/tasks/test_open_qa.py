"""Open-domain QA: the exact prompts, spans of the continuation, and SQuAD's F1 computed by hand."""

import pytest

from workbench.data.tasks.examples import OpenQAExample
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.open_qa import TASK, word_f1

DEADPOOL = OpenQAExample(
    question="when is the next deadpool movie being released?",
    passage="The next Deadpool movie is set to be released on May 18, 2018.",
    answers=("May 18 , 2018",),
)


def scored(text, *golds, protocol="paper"):
    return TASK.score(OpenQAExample("When?", "", golds), (Answer(text, ()),), protocol)


def test_the_papers_prompt_asks_for_twenty_tokens():
    [query] = TASK.ask(DEADPOOL, "paper")
    assert query.prompt == (
        "Refer to the passage below and answer the following question. "
        "Passage: The next Deadpool movie is set to be released on May 18, 2018. "
        "Question: when is the next deadpool movie being released?"
    )
    assert query.max_new_tokens == 20
    assert (query.options, query.stop, query.chat, query.lead) == ((), (), False, "")


def test_the_standard_prompt_has_one_question_mark_and_a_passage_only_if_there_is_one():
    [query] = TASK.ask(DEADPOOL, "standard")
    assert query.prompt.endswith("Question: when is the next deadpool movie being released?")
    assert DEADPOOL.passage in query.prompt
    [bare] = TASK.ask(OpenQAExample("who wrote hamlet", "", ("Shakespeare",)), "standard")
    assert bare.prompt.endswith("Question: who wrote hamlet?")
    assert "Passage" not in bare.prompt
    assert "Shakespeare" not in bare.prompt


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("\nIt was built in 1889 by Eiffel.", "1889"),
        (" The answer is: the Eiffel Tower!", "Eiffel tower"),
        ("released May 18, 2018 in the U.S.", "May 18 , 2018"),
        ("the king of a Spain", "the King of Spain"),
        ("Paris", "Paris"),
    ],
)
def test_a_span_of_the_continuation_counts(text, gold):
    assert scored(text, gold)["span_match"] == 1


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("in 1889", "188"),
        ("in Parisian streets", "Paris"),
        ("the king whom Spain has", "king of Spain"),
        ("18 May 2018", "May 18 , 2018"),
        ("", "1889"),
        ("the", "The Who"),
    ],
)
def test_pieces_of_words_gaps_and_other_orders_do_not_count(text, gold):
    assert scored(text, gold)["span_match"] == 0


def test_any_accepted_answer_counts():
    assert scored("14 December 1972", "December 1972", "14 December 1972 UTC")["span_match"] == 1
    assert scored("in July", "December 1972", "14 December 1972 UTC")["span_match"] == 0


def test_exact_match_takes_the_whole_continuation():
    assert scored(" The Eiffel Tower.", "eiffel tower")["exact_match"] == 1
    assert scored(" The Eiffel Tower. It", "eiffel tower")["exact_match"] == 0


@pytest.mark.parametrize(
    ("said", "gold", "f1"),
    [
        # seven words of which one is the gold one: precision 1/7, recall 1, so 2 · 1/7 / (8/7) = 1/4
        ("it was built in 1889 by eiffel", "1889", 1 / 4),
        # paris counts once, as in the gold answer: two of three and two of three
        ("paris paris france", "paris in france", 2 / 3),
        ("may 18 2018", "may 18 2018", 1.0),
        ("2018 may 18", "may 18 2018", 1.0),  # a bag of words
        ("june", "may", 0.0),
        ("", "may", 0.0),
    ],
)
def test_f1_is_squads(said, gold, f1):
    assert word_f1(said, gold) == pytest.approx(f1)
    assert scored(said, gold)["f1"] == pytest.approx(f1)


def test_f1_is_of_the_best_accepted_answer_after_normalization():
    # "1889" gives precision 1/2 and recall 1, so 2/3; "year 1890" gives 1/2 and 1/2
    assert scored("The year 1889!", "year 1890", "1889")["f1"] == pytest.approx(2 / 3)


def test_an_answer_with_nothing_left_after_normalization_is_invalid():
    assert scored(" the ...", "1889")["valid_rate"] == 0
    assert scored(" no idea", "1889")["valid_rate"] == 1


def test_the_prompts_own_text_never_counts():
    [query] = TASK.ask(DEADPOOL, "paper")
    assert "May 18, 2018" in query.prompt
    found = TASK.score(DEADPOOL, (Answer("", ()),), "paper")
    assert found == {"span_match": 0, "exact_match": 0, "f1": 0, "valid_rate": 0}


def test_an_accepted_answer_that_normalizes_to_nothing_matches_nothing_else():
    assert scored("something else", "The", "Paris")["span_match"] == 0
    assert scored("", "The")["exact_match"] == 0
