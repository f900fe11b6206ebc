"""Normalization as in SQuAD's evaluation script (Rajpurkar et al. 2016)."""

import re
import string

import pytest

from workbench.evaluation.text import answers_match, contains_answer, normalize_answer


def squad(text):
    """Apply the published steps one by one: lower case, no punctuation, no articles, single spaces."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  an   Apple a day ", "apple day"),
        ("Denver Broncos", "denver broncos"),
        ("the U.S.A.", "usa"),
        ("theatre, anthem, area", "theatre anthem area"),
        ("1,820", "1820"),
        ("Saint-Denis", "saintdenis"),
        ("\tRome\n", "rome"),
        ("Ærø – Łódź", "ærø – łódź"),
        ("THE", ""),
        ("", ""),
    ],
)
def test_worked_examples(text, normal):
    assert normalize_answer(text) == normal == squad(text)


def test_normalizing_twice_changes_nothing_more():
    for text in ("The  a-n theory", "«The» Rome.", "a. b. the c"):
        once = normalize_answer(text)
        assert normalize_answer(once) == once


def test_answers_that_normalize_to_nothing_match_only_literally():
    assert answers_match(" A", "a")
    assert not answers_match("A", ",")
    assert not answers_match("the", "A")


def test_other_answers_match_after_normalization():
    assert answers_match("The Rome.", "rome")
    assert not answers_match("Rome", "Romeo")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is in Rome, Italy.", "rome"),
        ("The Hague's port", "the Hague"),
        ("a Rome-based team", "Rome"),
        ("Rome—the old city", "Rome"),
        ("made in the US", "U.S."),
        ("made in the U. S. of A.", "U.S."),
        ("She won the Nobel  Prize twice", "a Nobel prize"),
        ("1,000 men", "1000"),
        (" a ", "A"),
    ],
)
def test_a_text_contains_an_answer_as_whole_words(text, answer):
    assert contains_answer(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Romeo and Juliet", "Rome"),
        ("Jerome", "Rome"),
        ("New Jersey and York", "New York"),
        ("", "Rome"),
        ("What is a vitamin?", "A"),
        ("21 men", "1"),
        ("something else", "?"),
    ],
)
def test_parts_of_words_and_scattered_words_are_no_answer(text, answer):
    assert not contains_answer(text, answer)
