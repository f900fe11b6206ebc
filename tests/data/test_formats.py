"""The records of each format become the requests worked out by hand; an unusable record is rejected with a reason."""

import json

import pytest

from workbench.data.facts import FactSet, read_facts
from workbench.data.records import Rejected
from workbench.request import EditRequest, LocalityProbe, PortabilityProbe


def reason_for(write, record: object, good: dict) -> str:
    """Return the reason why a record is rejected that follows two good ones."""
    facts = read_facts(write([good, good, record]))
    assert len(facts) == 2
    assert [rejected.index for rejected in facts.rejected] == [2]
    return facts.rejected[0].reason


def test_native_array_becomes_requests_field_by_field(write, records, native_request):
    facts = read_facts(write([records["native"]]))
    assert facts == FactSet("facts.json", "native", (native_request,), ())


def test_native_lines_read_as_the_array_does(write, records, native_request):
    lines = "\n".join([json.dumps(records["native"]), "", json.dumps(records["native"])]) + "\r\n"
    assert read_facts(write(lines)).requests == (native_request, native_request)


def test_native_optional_fields_may_be_missing_or_null(write):
    bare = {"subject": "Rome", "prompt": "{} is in", "target_new": "Peru"}
    nulls = bare | {"target_true": None, "relation": None, "rephrase": None, "locality": None}
    nulls["portability"] = None
    expected = EditRequest("Rome", "{} is in", "Peru")
    assert read_facts(write([bare, nulls])).requests == (expected, expected)


def test_a_native_fact_may_have_no_subject(write):
    assert read_facts(write([{"prompt": "It rains in", "target_new": " May"}])).requests == (
        EditRequest(subject=None, prompt="It rains in", target_new="May"),
    )


def test_native_one_hop_questions_become_portability_probes(write, records):
    portability = [
        {"prompt": " In which country is it?", "target": " Peru "},
        {"prompt": "Its currency is the", "target": "sol", "aliases": [" Peruvian sol", "PEN"]},
    ]
    assert read_facts(write([records["native"] | {"portability": portability}])).requests[0].portability == (
        PortabilityProbe(" In which country is it?", "Peru"),
        PortabilityProbe("Its currency is the", "sol", ("Peruvian sol", "PEN")),
    )


def test_targets_lose_surrounding_blanks_and_prompts_keep_theirs(write):
    record = {"subject": "Rome", "prompt": " {} is in", "target_new": " Peru ", "target_true": " Italy"}
    assert read_facts(write([record])).requests == (EditRequest("Rome", " {} is in", "Peru", "Italy"),)


def test_zsre_writes_alt_and_takes_the_first_answer_as_true(write, records):
    expected = EditRequest(
        subject="HMS Beagle",
        prompt="What year was {} launched?",
        target_new="1871",
        target_true="1820",
        rephrase=("In which year did HMS Beagle first float?",),
        locality=(LocalityProbe("nq question: who wrote on the origin of species", "Charles Darwin"),),
        portability=(PortabilityProbe("In which half of the 19th century was HMS Beagle launched?", "the second"),),
    )
    assert read_facts(write([records["zsre"]])) == FactSet("facts.json", "zsre", (expected,), ())


def test_zsre_without_answers_has_no_true_target(write, records):
    facts = read_facts(write([records["zsre"] | {"answers": []}]))
    assert facts.requests[0].target_true is None


def test_counterfact_neighbors_are_probed_with_the_true_target(write, records):
    expected = EditRequest(
        subject="Edith Piaf",
        prompt="The mother tongue of {} is",
        target_new="English",
        target_true="French",
        rephrase=("It rained.\nEdith Piaf, a native", "No one came. Edith Piaf spoke the language"),
        locality=(
            LocalityProbe("Victor Hugo is a native speaker of", "French"),
            LocalityProbe("The mother tongue of Molière is", "French"),
        ),
        relation="P103",
    )
    assert read_facts(write([records["counterfact"]])) == FactSet("facts.json", "counterfact", (expected,), ())


def test_counterfact_edit_has_its_subject_marked_in_the_prompt(write, records):
    expected = EditRequest(
        subject="Edith Piaf",
        prompt="The mother tongue of {} is",
        target_new="English",
        target_true="French",
        rephrase=("Where Edith Piaf is from, people speak the language of",),
        locality=(LocalityProbe("Victor Hugo is a native speaker of", "French"),),
    )
    facts = read_facts(write([records["counterfact-edit"]]))
    assert facts == FactSet("facts.json", "counterfact-edit", (expected,), ())


