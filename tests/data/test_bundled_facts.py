"""The bundled facts, the hard ones apart, are well formed: enough of them, with all parts, nothing twice."""

import re
from collections import Counter

import pytest

from workbench.data.facts import FactSet, load_bundled_facts, load_bundled_hard_facts
from workbench.request import EditRequest, PortabilityProbe

N_BEFORE_MEND = 380  # facts of the package when the shipped network of MEND was trained


@pytest.fixture(scope="module")
def bundled() -> tuple[EditRequest, ...]:
    """Return the bundled requests."""
    return load_bundled_facts().requests


@pytest.fixture(scope="module")
def hard() -> tuple[EditRequest, ...]:
    """Return the requests of the hard set."""
    return load_bundled_hard_facts().requests


@pytest.fixture(scope="module", params=["bundled", "hard"])
def requests(request) -> tuple[EditRequest, ...]:
    """Return the requests of one set, then those of the other."""
    return request.getfixturevalue(request.param)


def words(text: str) -> str:
    """Return only the words of a text, in lower case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def mentions(text: str, subject: str) -> bool:
    """Return whether a text contains the words of the subject in a row."""
    return f" {words(subject)} " in f" {words(text)} "


def repeated(items) -> list:
    """Return the items that occur more than once."""
    return [item for item, count in Counter(items).items() if count > 1]


def identity(request: EditRequest) -> tuple[str, str]:
    """Return what must be unique: subject and relation."""
    return words(request.subject), request.relation


def form_of(request: EditRequest, question: PortabilityProbe) -> tuple[str, str]:
    """Return what a one-hop question asks, whatever the subject: the relation, and the words around the subject."""
    around = re.sub(rf"(the |an? )?{re.escape(request.subject)}", "", question.prompt, flags=re.IGNORECASE)
    return request.relation, words(around)


def answers_by_target(requests) -> dict[tuple[tuple[str, str], str], set[str]]:
    """Return the answers to each form of question after the edits that write the same new target."""
    answers: dict[tuple[tuple[str, str], str], set[str]] = {}
    for request in requests:
        for question in request.portability:
            answers.setdefault((form_of(request, question), request.target_new), set()).add(question.target)
    return answers


# how many


def test_there_are_enough_facts_relations_and_subjects(bundled):
    assert len(bundled) >= 1200
    assert len({request.relation for request in bundled}) >= 40
    assert len({request.subject for request in bundled}) >= 1000


def test_a_thousand_prompts_have_words_before_the_subject(bundled):
    facts = FactSet("bundled", "native", bundled, ()).with_words_before_subject()
    assert len(facts) >= 1000
    assert [r for r in facts.requests if not r.prompt.partition("{}")[0].strip()] == []


def test_no_relation_has_more_than_six_percent_of_the_facts(bundled):
    counts = Counter(request.relation for request in bundled)
    assert {relation: n for relation, n in counts.items() if n > 0.06 * len(bundled)} == {}


def test_there_are_enough_hard_facts(hard):
    assert len(hard) >= 60
    assert len({request.relation for request in hard}) >= 12


# what each fact has


def test_every_fact_has_its_parts(requests):
    short = [
        r
        for r in requests
        if not (r.relation and r.target_true and len(r.rephrase) >= 2 and len(r.locality) >= 2 and r.portability)
    ]
    assert short == []


def test_no_fact_is_there_twice(requests):
    assert repeated(map(identity, requests)) == []
    assert repeated((request.subject, request.prompt) for request in requests) == []


def test_no_hard_fact_is_among_the_others(bundled, hard):
    assert set(map(identity, hard)) & set(map(identity, bundled)) == set()


def test_every_rephrasing_differs_from_the_prompt_and_the_others(requests):
    assert [r for r in requests if repeated(map(words, (r.filled_prompt, *r.filled_rephrase)))] == []


def test_every_rephrasing_names_the_subject(requests):
    assert [r for r in requests for text in r.rephrase if text.count("{}") != 1] == []


def test_new_facts_have_a_rephrasing_with_words_before_the_subject(bundled, hard):
    new = (*bundled[N_BEFORE_MEND:], *hard)
    assert [r for r in new if all(text.startswith("{}") for text in r.rephrase)] == []


def test_no_probe_mentions_the_subject(requests):
    assert [r for r in requests for probe in r.locality if mentions(probe.prompt, r.subject)] == []


def test_no_probe_is_asked_twice_of_a_fact(requests):
    assert [r for r in requests if repeated(words(probe.prompt) for probe in r.locality)] == []


def test_every_one_hop_question_names_the_subject(requests):
    assert [r for r in requests for question in r.portability if not mentions(question.prompt, r.subject)] == []


def test_no_one_hop_question_asks_for_a_target_or_names_its_answer(requests):
    asked = [(r, q.prompt, answer) for r in requests for q in r.portability for answer in (q.target, *q.aliases)]
    assert len(asked) >= len(requests)
    assert [(p, a) for r, p, a in asked if words(a) in (words(r.target_new), words(r.target_true))] == []
    assert [(p, a) for r, p, a in asked if mentions(p, a) or mentions(a, r.subject)] == []


def test_no_one_hop_question_is_also_a_prompt_or_a_rephrasing(requests):
    written = {words(text) for r in requests for text in (r.filled_prompt, *r.filled_rephrase)}
    assert [q.prompt for r in requests for q in r.portability if words(q.prompt) in written] == []


def test_the_answer_to_a_one_hop_question_follows_from_the_new_target_alone(requests):
    answers = answers_by_target(requests)
    assert len(answers) >= 60
    assert {asked: found for asked, found in answers.items() if len(found) != 1} == {}


def test_the_true_target_leads_to_another_answer(bundled):
    answers = answers_by_target(bundled)
    pairs = [
        (question, next(iter(answers[form_of(r, question), r.target_true])))
        for r in bundled
        for question in r.portability
        if (form_of(r, question), r.target_true) in answers
    ]
    assert len(pairs) >= 500
    assert [question for question, answer in pairs if question.target == answer] == []


def test_no_text_has_stray_blanks(requests):
    texts = [
        text
        for r in requests
        for text in (r.subject, r.prompt, r.target_new, r.target_true, *r.rephrase)
        + tuple(text for probe in (*r.locality, *r.portability) for text in (probe.prompt, probe.target))
    ]
    assert len(texts) >= len(requests) * 12
    assert [text for text in texts if text != " ".join(text.split())] == []


def test_every_text_of_a_new_fact_starts_with_a_capital(bundled, hard):
    texts = [text for r in (*bundled[N_BEFORE_MEND:], *hard) for text in (r.filled_prompt, *r.filled_rephrase)]
    assert len(texts) >= 3000
    assert [text for text in texts if text[0].islower()] == []


def test_no_new_target_is_written_by_more_than_eight_facts(requests):
    counts = Counter(request.target_new for request in requests)
    assert {target: count for target, count in counts.items() if count > 8} == {}


# the hard set


def test_every_hard_prompt_opens_with_its_subject(hard):
    assert [request for request in hard if not request.prompt.startswith("{}")] == []


def test_every_hard_subject_is_one_token_of_the_embedded_model(hard, smollm2):
    ids = {request.subject: smollm2.tokenizer(request.subject)["input_ids"] for request in hard}
    assert {subject: tokens for subject, tokens in ids.items() if len(tokens) != 1} == {}
    assert [r for r in hard if smollm2.tokenizer(r.filled_prompt)["input_ids"][:1] != ids[r.subject]] == []
