"""Named entities: the exact prompts, and entity F1 counted by hand over sentences."""

import pytest

from workbench.data.tasks.examples import NERExample
from workbench.data.tasks.load import TaskData
from workbench.evaluation.abilities import TaskRun, summarize_runs
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.ner import TASK, find_names

LONDON = NERExample("Smith left LONDON for Siemens .", (("PER", "Smith"), ("LOC", "LONDON"), ("ORG", "Siemens")))

TRIP = NERExample("Anna Novak flew from Prague to Oslo .", (("PER", "Anna Novak"), ("LOC", "Prague"), ("LOC", "Oslo")))
OPEN = NERExample(
    "Siemens met Siemens at the Czech Open .", (("ORG", "Siemens"), ("ORG", "Siemens"), ("MISC", "Czech Open"))
)
RAIN = NERExample("It rained .", ())
SNOW = NERExample("It snowed .", ())


def listed(PER="none", LOC="none", ORG="none", MISC="none"):
    return tuple(Answer(text, ()) for text in (PER, LOC, ORG, MISC))


ANSWERS = {
    # 3 named, 3 in the sentence, 2 hits: prague is Prague, Lima is not there, Oslo is missed
    TRIP: listed(PER=" Anna Novak", LOC=" Prague, prague and Lima"),
    # 3 named, 2 in the sentence, 1 hit: Siemens counts once, is no person, and Czech is not the Czech Open
    OPEN: listed(PER=" Siemens", ORG=" Siemens\nSiemens", MISC=" Czech"),
    # 1 named, none in the sentence
    RAIN: listed(PER=" It"),
}


def pooled(answers):
    data = TaskData("ner", "by hand", "unknown", tuple(answers), ())
    table = summarize_runs([TaskRun(TASK, data, "paper", tuple(answers.values()))])
    values = dict(zip(table["metric"], table["value"], strict=True))
    return {metric: value for metric, value in values.items() if not metric.startswith("log_likelihood")}


def perfect(*entities):
    text = " and then ".join(surface for _, surface in entities) + " ."
    answers = {kind: ", ".join(s for k, s in entities if k == kind) or "none" for kind, _ in entities}
    return pooled({NERExample(text, entities): listed(**answers)})


def test_the_papers_prompt_has_no_blank_before_commas_and_full_stops():
    words = "Smith , 26 , left ( LONDON ) for U.S. firms ."
    [query, *_] = TASK.ask(NERExample(words, ()), "paper")
    assert "Text: Smith, 26, left ( LONDON ) for U.S. firms. Entity:" in query.prompt
    [query, *_] = TASK.ask(NERExample(words, ()), "standard")
    assert words in query.prompt


def test_the_papers_prompt_loses_a_comma_that_opens_the_sentence():
    [query, *_] = TASK.ask(NERExample(", Smith left", ()), "paper")
    assert "Text:  Smith left Entity:" in query.prompt


def test_the_papers_prompts_ask_for_ten_tokens_for_each_type():
    queries = TASK.ask(LONDON, "paper")
    assert [query.prompt for query in queries] == [
        "Please identify Person Entity from the given text. Text: Smith left LONDON for Siemens. Entity:",
        "Please identify Location Entity from the given text. Text: Smith left LONDON for Siemens. Entity:",
        "Please identify Organization Entity from the given text. Text: Smith left LONDON for Siemens. Entity:",
        "Please identify Miscellaneous Entity from the given text. Text: Smith left LONDON for Siemens. Entity:",
    ]
    assert [query.max_new_tokens for query in queries] == [10, 10, 10, 10]
    assert {(query.options, query.stop, query.chat, query.lead) for query in queries} == {((), (), False, "")}


def test_standard_asks_four_different_questions_on_the_sentence():
    queries = TASK.ask(LONDON, "standard")
    assert len({query.prompt for query in queries}) == 4
    assert all(LONDON.text in query.prompt for query in queries)


