"""The slices of the real data sets load record by record."""

import json
from collections import Counter

import pytest

from workbench.data.facts import read_facts
from workbench.request import EditRequest, LocalityProbe, PortabilityProbe

ALREADY_TRUE = "target_new is the true answer"
REAL_FILES = [  # file, format, records, records whose target_new is their true answer
    ("zsre/zsre_mend_eval_portability_gpt4.json", "zsre", 300, 8),
    ("zsre/zsre_mend_train.json", "zsre", 500, 10),
    ("counterfact/counterfact.json", "counterfact", 200, 0),
    ("counterfact/counterfact-edit.json", "counterfact-edit", 200, 0),
    ("knowedit/recent_train.json", "knowedit", 60, 0),
    ("knowedit/train_cf.json", "knowedit", 60, 0),
    ("knowedit/ZsRE-test-all.json", "knowedit", 60, 4),
]


@pytest.mark.parametrize(("name", "fact_format", "records", "already_true"), REAL_FILES)
def test_a_real_file_loads_but_for_edits_to_the_true_answer(shared_data, name, fact_format, records, already_true):
    facts = read_facts(shared_data / name)
    assert facts.format == fact_format
    assert len(facts) + len(facts.rejected) == records
    assert Counter(rejected.reason.startswith(ALREADY_TRUE) for rejected in facts.rejected) == Counter(
        {True: already_true} if already_true else {}
    )


FILLED_IN = [("src", name) for name, fact_format, *_ in REAL_FILES if fact_format == "zsre"]
FILLED_IN += [
    ("prompt", name) for name, fact_format, *_ in REAL_FILES if fact_format in ("counterfact-edit", "knowedit")
]


@pytest.mark.parametrize(("field", "name"), FILLED_IN)
def test_filled_prompts_are_the_real_file_s_own_texts(shared_data, field, name):
    records = json.loads((shared_data / name).read_text(encoding="utf-8"))
    facts = read_facts(shared_data / name)
    left_out = {rejected.index for rejected in facts.rejected}
    texts = [record[field] for i, record in enumerate(records) if i not in left_out]
    assert [request.filled_prompt for request in facts.requests] == texts


def test_the_first_real_zsre_record_is_read_as_written(shared_data):
    assert read_facts(shared_data / "zsre/zsre_mend_eval_portability_gpt4.json").requests[0] == EditRequest(
        subject="IAAF Combined Events Challenge",
        prompt="When was the inception of {}?",
        target_new="2006",
        target_true="1998",
        rephrase=("When was the IAAF Combined Events Challenge launched?",),
        locality=(LocalityProbe("nq question: what is the name of the last episode of spongebob", "The String"),),
        portability=(
            PortabilityProbe(
                "What type of sports event is the IAAF Combined Events Challenge, which was established in 2006?",
                "Athletics",
            ),
        ),
    )


def test_the_first_real_zsre_training_record_is_read_as_written(shared_data):
    assert read_facts(shared_data / "zsre/zsre_mend_train.json").requests[0] == EditRequest(
        subject="UniFirst",
        prompt="What is the product made by {}?",
        target_new="unmanned aircraft",
        target_true="uniform",
        rephrase=("What will be the product of UniFirst?",),
        locality=(LocalityProbe("nq question: john goodman's character in the big lebowski", "Walter Sobchak"),),
    )


def test_the_first_real_counterfact_record_is_read_as_written(shared_data):
    request = read_facts(shared_data / "counterfact/counterfact.json").requests[0]
    assert (request.subject, request.prompt, request.relation) == ("Angola", "{} is located in", "P30")
    assert (request.target_true, request.target_new) == ("Africa", "Antarctica")
    assert request.rephrase == (
        "Plaque - located at Punkeydoodle's Corners. Angola belongs to the continent of",
        "Last updated on 4 February 2017. Angola is a part of the continent of",
    )
    assert len(request.locality) == 10
    assert request.locality[7] == LocalityProbe("Côte d'Ivoire is located in", "Africa")


def test_the_first_real_counterfact_edit_record_is_read_as_written(shared_data):
    assert read_facts(shared_data / "counterfact/counterfact-edit.json").requests[0] == EditRequest(
        subject="Danielle Darrieux",
        prompt="The mother tongue of {} is",
        target_new="English",
        target_true="French",
        rephrase=("Where Danielle Darrieux is from, people speak the language of",),
        locality=(LocalityProbe("Michel Rocard is a native speaker of", "French"),),
    )


def test_the_first_real_knowedit_records_are_read_as_written(shared_data):
    recent = read_facts(shared_data / "knowedit/recent_train.json").requests[0]
    assert (recent.prompt, recent.target_new, recent.target_true) == ("The gender of {} is", "female", None)
    assert [probe.target for probe in recent.locality] == [
        "Cēsis",
        "Soviet Union",
        "University of Latvia",
        "luger",
        "Cross of Recognition",
    ]
    counterfact = read_facts(shared_data / "knowedit/train_cf.json").requests[0]
    assert (counterfact.target_new, counterfact.target_true) == ("Franche-Comté", "France")
    assert counterfact.locality == (LocalityProbe("The name of the founder of Goursez Vreizh is", "Jean Le Fustec"),)
    zsre = read_facts(shared_data / "knowedit/ZsRE-test-all.json").requests[0]
    assert (zsre.target_new, zsre.target_true) == ("Noctuidae", "Aspidoceratidae")
    assert zsre.rephrase == ("What family are Epaspidoceras?",)


QUESTIONS = [
    ("zsre/zsre_mend_eval_portability_gpt4.json", "zsre"),
    ("knowedit/recent_train.json", "knowedit"),
    ("knowedit/train_cf.json", "knowedit"),
    ("knowedit/ZsRE-test-all.json", "knowedit"),
]


def _names(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [name for part in value for name in _names(part)]


@pytest.mark.parametrize(("name", "fact_format"), QUESTIONS)
def test_every_one_hop_question_of_a_real_file_is_read(shared_data, name, fact_format):
    records = json.loads((shared_data / name).read_text(encoding="utf-8"))
    facts = read_facts(shared_data / name)
    left_out = {rejected.index for rejected in facts.rejected}
    expected = []
    for record in (record for i, record in enumerate(records) if i not in left_out):
        if fact_format == "zsre":
            asked = [(record["portability"]["New Question"], [record["portability"]["New Answer"]])]
        else:
            groups = record["portability"].values()
            asked = [(probe["prompt"], _names(probe["ground_truth"])) for group in groups for probe in group]
        expected.append([(prompt, {name.strip() for name in names}, names[0].strip()) for prompt, names in asked])
    read = [[(p.prompt, {p.target, *p.aliases}, p.target) for p in request.portability] for request in facts.requests]
    assert read == expected
    assert sum(map(len, read)) >= 50


def test_other_names_of_a_real_answer_are_aliases(shared_data):
    requests = read_facts(shared_data / "knowedit/recent_train.json").requests
    [*_, probe] = [p for r in requests for p in r.portability if p.prompt == "The official language of Lac Otelnuk is"]
    assert probe.target == "English"
    assert probe.aliases == ("English language", "en", "eng", "French", "French language", "fr", "fra", "(fr)")
