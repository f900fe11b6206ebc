"""Normalization as in SQuAD's evaluation script (Rajpurkar et al. 2016)."""

import re
import string

import pytest

from workbench.evaluation.text import answers_match, normalize_answer


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
