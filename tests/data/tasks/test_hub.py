"""Rows in the form that the hub documents become examples; a hub out of reach is one error sentence.

No test reaches the hub: a data set made here and saved as Parquet replaces the hub's.
"""

import re

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from tests.helpers import error_of
from workbench.data.tasks.conll import HUB_TAGS
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
from workbench.data.tasks.hub import HUB_DATASETS
from workbench.data.tasks.load import load_task
from workbench.errors import DataError

TEXT, NUMBER = Value("string"), Value("int32")
RTE_LABEL, SST2_LABEL = ClassLabel(names=["entailment", "not_entailment"]), ClassLabel(names=["negative", "positive"])
OPTIONS = ["a", "b", "c", "d"]
ROWS = {  # task: features of the data set card, a row, the example worked out by hand
    "reasoning": (
        {"question": TEXT, "answer": TEXT},
        {"question": "2 + 3?", "answer": "2+3=<<2+3=5>>5.\n#### 5"},
        ReasoningExample("2 + 3?", "2+3=5.", "5"),
    ),
    "nli": (
        {"sentence1": TEXT, "sentence2": TEXT, "label": RTE_LABEL, "idx": NUMBER},
        {"sentence1": "It rains.", "sentence2": "It is dry.", "label": 1, "idx": 0},
        NLIExample("It rains.", "It is dry.", False),
    ),
    "open_qa": (
        {"question": TEXT, "answer": List(TEXT)},
        {"question": "who", "answer": ["Ann", "Ann Lee"]},
        OpenQAExample("who", "", ("Ann", "Ann Lee")),
    ),
    "closed_qa": (
        {"question": TEXT, "answer": Value("bool"), "passage": TEXT},
        {"question": "is it", "answer": True, "passage": "It is."},
        ClosedQAExample("is it", "It is.", True),
    ),
    "dialogue": (
        {"answers": TEXT, "options": List(TEXT), "article": TEXT, "id": TEXT},
        {"answers": "C", "options": OPTIONS, "article": "m : hi", "id": "dev_1"},
        DialogueExample("m : hi", ("a", "b", "c", "d"), 2),
    ),
    "summarization": (
        {"id": TEXT, "dialogue": TEXT, "summary": TEXT},
        {"id": "1", "dialogue": "Ann: Hi\r\nBob: Bye", "summary": "Ann meets Bob."},
        SummarizationExample("Ann: Hi\nBob: Bye", "Ann meets Bob."),
    ),
    "ner": (
        {"id": TEXT, "tokens": List(TEXT), "ner_tags": List(ClassLabel(names=list(HUB_TAGS)))},
        {"id": "0", "tokens": ["Ann", "Lee", "left", "Rome"], "ner_tags": [1, 2, 0, 5]},
        NERExample("Ann Lee left Rome", (("PER", "Ann Lee"), ("LOC", "Rome"))),
    ),
    "sentiment": (
        {"sentence": TEXT, "label": SST2_LABEL, "idx": NUMBER},
        {"sentence": "a joy ", "label": 1, "idx": 0},
        SentimentExample("a joy", True),
    ),
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a function that sets what the hub sends and returns the list of calls made to the hub."""
    load_dataset, asked = datasets.load_dataset, []

    def send(features: dict, *rows: dict) -> list:
        path = tmp_path / "sent.parquet"
        Dataset.from_list(list(rows), features=Features(features)).to_parquet(path)

        def from_file(**wanted):
            asked.append(wanted)
            return load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))

        monkeypatch.setattr(datasets, "load_dataset", from_file)
        return asked

    return send


def test_every_task_has_a_data_set_on_the_hub():
    assert HUB_DATASETS.keys() == TASK_FORMATS.keys() == ROWS.keys()


@pytest.mark.parametrize("task", ROWS)
def test_the_hub_s_rows_become_examples(hub, task):
    features, row, example = ROWS[task]
    asked = hub(features, row, row)
    wanted = HUB_DATASETS[task]
    found = load_task(task, "hub")
    assert found.examples == (example, example)
    assert (found.source, found.split, found.rejected) == (wanted.name, wanted.split, ())
    assert asked == [{"path": wanted.repo, "name": wanted.config, "split": wanted.split, "revision": wanted.revision}]


def test_all_but_two_are_pinned_to_a_commit():
    unpinned = {task for task, wanted in HUB_DATASETS.items() if not re.fullmatch("[0-9a-f]{40}", wanted.revision)}
    assert unpinned == {"dialogue", "ner"}


def test_hidden_labels_are_rejected(hub):
    features, row, example = ROWS["nli"]
    hub(features, row, row | {"label": -1})
    found = load_task("nli", "hub")
    assert found.examples == (example,)
    assert [str(rejected) for rejected in found.rejected] == [
        "record 1: label is -1, the mark of a hidden label; take a split with labels."
    ]


@pytest.mark.parametrize(
    ("task", "column", "feature", "shown"),
    [
        ("nli", "label", ClassLabel(names=["no", "yes"]), "no, yes"),
        ("ner", "ner_tags", List(ClassLabel(names=["O", "B-PER", "I-PER", "I-LOC", "I-ORG", "B-X"])), None),
    ],
)
def test_labels_that_are_numbered_otherwise_are_refused(hub, task, column, feature, shown):
    features, row, _ = ROWS[task]
    hub(features | {column: feature}, row)
    with pytest.raises(DataError) as caught:
        load_task(task, "hub")
    wanted = HUB_DATASETS[task]
    assert str(caught.value) == (
        f"{wanted.name} numbers {column} as {shown or 'O, B-PER, I-PER, I-LOC, I-ORG, B-X'}; the reader takes the "
        f"numbers for {', '.join(wanted.label_names)}."
    )


def test_a_hub_out_of_reach_is_one_sentence_that_names_the_cure():
    # HF_HUB_OFFLINE is set for all tests
    assert error_of(DataError, load_task, "reasoning", "hub") == (
        "openai/gsm8k:main@740312add88f781978c0658806c59bc2815b9866 cannot be read (Couldn't reach 'openai/gsm8k' on "
        "the Hub (OfflineModeIsEnabled)); check the connection and HF_HUB_OFFLINE, or give a file or folder of data."
    )
