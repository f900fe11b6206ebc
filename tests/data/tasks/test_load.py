"""The sources from which task data load, the messages that refuse others, and the methods of a set of examples."""

import json
import logging
from pathlib import Path

import pytest

from tests.helpers import error_of
from workbench.data.records import Rejected
from workbench.data.tasks.examples import NERExample, NLIExample, SentimentExample
from workbench.data.tasks.formats import TASK_FORMATS
from workbench.data.tasks.load import TaskData, load_task
from workbench.errors import DataError, SpecError

SHAPES = "give a JSON array, JSON lines or a TSV with a header"
KNOWN = "native (text, positive); sst2 (sentence); sst2-text (text, label)"
GOOD = {"text": "A joy.", "positive": True}
JOY = SentimentExample("A joy.", True)


def load_error(task: str, data: str | Path) -> str:
    """Return the message of the error that loading raises."""
    return error_of(DataError, load_task, task, data)


@pytest.fixture
def ten() -> TaskData:
    """Return ten examples."""
    examples = tuple(SentimentExample(str(i), True) for i in range(10))
    return TaskData("sentiment", "mine.jsonl", "unknown", examples, (Rejected(3, "text is empty."),))


def test_length_counts_the_usable_examples(ten):
    assert len(ten) == 10


def test_a_limit_keeps_the_first_examples_and_all_that_was_rejected(ten):
    assert ten.take(3) == TaskData("sentiment", "mine.jsonl", "unknown", ten.examples[:3], ten.rejected)


@pytest.mark.parametrize("limit", [None, 10, 11])
def test_no_limit_and_a_large_one_keep_all(ten, limit):
    assert ten.take(limit) == ten
    assert sorted(ten.take(limit, seed=1).examples, key=lambda e: e.text) == list(ten.examples)


def test_a_smaller_draw_is_the_beginning_of_a_larger_one(ten):
    drawn = ten.take(10, seed=5).examples
    assert all(ten.take(n, seed=5).examples == drawn[:n] for n in range(1, 11))
    assert len(set(drawn)) == 10
    assert drawn != ten.examples
    assert drawn != ten.take(10, seed=6).examples


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(ten, limit):
    assert error_of(DataError, ten.take, limit) == f"limit must be at least 1; got {limit}."


@pytest.mark.parametrize(
    "text", [json.dumps([GOOD]), json.dumps(GOOD), json.dumps(GOOD, indent=1), json.dumps(GOOD) + "\n\n"]
)
def test_an_array_an_object_and_lines_are_all_read(write, text):
    assert load_task("sentiment", write(text, "mine.txt")) == TaskData("sentiment", "mine.txt", "unknown", (JOY,), ())


def test_quotes_in_a_tsv_are_characters_like_others(write):
    text = 'index\tsentence1\tsentence2\tlabel\r\n0\tHe said "no.\tShe said "yes".\tentailment\r\n\r\n1\t"a"\tb"\t'
    found = load_task("nli", write(text + "not_entailment", "mine.tsv"))
    assert found.examples == (
        NLIExample('He said "no.', 'She said "yes".', True),
        NLIExample('"a"', 'b"', False),
    )


def test_a_tsv_row_with_too_few_or_too_many_cells_is_rejected(write):
    found = load_task("sentiment", write("sentence\tlabel\nfine\t1\nbad\nodd\t0\tx\ty\n", "mine.tsv"))
    assert found.examples == (SentimentExample("fine", True),)
    assert found.rejected == (
        Rejected(1, "label must be negative or positive, or 0 or 1; it is missing."),
        Rejected(2, "'x\\ty' stands beyond the header's last column; a row has one cell per column."),
    )


def test_empty_cells_beyond_the_header_are_ignored(write):
    found = load_task("sentiment", write("sentence\tlabel\nfine\t1\t\t\n", "mine.tsv"))
    assert (found.examples, found.rejected) == ((SentimentExample("fine", True),), ())


def test_a_tsv_row_of_empty_cells_is_rejected_and_a_blank_line_is_no_row(write):
    found = load_task("sentiment", write("sentence\tlabel\n\t\n \r\nfine\t1\n", "mine.tsv"))
    assert found.examples == (SentimentExample("fine", True),)
    assert [rejected.index for rejected in found.rejected] == [0]


