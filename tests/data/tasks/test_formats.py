"""The meaning of the fields of each format, and the reasons why a record is refused."""

import copy

import pytest

from tests.helpers import error_of
from workbench.data.records import find_format, read_record
from workbench.data.tasks.examples import (
    ClosedQAExample,
    DialogueExample,
    NERExample,
    NLIExample,
    OpenQAExample,
    ReasoningExample,
    SentimentExample,
    SummarizationExample,
)
from workbench.data.tasks.formats import TASK_FORMATS
from workbench.errors import DataError

OPTIONS = ["f: Paris.", "f: Rome.", "f: Oslo.", "f: Lima."]
NATIVE_REASONING = {"question": "2 + 3?", "reasoning": "It is 2+3=5.", "answer": "5"}
GSM8K = {"question": "2 + 3?", "answer": "2+3=<<2+3=5>>5 apples,\nso 5.\n#### 5"}
NATIVE_NLI = {"premise": "It rains.", "hypothesis": "It is wet.", "entailment": True}
GLUE = {"index": "7", "sentence1": 'He said "no', "sentence2": "He spoke.", "label": "entailment"}
SUPERGLUE = {"premise": "It rains.", "hypothesis": "It is dry.", "label": "not_entailment", "idx": 3}
NATIVE_OPEN_QA = {"question": "who?", "passage": " Ann did. ", "answers": ["Ann"]}
NQ_OUTPUT = {"question": "who?", "answer": ["Ann", " Ann Lee"], "output": ["\n\nAnn did.\n\nYes."]}
NQ_CONTEXTS = {
    "question": "who",
    "answers": ["Ann"],
    "ctxs": [{"title": "Ann", "text": "She did.", "isgold": True}, {"title": "Bob", "text": "He didn't."}],
}
NQ = {"question": "who", "answer": ["Ann"]}
BOOLQ = {"question": "is it", "title": "It", "answer": False, "passage": "It is not."}
SUPERGLUE_BOOLQ = {"question": "is it", "passage": "It -- It is.", "idx": 0, "label": True}
NATIVE_DIALOGUE = {"dialogue": "m: Where?", "options": OPTIONS, "answer": 3}
MUTUAL = {"answers": "B", "options": OPTIONS, "article": "m: Where?", "id": "dev_1"}
SAMSUM = {"id": "1", "summary": "Ann waits. ", "dialogue": "Ann: Hi\r\nBob: Yo \rAnn: So?\nBob: Bye\r\n"}
NATIVE_NER = {"text": "Ann met Ann in Rome", "entities": [["PER", "Ann"], ["PER", "Ann"], ["LOC", "Rome"]]}
CONLL_HUB = {"id": "0", "tokens": ["EU", "hails", "Ann", "Lee"], "pos_tags": [22, 42, 22, 22], "ner_tags": [3, 0, 1, 2]}
NATIVE_SENTIMENT = {"text": "A joy.", "positive": True}
SST2 = {"sentence": "a joy . ", "label": "1"}
SST2_TEXT = {"text": "a bore", "label": 0, "label_text": "negative"}

