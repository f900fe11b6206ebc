"""The files that can be read, the messages that refuse others, and the methods of a set of facts."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers import error_of
from workbench.data import records as records_module
from workbench.data.facts import FactSet, load_bundled_facts, load_facts, read_facts
from workbench.data.records import Rejected
from workbench.errors import RequestError
from workbench.request import EditRequest

SHAPES = "give a JSON array, JSON lines or a CSV with a header"
KNOWN = (
    "counterfact (requested_rewrite); zsre (subject, src, alt); "
    "counterfact-edit (subject, prompt, target_new, locality_prompt); "
    "knowedit (subject, prompt, target_new, ground_truth or an object of lists); native (prompt, target_new); "
    "csv (a header with subject, prompt, target_new)"
)


def read_error(path: Path) -> str:
    """Return the message of the error that reading a file raises."""
    return error_of(RequestError, read_facts, path)


def test_a_single_indented_object_is_one_record(write, records, native_request):
    assert read_facts(write(json.dumps(records["native"], indent=2))).requests == (native_request,)


def test_a_line_separator_inside_a_text_does_not_end_a_json_line(write):
    record = {"subject": "Rome", "prompt": "{} is\u2028in", "target_new": "Peru"}
    text = "\n".join([json.dumps(record, ensure_ascii=False)] * 2)
    assert [request.prompt for request in read_facts(write(text)).requests] == ["{} is\u2028in"] * 2


def test_the_name_of_a_file_says_nothing_about_its_format(write, records):
    assert read_facts(write([records["zsre"]], "counterfact.csv")).format == "zsre"


@pytest.mark.parametrize(
    "text",
    [
        '[{"subject": "Rome", "prompt": "{} is in", "target_new": "Peru"}]',
        "subject,prompt,target_new\nRome,{} is in,Peru",
    ],
)
def test_a_byte_order_mark_changes_nothing(write, text):
    facts = read_facts(write(b"\xef\xbb\xbf" + text.encode()))
    assert facts.requests == (EditRequest("Rome", "{} is in", "Peru"),)


def test_the_format_of_most_records_is_used(write, records):
    stray = records["native"] | {"ground_truth": "Paris"}
    facts = read_facts(write([stray, records["native"], records["native"]]))
    assert facts.format == "native"
    assert [str(rejected) for rejected in facts.rejected] == [
        "record 0: 'ground_truth' is not a field of a fact; known: relation, subject, prompt, target_true, target_new, "
        "rephrase, locality, portability."
    ]


def test_a_rejection_names_file_record_and_reason():
    rejected = Rejected(17, "subject 'Eiffel Tower' is not in the prompt 'Where is it?'; mark its place with {}.")
    assert rejected.in_file("facts.json") == (
        "facts.json, record 17: subject 'Eiffel Tower' is not in the prompt 'Where is it?'; mark its place with {}."
    )


def test_left_out_records_are_logged_with_their_number(write, records, caplog):
    with caplog.at_level(logging.WARNING):
        read_facts(write([records["native"], None, 5]))
    assert caplog.messages == [
        "facts.json: 2 of 3 records are left out; record 1: a record must be an object; it is null."
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", f"facts.json is empty; {SHAPES}."),
        (b" \r\n\n", f"facts.json is empty; {SHAPES}."),
        (b"\xef\xbb\xbf", f"facts.json is empty; {SHAPES}."),
        (b'[{"subject": "Caf\xe9"}]', "facts.json is not UTF-8 text: byte 17 is 0xe9; save it as UTF-8."),
        (b"\xff\xfes\x00", "facts.json is not UTF-8 text: byte 0 is 0xff; save it as UTF-8."),
        (
            b'[\n  {"subject": "Rome"},\n    }\n]',
            f"facts.json is not JSON: line 3, column 5: Expecting value; {SHAPES}.",
        ),
        (
            b'{"subject": "Rome"}\n\n{"subject" "Rome"}\n',
            f"facts.json is not JSON: line 3, column 12: Expecting ':' delimiter; {SHAPES}.",
        ),
        (
            b'{\n"subject": "Rome",\n"prompt" 5}',
            f"facts.json is not JSON: line 3, column 10: Expecting ':' delimiter; {SHAPES}.",
        ),
        (b"[{}] [{}]", f"facts.json is not JSON: line 1, column 6: Extra data; {SHAPES}."),
        (b"[]", "facts.json holds no facts; give at least one."),
        (b"[[1], 2]", f"facts.json has no objects: record 0 is an array; known: {KNOWN}."),
        (b'["x"]', f"facts.json has no objects: record 0 is text; known: {KNOWN}."),
        (b'{"facts": []}', f"facts.json has fields of no known format: facts; known: {KNOWN}."),
        (b"[5, {}]", f"facts.json has fields of no known format: none; known: {KNOWN}."),
        (
            b'[{"question": "q", "answer": "a"}]',
            f"facts.json has fields of no known format: question, answer; known: {KNOWN}.",
        ),
        (
            b'"Rome"',
            f"facts.json is neither JSON nor a CSV of facts: it starts with 'Rome'; {SHAPES} that names subject, "
            "prompt, target_new.",
        ),
        (
            b"subject;prompt;target_new\nRome;{} is in;Peru",
            f"facts.json is neither JSON nor a CSV of facts: it starts with 'subject;prompt;target_new'; {SHAPES} that "
            "names subject, prompt, target_new.",
        ),
        (
            b",,\n",
            f"facts.json is neither JSON nor a CSV of facts: it starts with ''; {SHAPES} that names subject, prompt, "
            "target_new.",
        ),
        (
            b"subject,prompt,target_true\nRome,{} is in,Italy",
            "facts.json lacks the column 'target_new': its header names subject, prompt, target_true; a CSV of facts "
            "needs subject, prompt, target_new.",
        ),
        (
            b"subject,prompt,target_new,rephrase1\n",
            "facts.json has the unknown column 'rephrase1'; known: subject, prompt, target_new, target_true, relation, "
            "rephrase, locality_prompt, locality_target, portability_prompt, portability_target.",
        ),
        (
            b"subject,prompt,target_new,subject\n",
            "facts.json has the column 'subject' 2 times; give it once.",
        ),
        (b"subject,prompt,target_new\n", "facts.json holds a header and no records; give at least one fact."),
        (
            b'subject,prompt,target_new\nRome,"{} is in,Peru\n',
            f"facts.json is not CSV: line 2: unexpected end of data; {SHAPES}.",
        ),
        (
            b'[{"subject": "Rome", "prompt": "x", "target_new": "Peru"}, 3]',
            "facts.json has no usable fact among 2; record 0: subject 'Rome' is not in the prompt 'x'; mark its place "
            "with {}.",
        ),
    ],
)
def test_an_unusable_file_gets_one_sentence(write, content, sentence):
    assert read_error(write(content)) == sentence


def test_json_nested_without_end_is_refused(write):
    assert read_error(write("[" * 200_000)) == f"facts.json is nested too deeply for a file of facts; {SHAPES}."


def test_a_number_of_thousands_of_digits_is_refused(write):
    sentence = read_error(write('[{"subject": ' + "7" * 5000 + "}]"))
    assert sentence == "facts.json holds a number too long to read; write it as text."


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "gone.json"
    assert (
        read_error(path) == f"{path} does not exist; give a file of facts, 'bundled', 'bundled-hard' or 'bundled-all'."
    )


def test_a_folder_is_named(tmp_path):
    assert read_error(tmp_path) == f"{tmp_path} is a folder; give one file of facts."


def test_an_unreadable_path_is_named(write):
    path = write("x") / "facts.json"
    assert read_error(path) == f"{path} cannot be read (Not a directory); give a file of facts."


def numbered(n: int) -> FactSet:
    """Return a set of n distinct facts."""
    return FactSet("numbers.json", "native", tuple(EditRequest(f"s{i}", "{} is", f"t{i}") for i in range(n)), ())


def test_a_sample_repeats_no_fact_and_is_the_same_with_the_same_seed():
    facts = numbered(50)
    drawn = facts.sample(50, seed=3)
    assert set(drawn) == set(facts.requests)
    assert drawn == facts.sample(50, seed=3)
    assert drawn != facts.sample(50, seed=4)


@pytest.mark.parametrize("seed", range(5))
def test_a_smaller_sample_begins_a_larger_one(seed):
    facts = numbered(200)
    whole = facts.sample(200, seed=seed)
    assert [n for n in range(1, 200) if facts.sample(n, seed=seed) != whole[:n]] == []


@pytest.mark.parametrize("n", [4, 0, -1])
def test_more_facts_than_there_are_cannot_be_drawn(n):
    assert error_of(RequestError, numbered(3).sample, n, seed=0) == (
        f"numbers.json has 3 usable facts and none is drawn twice: n must lie in 1 to 3; got {n}."
    )


def test_load_facts_expands_the_home_folder(write, records, tmp_path, monkeypatch, native_request):
    write([records["native"]])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_facts("~/facts.json").requests == (native_request,)


@pytest.fixture
def bundled_root(tmp_path, monkeypatch):
    """Replace the package's data folder by an empty one, which is returned."""
    monkeypatch.setattr(records_module, "resources", SimpleNamespace(files=lambda package: tmp_path))
    return tmp_path