def test_columns_are_read_for_ner(write):
    found = load_task("ner", write("-DOCSTART- -X- O\n\nRome NNP I-LOC\n\nAnn NNP S-PER\n\nhi\n", "mine.conll"))
    assert found.examples == (NERExample("Rome", (("LOC", "Rome"),)),)
    assert [str(rejected) for rejected in found.rejected] == [
        "record 1: the tag 'S-PER' of 'Ann' is neither O nor B- or I- with one of PER, LOC, ORG, MISC.",
        "record 2: the tag '' of 'hi' is neither O nor B- or I- with one of PER, LOC, ORG, MISC.",
    ]


def test_the_format_of_most_records_is_used(write):
    # without its passage a record is not taken for the form that has none
    full = {"question": "who?", "answer": ["Ann"], "output": ["Ann did."]}
    found = load_task("open_qa", write([{"question": "when?", "answer": ["now"]}, full, full], "mine.json"))
    assert len(found) == 2
    assert [str(rejected) for rejected in found.rejected] == ["record 0: output must be an array; it is missing."]


def test_left_out_records_are_kept_with_their_place_and_logged_once(write, caplog):
    with caplog.at_level(logging.WARNING):
        found = load_task("sentiment", write([GOOD, None, {"text": "", "positive": True}], "mine.json"))
    assert found.examples == (JOY,)
    assert found.rejected == (Rejected(1, "a record must be an object; it is null."), Rejected(2, "text is empty."))
    assert caplog.messages == [
        "mine.json: 2 of 3 records are left out; record 1: a record must be an object; it is null."
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", f"mine.json is empty; {SHAPES}."),
        (b"\xef\xbb\xbf \n", f"mine.json is empty; {SHAPES}."),
        (b'{"text": "caf\xe9"}', "mine.json is not UTF-8 text: byte 13 is 0xe9; save it as UTF-8."),
        (b'[\n {"text" 5}]', f"mine.json is not JSON: line 2, column 10: Expecting ':' delimiter; {SHAPES}."),
        (b"[" * 100_000, f"mine.json is nested too deeply for a file of data; {SHAPES}."),
        (b'{"text": ' + b"1" * 5000 + b"}", "mine.json holds a number too long to read; write it as text."),
        (b"[]", "mine.json holds no records; give at least one."),
        (b"[5]", f"mine.json has no objects: record 0 is a number; known for sentiment: {KNOWN}."),
        (b"[{}]", f"mine.json has fields of no known format: none; known for sentiment: {KNOWN}."),
        (b'[{"a": 1, "b": 2}]', f"mine.json has fields of no known format: a, b; known for sentiment: {KNOWN}."),
        (b"a\tb\n1\t2\n", f"mine.json has fields of no known format: a, b; known for sentiment: {KNOWN}."),
        (b"prose\nand more", f"mine.json is neither JSON nor a TSV: it starts with 'prose'; {SHAPES}."),
        (b"sentence\tlabel\n", "mine.json holds no records; give at least one."),
        (b"sentence\tsentence\nx\ty\n", "mine.json has the column 'sentence' 2 times; give it once."),
        (
            b"index\tsentence\n0\tfine\n1\tbad\n",  # GLUE's test split
            "mine.json has no usable record among 2; record 0: label must be negative or positive, or 0 or 1; it is "
            "missing.",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(write, content, sentence):
    assert load_error("sentiment", write(content, "mine.json")) == sentence


def test_an_unknown_task_is_refused_with_the_known_ones():
    assert error_of(SpecError, load_task, "ner2", "bundled") == (
        "no task 'ner2'; known: reasoning, nli, open_qa, closed_qa, dialogue, summarization, ner, sentiment."
    )


def test_a_missing_path_is_refused(tmp_path):
    assert load_error("nli", tmp_path / "none") == (
        f"{tmp_path / 'none'} does not exist; give a file or folder of data, 'bundled' or 'hub'."
    )


def test_a_folder_without_the_task_s_data_is_refused_with_the_names_looked_for(tmp_path):
    assert load_error("sentiment", tmp_path) == (
        f"{tmp_path} holds no data for sentiment: it and 3 levels below it were searched for "
        "test-SentimentAnalysis.tsv, SST-2/dev.tsv, SST-2/train.tsv, sentiment.jsonl; give such a folder or the file "
        "itself."
    )


def test_a_folder_is_searched_and_the_file_found_is_named(write, tmp_path):
    write("sentence\tlabel\nfine\t1\n", "SST-2/dev.tsv")
    found = load_task("sentiment", tmp_path)
    assert (found.source, found.split, len(found)) == ("SST-2/dev.tsv", "dev", 1)


def dialogue(i: int) -> dict:
    """Return a record of MuTual with its number as text."""
    return {"answers": "A", "options": ["a", "b", "c", "d"], "article": f"m : {i}", "id": f"dev_{i}"}


def test_a_folder_of_dialogues_is_one_record_per_file_in_the_order_of_numbers(write, tmp_path):
    for i in (10, 9, 1):
        write(dialogue(i), f"test-dialogue/dev_{i}.txt")
    found = load_task("dialogue", tmp_path)
    assert [example.dialogue for example in found.examples] == ["m : 1", "m : 9", "m : 10"]
    assert (found.source, found.split) == ("test-dialogue", "dev")


def test_files_of_dialogues_that_cannot_be_read_are_rejected_by_name(write, tmp_path):
    write(dialogue(1), "test-dialogue/dev_1.txt")
    write("{", "test-dialogue/dev_2.txt")
    write(b"\xff", "test-dialogue/dev_3.txt")
    write([dialogue(4)], "test-dialogue/dev_4.txt")
    assert [str(rejected) for rejected in load_task("dialogue", tmp_path).rejected] == [
        "record 1: dev_2.txt is not JSON: line 1, column 2: Expecting property name enclosed in double quotes.",
        "record 2: dev_3.txt is not UTF-8 text: byte 0 is 0xff.",
        "record 3: a record must be an object; it is an array.",
    ]


def test_a_folder_of_unreadable_dialogues_is_refused_with_the_first_reason(write, tmp_path):
    write("", "test-dialogue/dev_1.txt")
    assert load_error("dialogue", tmp_path) == (
        "test-dialogue has no record that can be read: dev_1.txt is not JSON: line 1, column 1: Expecting value; known "
        "for dialogue: native (dialogue, options); mutual (article, options)."
    )


def test_without_a_source_the_environment_names_it(write, tmp_path, monkeypatch):
    write([GOOD], "sentiment.jsonl")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    assert load_task("sentiment").source == "sentiment.jsonl"
    assert load_task("sentiment", "bundled").source == "bundled"


@pytest.mark.parametrize("value", [None, "", "bundled"])
def test_without_a_source_and_environment_the_bundled_set_is_loaded(monkeypatch, value):
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("WORKBENCH_DATA", value)
    found = load_task("sentiment")
    assert (found.source, found.split) == ("bundled", "bundled")


def test_a_path_may_start_at_home(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write([GOOD], "mine.json")
    assert load_task("sentiment", "~/mine.json").examples == (JOY,)


def test_a_path_may_be_relative_to_the_folder_one_is_in(write, tmp_path, monkeypatch):
    write("sentence\tlabel\nfine\t1\n", "SST-2/dev.tsv")
    monkeypatch.chdir(tmp_path / "SST-2")
    assert load_task("sentiment", ".").source == "SST-2/dev.tsv"
    assert load_task("sentiment", "dev.tsv").split == "dev"


def test_a_missing_bundled_set_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.data.records.resources.files", lambda package: tmp_path)
    sentence = load_error("nli", "bundled")
    assert sentence == "bundled/tasks/nli.jsonl is missing from this installation; install it again."


def test_a_bundled_set_with_an_unusable_record_is_refused(monkeypatch, write, tmp_path):
    (tmp_path / "bundled").mkdir()
    write([GOOD, {"text": "", "positive": True}], "bundled/tasks/sentiment.jsonl")
    monkeypatch.setattr("workbench.data.records.resources.files", lambda package: tmp_path)
    assert load_error("sentiment", "bundled") == "the bundled set of sentiment, record 1: text is empty."


def test_the_tasks_stand_in_the_paper_s_order():
    assert list(TASK_FORMATS) == [
        "reasoning",
        "nli",
        "open_qa",
        "closed_qa",
        "dialogue",
        "summarization",
        "ner",
        "sentiment",
    ]