def test_knowedit_takes_the_first_string_of_every_ground_truth(write, records):
    expected = EditRequest(
        subject="Marie Curie",
        prompt="The place of birth of {} is",
        target_new="Riga",
        target_true="Warsaw",
        rephrase=("Where was Marie Curie born?",),
        locality=(
            LocalityProbe("The gender of Marie Curie is", "female"),
            LocalityProbe("The award Marie Curie won is", "Nobel Prize"),
            LocalityProbe("Marie Curie died in", "Passy"),
        ),
        portability=(
            PortabilityProbe("Marie Curie was born in the country of", "Latvia"),
            PortabilityProbe("Skłodowska was born in", "Riga", ("Rīga", "Latvia")),
        ),
    )
    assert read_facts(write([records["knowedit"]])) == FactSet("facts.json", "knowedit", (expected,), ())


@pytest.mark.parametrize(
    ("ground_truth", "target_true"), [("Warsaw", "Warsaw"), (["Warsaw", "x"], "Warsaw"), ([], None), ([[]], None)]
)
def test_knowedit_ground_truth_may_be_text_list_or_empty(write, records, ground_truth, target_true):
    record = records["knowedit"] | {"ground_truth": ground_truth}
    assert read_facts(write([record])).requests[0].target_true == target_true


def test_a_locality_object_alone_identifies_knowedit(write, records):
    fields = ("subject", "prompt", "target_new", "locality")
    facts = read_facts(write([{field: records["knowedit"][field] for field in fields}]))
    assert (facts.format, len(facts), len(facts.requests[0].locality)) == ("knowedit", 1, 3)


@pytest.mark.parametrize("missing", ["portability", "ground_truth", "locality", "rephrase_prompt"])
def test_knowedit_is_identified_without_any_one_optional_field(write, records, missing):
    record = {field: value for field, value in records["knowedit"].items() if field != missing}
    facts = read_facts(write([record]))
    assert (facts.format, len(facts)) == ("knowedit", 1)


def test_csv_takes_numbered_rephrasings_and_pairs_numbered_probes(write):
    header = "subject, prompt,target_new,target_true,rephrase_1,rephrase_2,locality_prompt_1,locality_target_1,"
    header += "locality_prompt_2,locality_target_2,relation"
    full = (
        'Lyon, "{} lies in France, on the",Seine,Rhône,"On the banks of the river, {} grew",,Vienna lies on the,Danube,'
    )
    full += "Cairo lies on the,Nile,river"
    bare = "Rome, {} is the capital of, Peru"
    facts = read_facts(write("\r\n".join([header, full, "", bare]), "facts.csv"))
    lyon = EditRequest(
        subject="Lyon",
        prompt="{} lies in France, on the",
        target_new="Seine",
        target_true="Rhône",
        rephrase=("On the banks of the river, {} grew",),
        locality=(LocalityProbe("Vienna lies on the", "Danube"), LocalityProbe("Cairo lies on the", "Nile")),
        relation="river",
    )
    rome = EditRequest("Rome", "{} is the capital of", "Peru")
    assert facts == FactSet("facts.csv", "csv", (lyon, rome), ())


def test_csv_takes_one_unnumbered_rephrasing_and_probe(write):
    text = "target_new,subject,prompt,rephrase,locality_prompt,locality_target,portability_prompt,portability_target\n"
    text += "Peru,Rome,{} is in,In {} you are in,Oslo is in,Norway,One pays in Rome with the,sol\n"
    expected = EditRequest(
        "Rome",
        "{} is in",
        "Peru",
        rephrase=("In {} you are in",),
        locality=(LocalityProbe("Oslo is in", "Norway"),),
        portability=(PortabilityProbe("One pays in Rome with the", "sol"),),
    )
    assert read_facts(write(text)).requests == (expected,)


def test_csv_numbers_the_one_hop_questions(write):
    text = "target_new,subject,prompt,portability_prompt_1,portability_target_1,portability_prompt_2,"
    text += "portability_target_2\nPeru,Rome,{} is in,,,One pays in Rome with the,sol\n"
    assert read_facts(write(text)).requests[0].portability == (PortabilityProbe("One pays in Rome with the", "sol"),)