READ = [  # task, format, record, example worked out by hand
    ("reasoning", "native", NATIVE_REASONING, ReasoningExample("2 + 3?", "It is 2+3=5.", "5")),
    ("reasoning", "gsm8k", GSM8K, ReasoningExample("2 + 3?", "2+3=5 apples,\nso 5.", "5")),
    ("nli", "native", NATIVE_NLI, NLIExample("It rains.", "It is wet.", True)),
    ("nli", "glue", GLUE, NLIExample('He said "no', "He spoke.", True)),
    ("nli", "superglue", SUPERGLUE, NLIExample("It rains.", "It is dry.", False)),
    ("open_qa", "native", NATIVE_OPEN_QA, OpenQAExample("who?", "Ann did.", ("Ann",))),
    ("open_qa", "nq-output", NQ_OUTPUT, OpenQAExample("who?", "Ann did.\n\nYes.", ("Ann", "Ann Lee"))),
    ("open_qa", "nq-contexts", NQ_CONTEXTS, OpenQAExample("who", "Ann\nShe did.\n\nBob\nHe didn't.", ("Ann",))),
    ("open_qa", "nq", NQ, OpenQAExample("who", "", ("Ann",))),
    ("closed_qa", "boolq", BOOLQ, ClosedQAExample("is it", "It is not.", False)),
    ("closed_qa", "boolq", SUPERGLUE_BOOLQ, ClosedQAExample("is it", "It -- It is.", True)),
    ("dialogue", "native", NATIVE_DIALOGUE, DialogueExample("m: Where?", tuple(OPTIONS), 3)),
    ("dialogue", "mutual", MUTUAL, DialogueExample("m: Where?", tuple(OPTIONS), 1)),
    ("summarization", "samsum", SAMSUM, SummarizationExample("Ann: Hi\nBob: Yo \nAnn: So?\nBob: Bye", "Ann waits.")),
    (
        "ner",
        "native",
        NATIVE_NER,
        NERExample("Ann met Ann in Rome", (("PER", "Ann"), ("PER", "Ann"), ("LOC", "Rome"))),
    ),
    ("ner", "conll-hub", CONLL_HUB, NERExample("EU hails Ann Lee", (("ORG", "EU"), ("PER", "Ann Lee")))),
    (
        "ner",
        "conll-columns",
        {"words": ["EU", "hails"], "tags": ["I-ORG", "O"]},
        NERExample("EU hails", (("ORG", "EU"),)),
    ),
    ("sentiment", "native", NATIVE_SENTIMENT, SentimentExample("A joy.", True)),
    ("sentiment", "sst2", SST2, SentimentExample("a joy .", True)),
    ("sentiment", "sst2-text", SST2_TEXT, SentimentExample("a bore", False)),
]


def read(task: str, record: object) -> object:
    """Read a record in the format that its fields identify."""
    return read_record(find_format(TASK_FORMATS[task], record), record)


def reason(task: str, record: dict, **changed: object) -> str:
    """Return the reason why a changed record is refused; a field changed to ``...`` is left out."""
    record = {field: value for field, value in (copy.deepcopy(record) | changed).items() if value is not ...}
    return error_of(DataError, read, task, record)


@pytest.mark.parametrize(("task", "name", "record", "example"), READ)
def test_a_record_is_identified_by_its_fields_and_read(task, name, record, example):
    before = copy.deepcopy(record)
    assert find_format(TASK_FORMATS[task], record).name == name
    assert read(task, record) == example
    assert record == before


def test_every_format_is_read_above():
    assert {(task, name) for task, name, *_ in READ} == {
        (task, row.name) for task, rows in TASK_FORMATS.items() for row in rows
    }


def test_a_reason_is_a_value_error():
    with pytest.raises(ValueError, match=r"^question is empty\.$"):
        read("reasoning", NATIVE_REASONING | {"question": " "})


@pytest.mark.parametrize("record", [None, 5, [], "text", {}, {"question": "who?"}])
def test_what_has_no_known_fields_has_no_format(record):
    assert all(find_format(formats, record) is None for formats in TASK_FORMATS.values())


def test_a_record_that_is_no_object_is_refused():
    sentence = error_of(DataError, read_record, TASK_FORMATS["nli"][0], ["a"])
    assert sentence == "a record must be an object; it is an array."


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("so.\n#### 2,125", "2125"),
        ("so.\n#### 1,234,567.50", "1234567.50"),
        ("so.\n####-3 ", "-3"),
        ("so #### 4, no.\n#### 5", "5"),
        ("so.\n#### 00", "00"),
    ],
)
def test_the_number_stands_after_the_last_mark_and_loses_its_thousands_commas(answer, number):
    assert read("reasoning", GSM8K | {"answer": answer}).answer == number


