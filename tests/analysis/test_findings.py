"""Sentences about curves state the numbers of the curves."""

import pandas as pd
import pytest

from workbench.analysis.findings import describe_changes


def curve(series, *points, **of):
    rows = [{"series": series, "n_edits": n, "value": value} for n, value in points]
    return pd.DataFrame(rows).assign(**{"metric": None, "protocol": None, "moment": None, **of})


def natural(series, n_edits, value, moment):
    score = {"task": "edits", "metric": "reliability", "protocol": "natural", "moment": moment}
    return curve(series, (n_edits, value), **score)


@pytest.fixture
def curves() -> pd.DataFrame:
    """Give two curves of 20 edits, of which the second has no perplexity."""
    smooth = {"task": "open_qa", "metric": "log_likelihood", "protocol": "standard"}
    other = {**smooth, "task": "nli"}
    return pd.concat(
        [
            curve("ROME", (0, 40.0), (10, 41.0), (20, 80.04), task="perplexity", metric="perplexity"),
            curve("ROME", (0, -2.0), (10, -2.5), (20, -3.0), **smooth),
            curve("ROME", (0, -1.0), (20, -1.5), **other),
            natural("ROME", 0, 0.0, "before"),
            natural("ROME", 20, 0.9, "after_edit"),
            natural("ROME", 20, 0.25, "now"),
            natural("RECT", 0, 0.0, "before"),
            natural("RECT", 20, 0.8, "after_edit"),
        ],
        ignore_index=True,
    )


def test_each_curve_is_described_by_its_first_and_last_point(curves):
    first, second = describe_changes(curves).splitlines()
    assert first.startswith("ROME, after 20 edits: perplexity 80.04, from 40; ")
    assert "answers -0.750 nats per token" in first
    assert first.endswith("by itself in 90 % right after the edit and 25 % at the end.")
    assert second == "RECT, after 20 edits: the model gives the new answer by itself in 80 % right after the edit."


def test_without_edits_nothing_is_said(curves):
    assert describe_changes(curves[curves["n_edits"] == 0]) == ""
