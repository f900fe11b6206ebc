"""Three to five small records of each of the eight tasks, in files of their own."""

import json
from pathlib import Path

import pytest

SMALL_SETS = {
    "reasoning": [
        {"question": "Ann has 2 cats and 3 dogs. How many pets?", "reasoning": "2 + 3 = 5.", "answer": "5"},
        {"question": "Bo had 9 figs and ate 1. How many are left?", "reasoning": "9 - 1 = 8.", "answer": "8"},
        {"question": "Four cars: how many wheels?", "reasoning": "4 * 4 = 16.", "answer": "16"},
    ],
    "nli": [
        {"premise": "The Louvre is in Paris.", "hypothesis": "Paris has the Louvre.", "entailment": True},
        {"premise": "She worked in Rome.", "hypothesis": "She was born in Rome.", "entailment": False},
        {"premise": "It is very old.", "hypothesis": "It is not new.", "entailment": True},
        {"premise": "He sailed in 1820.", "hypothesis": "He never sailed.", "entailment": False},
    ],
    "open_qa": [
        {"question": "where is the louvre", "passage": "The Louvre is in Paris.", "answers": ["Paris"]},
        {"question": "who sailed the beagle", "passage": "", "answers": ["Charles Darwin", "Darwin"]},
        {"question": "when was it launched?", "passage": "It was launched in 1820.", "answers": ["1820"]},
    ],
    "closed_qa": [
        {"question": "is the louvre in paris", "passage": "The Louvre is in Paris.", "answer": True},
        {"question": "was she born in rome", "passage": "She was born in Warsaw.", "answer": False},
        {"question": "is it old?", "passage": "It is very old.", "answer": True},
    ],
    "dialogue": [
        {
            "dialogue": "m : where is it ? f : in Paris .",
            "options": ["m : oh .", "m : no .", "m : why ?", "m : so far away !"],
            "answer": 3,
        },
        {
            "dialogue": "f : is it old ?",
            "options": ["m : it is very old .", "m : rome .", "m : yes .", "m : 1820 ."],
            "answer": 0,
        },
        {
            "dialogue": "m : hi . f : hi .",
            "options": ["m : bye .", "m : how are you ?", "m : no .", "m : a bridge ."],
            "answer": 1,
        },
    ],
    "summarization": [
        {"dialogue": "Ann: where is it?\nBo: in Paris", "summary": "Ann learns that it is in Paris."},
        {"dialogue": "Bo: I sail north\nAnn: good", "summary": "Bo sails north."},
        {"dialogue": "Ann: it is old\nBo: very", "summary": "They find it very old."},
    ],
    "ner": [
        {"text": "Marie Curie worked in France .", "entities": [["PER", "Marie Curie"], ["LOC", "France"]]},
        {"text": "It rained .", "entities": []},
        {"text": "The Polish team met Siemens .", "entities": [["MISC", "Polish"], ["ORG", "Siemens"]]},
    ],
    "sentiment": [
        {"text": "a charming journey .", "positive": True},
        {"text": "very old jokes .", "positive": False},
        {"text": "i think that it is good .", "positive": True},
        {"text": "it is not good .", "positive": False},
        {"text": "see it !", "positive": True},
    ],
}


@pytest.fixture(scope="session")
def small_sets(tmp_path_factory) -> Path:
    """Give a folder with a file for each task; read-only."""
    folder = tmp_path_factory.mktemp("small-sets")
    for task, records in SMALL_SETS.items():
        lines = [json.dumps(record) + "\n" for record in records]
        (folder / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def set_sizes() -> dict[str, int]:
    """Give the number of records of each task in `small_sets`."""
    return {task: len(records) for task, records in SMALL_SETS.items()}