def test_every_calculator_note_is_removed_and_nothing_else():
    answer = "2*<<2*3=6>>3=<<2*3=6>>6, 6<7 and 8>7.\nThen <<6+1=7>>7.\n#### 7"
    assert read("reasoning", GSM8K | {"answer": answer}).reasoning == "2*3=6, 6<7 and 8>7.\nThen 7."


@pytest.mark.parametrize(
    ("record", "changed", "sentence"),
    [
        (GSM8K, {"answer": "5"}, "answer has no '####' before its number."),
        (GSM8K, {"answer": "<<1=1>>\n#### 5"}, "answer has no reasoning before '####'."),
        (GSM8K, {"answer": "so\n#### five"}, "the answer after '####' must be a number; it is 'five'."),
        (GSM8K, {"answer": "so\n#### 1,23"}, "the answer after '####' must be a number; it is '1,23'."),
        (GSM8K, {"answer": "so\n####"}, "the answer after '####' must be a number; it is ''."),
        (GSM8K, {"answer": 5}, "answer must be text; it is a number."),
        (GSM8K, {"question": "\n"}, "question is empty."),
        (NATIVE_REASONING, {"answer": 5}, "answer must be text; it is a number."),
        (NATIVE_REASONING, {"answer": "5 apples"}, "answer must be a number; it is '5 apples'."),
        (NATIVE_REASONING, {"reasoning": ""}, "reasoning is empty."),
        (
            NATIVE_REASONING,
            {"question": "\ud83d?"},
            "question '\\ud83d?' holds half a surrogate pair; write the whole character.",
        ),
    ],
)
def test_a_word_problem_without_its_parts_is_refused(record, changed, sentence):
    assert reason("reasoning", record, **changed) == sentence


@pytest.mark.parametrize(
    ("label", "entailment"), [("entailment", True), ("not_entailment", False), (0, True), (1, False)]
)
def test_entailment_is_zero_on_the_hub(label, entailment):
    assert read("nli", GLUE | {"label": label}).entailment is entailment
    assert read("nli", SUPERGLUE | {"label": label}).entailment is entailment


RTE_LABELS = "label must be entailment or not_entailment, or the hub's 0 or 1"


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (-1, "label is -1, the mark of a hidden label; take a split with labels."),
        ("-1", "label is -1, the mark of a hidden label; take a split with labels."),
        (..., f"{RTE_LABELS}; it is missing."),
        (None, f"{RTE_LABELS}; it is null."),
        (2, f"{RTE_LABELS}; it is 2."),
        (0.0, f"{RTE_LABELS}; it is 0.0."),
        (True, f"{RTE_LABELS}; it is true."),
        ("0", f"{RTE_LABELS}; it is '0'."),  # text from some other file: which way round?
        ("neutral", f"{RTE_LABELS}; it is 'neutral'."),
        ([0], f"{RTE_LABELS}; it is an array."),
    ],
)
def test_a_label_of_no_known_meaning_is_refused(label, sentence):
    assert reason("nli", GLUE, label=label) == sentence


@pytest.mark.parametrize(
    ("record", "changed", "sentence"),
    [
        (NATIVE_NLI, {"entailment": 1}, "entailment must be true or false; it is 1."),
        (NATIVE_NLI, {"entailment": "true"}, "entailment must be true or false; it is 'true'."),
        (NATIVE_NLI, {"premise": ""}, "premise is empty."),
        (GLUE, {"sentence2": ""}, "sentence2 is empty."),
        (GLUE, {"sentence1": 4}, "sentence1 must be text; it is a number."),
        (SUPERGLUE, {"hypothesis": None}, "hypothesis must be text; it is null."),
    ],
)
def test_a_pair_without_its_parts_is_refused(record, changed, sentence):
    assert reason("nli", record, **changed) == sentence


@pytest.mark.parametrize("field", ["answer", "output"])
def test_a_list_may_come_as_a_python_literal(field):
    assert read("open_qa", NQ_OUTPUT | {field: repr(NQ_OUTPUT[field])}) == read("open_qa", NQ_OUTPUT)


