"""A fact of the list fills the fields, and the fields describe the same fact."""

from dataclasses import replace

import pytest

import workbench as wb
from tests.explorer.conftest import FACT
from workbench.errors import RequestError
from workbench.explorer.fact_form import FactForm


@pytest.fixture
def picked() -> list:
    """Give a list with one entry per call of `on_pick`."""
    return []


@pytest.fixture
def form(picked) -> FactForm:
    """Give the form with the bundled facts."""
    return FactForm(wb.load_facts(), lambda: picked.append(1))


def test_every_bundled_fact_is_the_same_after_filling_the_form(form):
    requests = wb.load_facts().requests
    assert len(requests) > 300
    for request in requests:
        form.fill(request)
        assert form.read_request() == replace(request, relation=None)


def test_a_search_matches_all_words_in_any_place_and_fills_in_nothing(form, picked):
    form._subject.value = "my own"
    form._search.value = "PARIS eiffel"
    assert len(form._list.options) >= 1
    assert all("Eiffel" in label for label, _ in form._list.options)
    assert form._subject.value == "my own"
    assert picked == []
    form._search.value = "no such thing at all"
    assert form._list.options == ()
    form._search.value = ""
    assert len(form._list.options) == len(wb.load_facts())


def test_picking_a_fact_fills_it_in_and_calls_on_pick(form, picked):
    form._search.value = "Big Ben"
    form._list.index = 0
    assert form.read_request().subject == "Big Ben"
    assert picked == [1]


MISTAKES = {
    "_subject": (
        " ",
        f"prompt '{FACT.prompt}' must be a text without {{}} where no subject is named; name the subject or write the "
        "prompt out.",
    ),
    "_prompt": (
        "Where is it",
        "subject 'The Eiffel Tower' is not in the prompt 'Where is it'; mark its place with {}.",
    ),
    "_target_new": ("Paris", f"target_new is the true answer 'Paris' already, for '{FACT.filled_prompt}'."),
    "_locality": (
        "The Louvre is in Paris",
        "Left alone: 'The Louvre is in Paris' has no =>; write it as 'prompt => answer'.",
    ),
    "_portability": (
        "It stands in Italy",
        "Follows: 'It stands in Italy' has no =>; write it as 'prompt => answer'.",
    ),
}


def test_an_empty_subject_is_none(form):
    form.fill(wb.EditRequest(subject=None, prompt="It rains in", target_new="May"))
    assert form._subject.value == ""
    assert form.read_request() == wb.EditRequest(subject=None, prompt="It rains in", target_new="May")


def test_one_hop_questions_keep_the_other_names_of_their_answers(form):
    questions = (wb.PortabilityProbe("It stands in", "Italy", ("Italia", "the Italian Republic")),)
    form.fill(replace(FACT, portability=questions))
    assert form._portability.value == "It stands in => Italy | Italia | the Italian Republic"
    assert form.read_request().portability == questions


@pytest.mark.parametrize("field", MISTAKES)
def test_texts_that_describe_no_fact_are_refused_in_one_sentence(form, field):
    text, sentence = MISTAKES[field]
    form.fill(FACT)
    getattr(form, field).value = text
    with pytest.raises(RequestError) as caught:
        form.read_request()
    assert str(caught.value) == sentence