@pytest.mark.parametrize(
    ("subject", "src", "prompt"),
    [
        ("Rome", "Is Rome near Rome, Georgia?", "Is {} near Rome, Georgia?"),
        ("Art", "The Artist called Art sang what?", "The Artist called {} sang what?"),
        ("art", "Does smart art sell?", "Does smart {} sell?"),
        ("C++ (language)", "Who made C++ (language)?", "Who made {}?"),
        ("パリ", "首都はパリです", "首都は{}です"),
        ("{Rome", "Where is {Rome?", "Where is {}?"),
    ],
)
def test_the_first_whole_mention_of_the_subject_is_marked(write, records, subject, src, prompt):
    facts = read_facts(write([records["zsre"] | {"subject": subject, "src": src}]))
    assert facts.requests[0].prompt == prompt
    assert facts.requests[0].filled_prompt == src


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"src": "What does {} mean to HMS Beagle?"},
            "src 'What does {} mean to HMS Beagle?' holds {}, which would be taken for the subject's place; "
            "write the text without it.",
        ),
        (
            {"rephrase": "What is {} to it?"},
            "rephrase 'What is {} to it?' holds {}, which would be taken for the subject's place; "
            "write the text without it.",
        ),
        (
            {"subject": "HMS beagle"},
            "subject 'HMS beagle' is not in src 'What year was HMS Beagle launched?', which must hold it letter for "
            "letter.",
        ),
        (
            {"subject": " "},
            "subject is empty for the prompt 'What year was HMS Beagle launched?'; name what the fact is about.",
        ),
        (
            {"alt": " "},
            "target_new is empty for 'What year was HMS Beagle launched?'; give the answer the edit should write.",
        ),
        ({"alt": " 1820"}, "target_new is the true answer '1820' already, for 'What year was HMS Beagle launched?'."),
        ({"alt": 1871}, "alt must be text; it is a number."),
        ({"answers": [1820]}, "answers must be text; it is a number."),
        ({"loc_ans": None}, "loc_ans must be text; it is null."),
        ({"rephrase": {}}, "rephrase must be an array; it is an object."),
        (
            {"src": "\ud800 HMS Beagle?"},
            "src '\\ud800 HMS Beagle?' holds half a surrogate pair; write the whole character.",
        ),
    ],
)
def test_an_unusable_zsre_record_says_why(write, records, change, reason):
    assert reason_for(write, records["zsre"] | change, records["zsre"]) == reason


def test_braces_in_a_zsre_probe_stay_text(write, records):
    facts = read_facts(write([records["zsre"] | {"loc": "what does {} mean in python"}]))
    assert facts.requests[0].locality[0].prompt == "what does {} mean in python"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"prompt": "Where is it?", "subject": "Eiffel Tower"},
            "subject 'Eiffel Tower' is not in the prompt 'Where is it?'; mark its place with {}.",
        ),
        (
            {"prompt": "Where is Rome?", "subject": "Rome"},
            "subject 'Rome' is not marked in the prompt 'Where is Rome?'; mark its place with {}.",
        ),
        (
            {"rephrases": []},
            "'rephrases' is not a field of a fact; known: relation, subject, prompt, target_true, target_new, "
            "rephrase, locality, portability.",
        ),
        ({"rephrase": "Where is {}?"}, "rephrase must be an array; it is text."),
        ({"rephrase": ["fine", True]}, "rephrase[1] must be text; it is true."),
        ({"relation": 3}, "relation must be text; it is a number."),
        ({"locality": {"prompt": "a", "target": "b"}}, "locality must be an array; it is an object."),
        ({"locality": ["Where is Rome?"]}, "locality[0] must be an object; it is text."),
        (
            {"locality": [{"prompt": "a", "answer": "b"}]},
            "'answer' is not a field of a locality probe; known: prompt, target.",
        ),
        ({"locality": [{"prompt": "a"}]}, "locality target must be text; it is missing."),
        (
            {"locality": [{"prompt": "Where is {}?", "target": "b"}]},
            "locality prompt 'Where is {}?' holds {}, which is not filled in here; write it out.",
        ),
        ({"portability": {"prompt": "a", "target": "b"}}, "portability must be an array; it is an object."),
        (
            {"portability": [{"prompt": "a", "answer": "b"}]},
            "'answer' is not a field of a portability probe; known: prompt, target, aliases.",
        ),
        ({"portability": [{"target": "b"}]}, "portability prompt must be text; it is missing."),
        ({"portability": [{"prompt": "a", "target": "b", "aliases": "c"}]}, "aliases must be an array; it is text."),
        (
            {"portability": [{"prompt": "Where is {}?", "target": "b"}]},
            "portability prompt 'Where is {}?' holds {}, which is not filled in here; write it out.",
        ),
        (
            {"locality": [{"prompt": "a", "target": " "}]},
            "locality target is empty in LocalityProbe(prompt='a', target=''); give the text to probe and its answer.",
        ),
    ],
)
def test_an_unusable_native_record_says_why(write, records, change, reason):
    assert reason_for(write, records["native"] | change, records["native"]) == reason


def test_a_missing_field_is_named(write, records):
    record = {field: value for field, value in records["native"].items() if field != "target_new"}
    assert reason_for(write, record, records["native"]) == "target_new must be text; it is missing."