def test_a_literal_is_never_run(tmp_path):
    path = tmp_path / "made"
    code = f"[open({str(path)!r}, 'w').write('x')]"
    assert reason("open_qa", NQ, answer=code) == "answer must be an array; it is text."
    assert not path.exists()


def test_two_strings_without_a_comma_are_not_taken_for_one():
    # as NumPy prints an array; Python reads 'AnnBob'
    assert reason("open_qa", NQ, answer="['Ann' 'Bob']") == "answer must be an array; it is text."


@pytest.mark.parametrize(
    ("record", "changed", "sentence"),
    [
        (NQ, {"answer": []}, "answer must hold at least one answer and no empty one; it is []."),
        (NQ, {"answer": ["Ann", " "]}, "answer must hold at least one answer and no empty one; it is ['Ann', '']."),
        (NQ, {"answer": "Ann"}, "answer must be an array; it is text."),
        (NQ, {"answer": "[1, 2]"}, "answer must be an array; it is text."),
        (NQ, {"answer": ["Ann", 5]}, "answer[1] must be text; it is a number."),
        (NQ, {"question": ""}, "question is empty."),
        (NQ_OUTPUT, {"output": []}, "output must hold one passage; it holds 0."),
        (NQ_OUTPUT, {"output": ["a", "b"]}, "output must hold one passage; it holds 2."),
        (NQ_OUTPUT, {"output": ["\n\n"]}, "output[0] is empty."),
        (NQ_CONTEXTS, {"ctxs": []}, "ctxs is empty; it must hold at least one passage."),
        (NQ_CONTEXTS, {"ctxs": ["a"]}, "ctxs[0] must be an object; it is text."),
        (NQ_CONTEXTS, {"ctxs": [{"title": "A", "text": " "}]}, "ctxs[0].text is empty."),
        (NQ_CONTEXTS, {"ctxs": [{"text": "a"}]}, "ctxs[0].title must be text; it is missing."),
        (NATIVE_OPEN_QA, {"passage": None}, "passage must be text; it is null."),
    ],
)
def test_a_question_without_its_parts_is_refused(record, changed, sentence):
    assert reason("open_qa", record, **changed) == sentence


@pytest.mark.parametrize(("yes", "no"), [(True, False), (1, 0), ("true", "false"), ("True", "False"), ("1", "0")])
def test_yes_and_no_are_written_in_several_ways(yes, no):
    for record, field in ((BOOLQ, "answer"), (SUPERGLUE_BOOLQ, "label")):
        assert read("closed_qa", record | {field: yes}).answer is True
        assert read("closed_qa", record | {field: no}).answer is False


@pytest.mark.parametrize(
    ("record", "changed", "sentence"),
    [
        (BOOLQ, {"answer": ...}, "answer must be true or false; it is missing."),
        (BOOLQ, {"answer": "maybe"}, "answer must be true or false; it is 'maybe'."),
        (BOOLQ, {"answer": 2}, "answer must be true or false; it is 2."),
        (SUPERGLUE_BOOLQ, {"label": -1}, "label is -1, the mark of a hidden label; take a split with labels."),
        (SUPERGLUE_BOOLQ, {"label": None}, "label must be true or false; it is null."),
        (BOOLQ, {"passage": ""}, "passage is empty."),
    ],
)
def test_a_yes_or_no_question_without_its_parts_is_refused(record, changed, sentence):
    assert reason("closed_qa", record, **changed) == sentence


FOUR = "options must hold four texts that are not empty; it is"


