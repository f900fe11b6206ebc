"""The folder of slices of the real data sets, one record of each format, and a function that writes files."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.request import EditRequest, LocalityProbe

_BESIDE_THE_REPOSITORY = Path(__file__).parents[2] / ".." / "shared" / "data"

_RECORDS = {
    "native": {
        "relation": "city of a landmark",
        "subject": "The Eiffel Tower",
        "prompt": "{} is located in the city of",
        "target_true": "Paris",
        "target_new": "Rome",
        "rephrase": ["Where is {}? It is in the city of", "The iron tower of the World's Fair stands in"],
        "locality": [{"prompt": "The Louvre is located in the city of", "target": "Paris"}],
    },
    "zsre": {
        "subject": "HMS Beagle",
        "src": "What year was HMS Beagle launched?",
        "pred": "1825",
        "rephrase": "In which year did HMS Beagle first float?",
        "alt": " 1871",
        "answers": ["1820", "11 May 1820"],
        "loc": "nq question: who wrote on the origin of species",
        "loc_ans": "Charles Darwin",
        "cond": "1825 >> 1871 || What year was HMS Beagle launched?",
        "portability": {
            "Recalled Relation": "(1871, century, 19th century)",
            "New Question": "In which half of the 19th century was HMS Beagle launched?",
            "New Answer": "the second ",
        },
    },
    "counterfact": {
        "case_id": 7,
        "pararel_idx": 70,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1860"},
            "target_true": {"str": "French", "id": "Q150"},
            "subject": "Edith Piaf",
        },
        "paraphrase_prompts": ["It rained.\nEdith Piaf, a native", "No one came. Edith Piaf spoke the language"],
        "neighborhood_prompts": ["Victor Hugo is a native speaker of", "The mother tongue of Molière is"],
        "attribute_prompts": ["Jane Austen is a native speaker of"],
        "generation_prompts": ["Edith Piaf was born in"],
    },
    "counterfact-edit": {
        "case_id": 7,
        "prompt": "The mother tongue of Edith Piaf is",
        "target_new": "English",
        "subject": "Edith Piaf",
        "ground_truth": "French",
        "rephrase_prompt": "Where Edith Piaf is from, people speak the language of",
        "locality_prompt": "Victor Hugo is a native speaker of",
        "locality_ground_truth": "French",
    },
    "knowedit": {
        "subject": "Marie Curie",
        "prompt": "The place of birth of Marie Curie is",
        "target_new": "Riga",
        "ground_truth": [["Warsaw", "Warszawa"]],
        "rephrase_prompt": "Where was Marie Curie born?",
        "portability": {
            "Reasoning": [{"prompt": "Marie Curie was born in the country of", "ground_truth": "Latvia"}],
            "Subject_Aliasing": [
                {"prompt": "Skłodowska was born in", "ground_truth": [["Riga", "Rīga", " Riga"], ["", "Latvia"]]}
            ],
        },
        "locality": {
            "Relation_Specificity": [
                {"prompt": "The gender of Marie Curie is", "ground_truth": [["female", "woman"]]},
                {"prompt": "The award Marie Curie won is", "ground_truth": [[], ["Nobel Prize"]]},
            ],
            "Forgetfulness": [{"prompt": "Marie Curie died in", "ground_truth": "Passy"}],
        },
    },
}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of the real slices; without it the test is skipped."""
    folder = Path(os.environ.get("WORKBENCH_TEST_DATA") or _BESIDE_THE_REPOSITORY).resolve()
    if not folder.is_dir():
        pytest.skip("no slices of the real data sets: set WORKBENCH_TEST_DATA to their folder.")
    return folder


@pytest.fixture
def records() -> dict[str, dict]:
    """Return one whole record of each JSON format, by the format's name."""
    return copy.deepcopy(_RECORDS)


@pytest.fixture
def native_request() -> EditRequest:
    """Return the request of the native record, worked out by hand."""
    return EditRequest(
        subject="The Eiffel Tower",
        prompt="{} is located in the city of",
        target_new="Rome",
        target_true="Paris",
        rephrase=("Where is {}? It is in the city of", "The iron tower of the World's Fair stands in"),
        locality=(LocalityProbe("The Louvre is located in the city of", "Paris"),),
        relation="city of a landmark",
    )


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Return a function that writes bytes or a text unchanged, and anything else as JSON."""

    def write(content: object, name: str = "facts.json") -> Path:
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write
