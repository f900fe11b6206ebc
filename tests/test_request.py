"""A request is checked when it is created: one sentence says what is wrong and what would be right."""

import dataclasses

import pytest

import workbench as wb
from workbench.errors import RequestError

FACT = {"subject": "The Eiffel Tower", "prompt": "{} is located in the city of", "target_new": "Rome"}
PROMPT = "The Eiffel Tower is located in the city of"


def test_the_subject_takes_the_place_of_the_braces():
    request = wb.EditRequest(**FACT, rephrase=("Where is {}? It is in", "Paris is where it stands:"))
    assert request.filled_prompt == PROMPT
    assert request.filled_rephrase == ("Where is The Eiffel Tower? It is in", "Paris is where it stands:")


def test_other_braces_and_a_second_mention_are_unchanged():
    request = wb.EditRequest(subject="x{y}", prompt="In x{y} and {}, f{0} is", target_new="1")
    assert request.filled_prompt == "In x{y} and x{y}, f{0} is"


def test_sequences_become_tuples():
    probe = wb.LocalityProbe(prompt="The Louvre is in", target="Paris")
    question = wb.PortabilityProbe("The Eiffel Tower is in the country of", "Italy", aliases=["Italia"])
    request = wb.EditRequest(**FACT, rephrase=["Where is {}?"], locality=[probe], portability=[question])
    assert request.rephrase == ("Where is {}?",)
    assert request.locality == (probe,)
    assert request.portability == (question,)
    assert question.aliases == ("Italia",)


def test_a_request_is_frozen_and_hashable():
    request = wb.EditRequest(**FACT, locality=[wb.LocalityProbe("The Louvre is in", "Paris")])
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.target_new = "Milan"
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.locality[0].target = "Milan"
    assert len({request, dataclasses.replace(request)}) == 1


def test_optional_fields_are_empty_by_default():
    request = wb.EditRequest(**FACT)
    assert (request.target_true, request.relation) == (None, None)
    assert (request.rephrase, request.locality, request.portability) == ((), (), ())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"subject": ""},
            "subject is empty for the prompt '{} is located in the city of'; name what the fact is about.",
        ),
        (
            {"subject": " \n"},
            "subject is empty for the prompt '{} is located in the city of'; name what the fact is about.",
        ),
        (
            {"prompt": "Where is it?"},
            "subject 'The Eiffel Tower' is not in the prompt 'Where is it?'; mark its place with {}.",
        ),
        (
            {"prompt": "The Eiffel Tower is in"},
            "subject 'The Eiffel Tower' is not marked in the prompt 'The Eiffel Tower is in'; mark its place with {}.",
        ),
        ({"prompt": "{} and {} are in"}, "prompt '{} and {} are in' holds {} 2 times; it must mark the subject once."),
        ({"prompt": ""}, "subject 'The Eiffel Tower' is not in the prompt ''; mark its place with {}."),
        ({"target_new": " "}, f"target_new is empty for {PROMPT!r}; give the answer the edit should write."),
        ({"target_true": ""}, f"target_true is empty for {PROMPT!r}; leave it out if it is not known."),
        ({"target_true": "Rome"}, f"target_new is the true answer 'Rome' already, for {PROMPT!r}."),
        ({"target_true": " Rome"}, f"target_new is the true answer ' Rome' already, for {PROMPT!r}."),
        (
            {"rephrase": ("fine", " ")},
            f"rephrase ' ' of {PROMPT!r} must be a text with {{}} at most once, where the subject goes.",
        ),
        (
            {"rephrase": ("{} or {}",)},
            f"rephrase '{{}} or {{}}' of {PROMPT!r} must be a text with {{}} at most once, where the subject goes.",
        ),
        (
            {"rephrase": "Where is {}?"},
            "rephrase must be a list of texts; got the text 'Where is {}?', write it in [ ].",
        ),
    ],
)
def test_invalid_fields_are_refused_in_one_sentence(changes, sentence):
    with pytest.raises(RequestError) as caught:
        wb.EditRequest(**{**FACT, **changes})
    assert str(caught.value) == sentence


def test_a_fact_without_a_subject_is_asked_by_its_prompt_as_it_is():
    request = wb.EditRequest(subject=None, prompt="It rains in", target_new="May", rephrase=("The rain falls in",))
    assert (request.filled_prompt, request.filled_rephrase) == ("It rains in", ("The rain falls in",))
    assert request.name == "It rains in"
    assert wb.EditRequest(**FACT).name == FACT["subject"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"prompt": "{} is in"},
            "prompt '{} is in' must be a text without {} where no subject is named; name the subject or write the "
            "prompt out.",
        ),
        (
            {"prompt": " "},
            "prompt ' ' must be a text without {} where no subject is named; name the subject or write the prompt out.",
        ),
        (
            {"prompt": "It is in", "rephrase": ["Where is {}?"]},
            "rephrase 'Where is {}?' of 'It is in' must be a text without {}, as there is no subject.",
        ),
    ],
)
def test_a_place_for_a_subject_that_is_not_named_is_refused(changes, sentence):
    with pytest.raises(RequestError) as caught:
        wb.EditRequest(**{**FACT, "subject": None, **changes})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("prompt", "target", "field"), [("", "Paris", "prompt"), ("The Louvre is in", " ", "target")])
def test_an_empty_locality_probe_is_refused_in_one_sentence(prompt, target, field):
    with pytest.raises(RequestError) as caught:
        wb.LocalityProbe(prompt=prompt, target=target)
    assert str(caught.value) == (
        f"locality {field} is empty in LocalityProbe(prompt={prompt!r}, target={target!r}); "
        "give the text to probe and its answer."
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"prompt": " "},
            "portability prompt is empty in PortabilityProbe(prompt=' ', target='Italy', aliases=()); "
            "give the text to probe and its answer.",
        ),
        (
            {"target": ""},
            "portability target is empty in PortabilityProbe(prompt='It is in', target='', aliases=()); "
            "give the text to probe and its answer.",
        ),
        (
            {"aliases": ["Italia", " "]},
            "portability alias is empty in PortabilityProbe(prompt='It is in', target='Italy', "
            "aliases=('Italia', ' ')); leave it out.",
        ),
        ({"aliases": "Italia"}, "aliases must be a list of texts; got the text 'Italia', write it in [ ]."),
    ],
)
def test_an_empty_portability_probe_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(RequestError) as caught:
        wb.PortabilityProbe(**{"prompt": "It is in", "target": "Italy", **fields})
    assert str(caught.value) == sentence


def test_a_request_error_is_a_value_error_of_the_workbench():
    assert issubclass(RequestError, ValueError)
    assert issubclass(RequestError, wb.WorkbenchError)