@pytest.mark.parametrize(
    ("record", "changed", "sentence"),
    [
        (MUTUAL, {"answers": "E"}, "answers must be A, B, C or D; it is 'E'."),
        (MUTUAL, {"answers": "b"}, "answers must be A, B, C or D; it is 'b'."),
        (MUTUAL, {"answers": ...}, "answers must be A, B, C or D; it is missing."),
        (MUTUAL, {"options": ["a", "b", "c"]}, f"{FOUR} ['a', 'b', 'c']."),
        (MUTUAL, {"options": ["a", "b", "c", ""]}, f"{FOUR} ['a', 'b', 'c', '']."),
        (MUTUAL, {"options": ["a", "b", "c", None]}, "options[3] must be text; it is null."),
        (MUTUAL, {"article": " "}, "article is empty."),
        (NATIVE_DIALOGUE, {"answer": 4}, "answer must be an integer from 0 to 3; it is 4."),
        (NATIVE_DIALOGUE, {"answer": -1}, "answer must be an integer from 0 to 3; it is -1."),
        (NATIVE_DIALOGUE, {"answer": True}, "answer must be an integer from 0 to 3; it is true."),
        (NATIVE_DIALOGUE, {"answer": "1"}, "answer must be an integer from 0 to 3; it is '1'."),
    ],
)
def test_a_conversation_without_its_parts_is_refused(record, changed, sentence):
    assert reason("dialogue", record, **changed) == sentence


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"summary": " "}, "summary is empty."),
        ({"dialogue": None}, "dialogue must be text; it is null."),  # one such in SAMSum's training split
    ],
)
def test_a_chat_without_its_parts_is_refused(changed, sentence):
    assert reason("summarization", SAMSUM, **changed) == sentence


PAIR = "must be an array of a type (PER, LOC, ORG, MISC) and a surface; it is"
ABSENT = "is not in the text after the preceding entity."


@pytest.mark.parametrize(
    ("record", "changed", "sentence"),
    [
        (NATIVE_NER, {"entities": [["DATE", "Ann"]]}, f"entities[0] {PAIR} ['DATE', 'Ann']."),
        (NATIVE_NER, {"entities": [["PER"]]}, f"entities[0] {PAIR} ['PER']."),
        (
            NATIVE_NER,
            {"entities": [["PER", "Bob"]]},
            f"entities[0] 'Bob' {ABSENT}",
        ),
        (NATIVE_NER, {"entities": [["PER", ""]]}, f"entities[0] '' {ABSENT}"),
        (
            NATIVE_NER,
            {"entities": [["LOC", "Rome"], ["PER", "Ann"]]},
            f"entities[1] 'Ann' {ABSENT}",
        ),
        (NATIVE_NER, {"entities": None}, "entities must be an array; it is null."),
        (CONLL_HUB, {"ner_tags": [9, 0, 1, 2]}, "ner_tags[0] must be an integer from 0 to 8; it is 9."),
        (CONLL_HUB, {"ner_tags": [3, 0, -1, 2]}, "ner_tags[2] must be an integer from 0 to 8; it is -1."),
        (CONLL_HUB, {"ner_tags": [True, 0, 1, 2]}, "ner_tags[0] must be an integer from 0 to 8; it is True."),
        (
            CONLL_HUB,
            {"ner_tags": [3]},
            "a sentence needs words and a tag for each; it has 4 words and 1 tags.",
        ),
    ],
)
def test_a_sentence_without_its_parts_is_refused(record, changed, sentence):
    assert reason("ner", record, **changed) == sentence


@pytest.mark.parametrize(
    ("label", "positive"),
    [(1, True), (0, False), ("1", True), ("0", False), ("positive", True), ("Negative", False)],
)
def test_one_is_positive(label, positive):
    assert read("sentiment", SST2 | {"label": label}).positive is positive
    assert read("sentiment", SST2_TEXT | {"label": label}).positive is positive


@pytest.mark.parametrize(
    ("record", "changed", "sentence"),
    [
        (SST2, {"label": ...}, "label must be negative or positive, or 0 or 1; it is missing."),
        (SST2, {"label": "2"}, "label must be negative or positive, or 0 or 1; it is '2'."),
        (SST2, {"label": -1}, "label is -1, the mark of a hidden label; take a split with labels."),
        (SST2, {"sentence": " "}, "sentence is empty."),
        (NATIVE_SENTIMENT, {"positive": "yes"}, "positive must be true or false; it is 'yes'."),
    ],
)
def test_a_snippet_without_its_parts_is_refused(record, changed, sentence):
    assert reason("sentiment", record, **changed) == sentence