@pytest.mark.usefixtures("bundled_root")
def test_load_facts_reads_the_bundled_set_by_default(write, records, native_request):
    write(records["native"], "bundled/facts.jsonl")
    assert load_facts() == load_bundled_facts() == FactSet("bundled", "native", (native_request,), ())


@pytest.mark.usefixtures("bundled_root")
def test_load_facts_reads_the_hard_set_by_its_name(write, records, native_request):
    write(records["native"], "bundled/facts_hard.jsonl")
    assert load_facts("bundled-hard") == FactSet("bundled-hard", "native", (native_request,), ())


@pytest.mark.usefixtures("bundled_root")
def test_an_unusable_bundled_record_is_an_error(write, records):
    write([records["native"], records["native"] | {"target_new": ""}], "bundled/facts.jsonl")
    assert error_of(RequestError, load_bundled_facts) == (
        "bundled, record 1: target_new is empty for 'The Eiffel Tower is located in the city of'; give the answer the "
        "edit should write."
    )


@pytest.mark.usefixtures("bundled_root")
def test_a_missing_bundled_set_is_an_error():
    sentence = error_of(RequestError, load_bundled_facts)
    assert sentence == "bundled/facts.jsonl is missing from this installation; install it again."


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "known/known_1000.json",
            "known_1000.json has fields of no known format: known_id, subject, attribute, template, prediction, "
            f"prompt, relation_id; known: {KNOWN}.",
        ),
        ("pararel/data_11.json", f"data_11.json has no objects: record 0 is an array; known: {KNOWN}."),
        (
            "gsm8k/test-reasoning.jsonl",
            f"test-reasoning.jsonl has fields of no known format: question, answer; known: {KNOWN}.",
        ),
        (
            "rte/test-NLI.tsv",
            "test-NLI.tsv is neither JSON nor a CSV of facts: it starts with 'index\\tsentence1\\tsentence2\\tlabel'; "
            f"{SHAPES} that names subject, prompt, target_new.",
        ),
    ],
)
def test_a_real_file_of_something_else_is_refused(shared_data, name, sentence):
    assert read_error(shared_data / name) == sentence