def test_braces_in_a_sentence_stay():
    for protocol in ("standard", "paper"):
        assert all("{x} {} {0}" in query.prompt for query in TASK.ask(NERExample("{x} {} {0}", ()), protocol))


def test_f1_is_pooled_over_sentences():
    # hits 2 + 1 + 0, named 3 + 3 + 1, in the sentences 3 + 2 + 0
    found = pooled(ANSWERS)
    assert found["precision"] == pytest.approx(3 / 7)
    assert found["recall"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx(2 * 3 / (7 + 5))


def test_a_sentence_without_names_of_which_none_are_listed_changes_nothing():
    assert pooled({**ANSWERS, SNOW: listed()}) == pytest.approx(pooled(ANSWERS))


def test_a_sentence_without_names_of_which_some_are_listed_costs_precision_alone():
    found = pooled({**ANSWERS, SNOW: listed(LOC="It, snowed")})
    assert found["precision"] == pytest.approx(3 / 9)
    assert found["recall"] == pytest.approx(3 / 5)


def test_a_wrong_type_is_no_hit():
    found = pooled({LONDON: listed(PER="LONDON", LOC="Siemens", ORG="Smith")})
    assert (found["f1"], found["precision"], found["recall"]) == (0, 0, 0)


def test_a_part_of_a_name_or_more_than_a_name_is_no_hit():
    assert pooled({TRIP: listed(PER="Anna")})["recall"] == 0
    assert pooled({TRIP: listed(LOC="from Prague")})["recall"] == 0


def test_duplicates_count_once():
    once = pooled({OPEN: listed(ORG="Siemens")})
    assert pooled({OPEN: listed(ORG="Siemens, Siemens; siemens")}) == once
    assert once["precision"] == 1
    assert once["recall"] == pytest.approx(1 / 2)  # Siemens, and the Czech Open


@pytest.mark.parametrize(
    "entities",
    [
        (("PER", "Anna Novak"), ("LOC", "Oslo"), ("LOC", "Lima"), ("ORG", "Siemens"), ("MISC", "Czech Open")),
        (("LOC", "U.S."),),
        (("ORG", "Yahoo Inc."), ("LOC", "Washington D.C.")),
        (("LOC", "St. Louis"), ("PER", "J.R. O'Neil"), ("MISC", "1996-97 Cup")),
    ],
)
def test_a_list_of_all_the_names_scores_one(entities):
    found = perfect(*entities)
    assert (found["f1"], found["precision"], found["recall"], found["valid_rate"]) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (" Anna Novak, Bo Li and Cy Roe.", ["Anna Novak", "Bo Li", "Cy Roe"]),
        ("1. Oslo\n", ["1. Oslo"]),
        ("- Oslo\n- Lima", ["Oslo", "Lima"]),
        ("\"Oslo\"; 'Lima'", ["Oslo", "Lima"]),
        ("Andorra, Finland", ["Andorra", "Finland"]),
        ("Oslo, Oslo", ["Oslo"]),
        (" None.", []),
        (" none", []),
        (" N/A", []),
        ("", []),
        (" , ,", []),
    ],
)
def test_listed_names_are_separated(text, names):
    assert find_names(text) == names


def test_an_answer_is_valid_if_it_lists_a_name_of_the_sentence_or_none():
    # Lima is not in the sentence; the other three answers are valid
    assert pooled({TRIP: listed(PER="Anna Novak", LOC="Lima", ORG="")})["valid_rate"] == pytest.approx(3 / 4)


def test_the_prompts_own_text_never_counts():
    assert all("LONDON" in query.prompt for query in TASK.ask(LONDON, "paper"))
    assert pooled({LONDON: listed("", "", "", "")})["recall"] == 0


def test_what_is_shown_names_types_and_surfaces():
    assert TASK.show(TRIP, ANSWERS[TRIP], "paper") == (
        "PER: Anna Novak; LOC: Prague, Oslo",
        "PER: Anna Novak; LOC: Prague, prague, Lima",
    )
