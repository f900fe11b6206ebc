"""Two sources of facts, on tables worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from tests.analysis.units_tables import units_of
from workbench.analysis.other_data import compare_sources, describe_sources, summarize_sources


def units(n=5):
    parts = []
    for source, texts in (
        ("bundled", [-1.0, -2.0, -3.0, -2.0, -2.0]),
        ("counterfact.json", [-3.0, -5.0, -4.0, -4.0, -4.0]),
    ):
        plain = [{"text": text, "reliability": 1.0} for text in texts[:n]]
        rect = [{"text": text / 2, "reliability": 0.5} for text in texts[:n]]
        parts.append(units_of({"Unregularized": plain, "RECT 40 %": rect}, facts=source))
    return pd.concat(parts, ignore_index=True)


def test_sources_are_compared_by_welchs_interval():
    compared = compare_sources(units(), reference="bundled")
    row = compared[(compared["comparison"] == "other facts") & (compared["score"] == "text")].iloc[0]
    # both have variance 1/2: the error is √(2 · (1/2) / 5) and the degrees of freedom are 8
    half = 2.306004135204166 * np.sqrt(0.2)
    assert row[["value", "low", "high"]].tolist() == pytest.approx([-2, -2 - half, -2 + half])
    assert (row["facts"], row["units"]) == ("counterfact.json", 5)


def test_rect_is_compared_with_the_same_sequences_without_it():
    compared = compare_sources(units(), reference="bundled")
    rect = compared[(compared["comparison"] == "RECT 40 %") & (compared["score"] == "text")].set_index("facts")
    half = 2.7764451051977987 * np.std([0.5, 1, 1.5, 1, 1], ddof=1) / np.sqrt(5)
    assert rect.loc["bundled", ["value", "high"]].tolist() == pytest.approx([1.0, 1.0 + half])
    assert rect.loc["counterfact.json", "value"] == pytest.approx(2.0)


def test_scores_that_were_not_measured_are_left_out():
    assert set(summarize_sources(units())["score"]) == {"reliability", "text"}


def test_the_first_line_is_about_the_other_facts():
    first, *others = describe_sources(
        summarize_sources(units()), compare_sources(units(), reference="bundled")
    ).splitlines()
    assert first.startswith(
        "counterfact.json, ROME, facts edited: 5; reliability +1.000, text -4.000 (-4.878 to -3.122); 95 % "
    )
    assert first.endswith("intervals over 5 edit sequences.")
    assert others[0].startswith("bundled, ROME, facts edited: 5; ")
    assert len(others) == 4


def test_few_sequences_decide_nothing():
    table = units(1)
    first = describe_sources(summarize_sources(table), compare_sources(table, reference="bundled")).splitlines()[0]
    assert first.endswith("text -3.000; 1 edit sequence is not enough for a statement, 5 are.")
