"""The session that docs/tutorials/explore.md shows runs."""

from pathlib import Path

import pytest

import workbench as wb
from tests.pages import code_blocks

DOCS = Path(__file__).parents[2] / "docs" / "tutorials" / "explore.md"


@pytest.mark.slow
def test_the_session_of_the_docs_edits_regularizes_and_undoes(smollm2, monkeypatch):
    monkeypatch.setattr(wb, "load", lambda name: smollm2)
    [code] = [block for block in code_blocks(DOCS, "python") if "Session(" in block]
    names = {}
    exec(code, names)
    assert names["session"].edits == ()
    assert smollm2.applied_updates == ()
    first = names["answers"][0]
    new = first.probe.target
    assert first.after.probabilities[new] > 10 * first.before.probabilities[new]
    assert len(names["history"]) == 1
