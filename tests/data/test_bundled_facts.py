"""The bundled facts are well formed: enough of them, with all parts, nothing twice."""

import re
from collections import Counter

import pytest

from workbench.data.facts import load_bundled_facts
from workbench.request import EditRequest


@pytest.fixture(scope="module")
def requests() -> tuple[EditRequest, ...]:
    """Return the bundled requests."""
    return load_bundled_facts().requests


def words(text: str) -> str:
    """Return only the words of a text, in lower case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def mentions(text: str, subject: str) -> bool:
    """Return whether a text contains the words of the subject in a row."""
    return f" {words(subject)} " in f" {words(text)} "


def repeated(items) -> list:
    """Return the items that occur more than once."""
    return [item for item, count in Counter(items).items() if count > 1]


def test_there_are_enough_facts_relations_and_subjects(requests):
    assert len(requests) >= 300
    assert len({request.relation for request in requests}) >= 12
    assert len({request.subject for request in requests}) >= 150


def test_every_fact_has_its_parts(requests):
    short = [
        r for r in requests if not (r.relation and r.target_true and len(r.rephrase) >= 2 and len(r.locality) >= 2)
    ]
    assert short == []


def test_no_fact_is_there_twice(requests):
    assert repeated((request.subject, request.relation) for request in requests) == []
    assert repeated((request.subject, request.prompt) for request in requests) == []


def test_every_rephrasing_differs_from_the_prompt_and_the_others(requests):
    assert [r for r in requests if repeated(map(words, (r.filled_prompt, *r.filled_rephrase)))] == []


def test_every_rephrasing_names_the_subject(requests):
    assert [r for r in requests for text in r.filled_rephrase if not mentions(text, r.subject)] == []


def test_no_probe_mentions_the_subject(requests):
    assert [r for r in requests for probe in r.locality if mentions(probe.prompt, r.subject)] == []


def test_no_probe_is_asked_twice_of_a_fact(requests):
    assert [r for r in requests if repeated(words(probe.prompt) for probe in r.locality)] == []


def test_no_text_has_stray_blanks(requests):
    texts = [
        text
        for r in requests
        for text in (r.subject, r.prompt, r.target_new, r.target_true, *r.rephrase)
        + tuple(text for probe in r.locality for text in (probe.prompt, probe.target))
    ]
    assert len(texts) >= 300 * 10
    assert [text for text in texts if text != " ".join(text.split())] == []


def test_no_new_target_is_written_by_more_than_eight_facts(requests):
    counts = Counter(request.target_new for request in requests)
    assert {target: count for target, count in counts.items() if count > 8} == {}