def test_a_relative_path_is_also_looked_for_in_workbench_data(tmp_path, monkeypatch):
    record = {"subject": "Paris", "prompt": "{} lies in", "target_new": "Italy"}
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "facts.json").write_text(json.dumps([record]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "far"))
    assert load_facts("facts.json").requests[0].subject == "Paris"


def test_a_file_in_the_current_folder_is_preferred_to_workbench_data(tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    for folder, subject in ((tmp_path, "Rome"), (tmp_path / "far", "Paris")):
        record = {"subject": subject, "prompt": "{} lies in", "target_new": "Spain"}
        (folder / "facts.json").write_text(json.dumps([record]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "far"))
    assert load_facts("facts.json").requests[0].subject == "Rome"


def test_prompts_that_open_with_their_subject_can_be_left_out():
    opening = EditRequest(subject="London", prompt="{} lies on the", target_new="Severn")
    inside = EditRequest(subject="London", prompt="In the city of {} flows the", target_new="Severn")
    facts = FactSet(source="s", format="native", requests=(opening, inside), rejected=())
    assert facts.with_words_before_subject().requests == (inside,)


def test_a_set_in_which_every_prompt_opens_with_its_subject_has_nothing_left():
    opening = EditRequest(subject="London", prompt="{} lies on the", target_new="Severn")
    facts = FactSet(source="s.json", format="native", requests=(opening,), rejected=())
    assert error_of(RequestError, facts.with_words_before_subject) == (
        "every prompt of s.json starts with its subject; draw from another set, or do without words before the subject."
    )