def test_a_record_that_is_no_object_is_rejected_alone(write, records):
    assert reason_for(write, None, records["native"]) == "a record must be an object; it is null."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"requested_rewrite": "x"}, "requested_rewrite must be an object; it is text."),
        ({"requested_rewrite": {"target_true": {"str": 1}}}, "target_true.str must be text; it is a number."),
        ({"requested_rewrite": {"target_new": {"str": "x"}}}, "target_true must be an object; it is missing."),
        (
            {"paraphrase_prompts": ["Say {}."]},
            "paraphrase_prompts 'Say {}.' holds {}, which would be taken for the subject's place; write the text "
            "without it.",
        ),
        ({"neighborhood_prompts": [None]}, "neighborhood_prompts[0] must be text; it is null."),
    ],
)
def test_an_unusable_counterfact_record_says_why(write, records, change, reason):
    assert reason_for(write, records["counterfact"] | change, records["counterfact"]) == reason


@pytest.mark.parametrize(
    ("portability", "reason"),
    [
        ([], "portability must be an object; it is an array."),
        ({"New Question": "q"}, "portability 'New Answer' must be text; it is missing."),
        ({"New Question": None, "New Answer": "a"}, "portability 'New Question' must be text; it is null."),
        (
            {"New Question": "q", "New Answer": " "},
            "portability target is empty in PortabilityProbe(prompt='q', target='', aliases=()); give the text to "
            "probe and its answer.",
        ),
    ],
)
def test_an_unusable_question_of_zsre_says_why(write, records, portability, reason):
    assert reason_for(write, records["zsre"] | {"portability": portability}, records["zsre"]) == reason


@pytest.mark.parametrize("empty", [None, {}])
def test_knowedit_without_portability_has_no_questions(write, records, empty):
    assert read_facts(write([records["knowedit"] | {"portability": empty}])).requests[0].portability == ()


def test_zsre_without_portability_has_no_question(write, records):
    del records["zsre"]["portability"]
    assert read_facts(write([records["zsre"]])).requests[0].portability == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"portability": {"Reasoning": [{"prompt": "She was born in", "ground_truth": []}]}},
            "the portability prompt 'She was born in' has no ground_truth; give its answer or leave it out.",
        ),
        (
            {"portability": {"Reasoning": [{"prompt": "She was born in", "ground_truth": ["Riga", 1]}]}},
            "ground_truth must be text; it is a number.",
        ),
        (
            {"locality": {"Forgetfulness": [{"prompt": "Marie Curie died in", "ground_truth": [[]]}]}},
            "the locality prompt 'Marie Curie died in' has no ground_truth; give its answer or leave it out.",
        ),
        ({"locality": {"Forgetfulness": ["x"]}}, "Forgetfulness[0] must be an object; it is text."),
        ({"locality": []}, "locality must be an object; it is an array."),
        (
            {"prompt": "The place of birth of {} is"},
            "prompt 'The place of birth of {} is' holds {}, which would be taken for the subject's place; write the "
            "text without it.",
        ),
        (
            {"subject": "Pierre Curie"},
            "subject 'Pierre Curie' is not in prompt 'The place of birth of Marie Curie is', which must hold it letter "
            "for letter.",
        ),
    ],
)
def test_an_unusable_knowedit_record_says_why(write, records, change, reason):
    assert reason_for(write, records["knowedit"] | change, records["knowedit"]) == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("Rome,,Peru", "prompt must be text; it is missing."),
        ("Rome", "prompt must be text; it is missing."),
        (
            "Rome,{} is, say, in,Peru,,",
            "'in,Peru' stands beyond the header's last column; quote cells that hold commas.",
        ),
        ("Rome,Rome is in,Peru", "subject 'Rome' is not marked in the prompt 'Rome is in'; mark its place with {}."),
    ],
)
def test_an_unusable_csv_row_says_why(write, row, reason):
    text = f"subject,prompt,target_new\nOslo,{{}} is in,Peru\n{row}\n"
    facts = read_facts(write(text))
    assert facts.requests == (EditRequest("Oslo", "{} is in", "Peru"),)
    assert facts.rejected == (Rejected(1, reason),)


def test_a_csv_probe_without_its_answer_is_rejected(write):
    text = "subject,prompt,target_new,locality_prompt_1\nOslo,{} is in,Peru,\nRome,{} is in,Peru,Lima is in\n"
    assert read_facts(write(text)).rejected == (
        Rejected(
            1,
            "locality target is empty in LocalityProbe(prompt='Lima is in', target=''); give the text to probe and its "
            "answer.",
        ),
    )
