"""Facts, an editor with few steps, and small task files."""

import json
from pathlib import Path

import pytest

import workbench as wb
from tests.evaluation.conftest import SMALL_SETS
from workbench.explorer.session import Session

FACT = wb.EditRequest(
    subject="The Eiffel Tower",
    prompt="I think that {} is located in the city of",
    target_new="Rome, Italy",
    target_true="Paris",
    rephrase=("You may ask where {} is. It is in", "{} stands in"),
    locality=(
        wb.LocalityProbe("The Louvre is located in the city of", "Paris"),
        wb.LocalityProbe("The mother tongue of Edith Piaf is", "French"),
    ),
)
SECOND = wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English")
THIRD = wb.EditRequest(subject="Marie Curie", prompt="In France {} spoke", target_new="Polish")
CONTEXTS = ("{}", "The river. {}")
EDITOR = wb.ROME(layer=1, v_num_grad_steps=4, contexts=CONTEXTS)


@pytest.fixture
def session(tiny_lm) -> Session:
    """Give a session with a fresh tiny model, without edits."""
    return Session(tiny_lm)


@pytest.fixture
def edited(session) -> Session:
    """Give a session with one edit."""
    session.edit(FACT, EDITOR)
    return session


@pytest.fixture
def small_tasks(tmp_path_factory, monkeypatch) -> Path:
    """Give a folder with a small file for each task, set as the data folder."""
    folder = tmp_path_factory.mktemp("tasks")
    for task, records in SMALL_SETS.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setenv("WORKBENCH_DATA", str(folder))
    return folder
