"""Retention by age, against a hand-made sequence."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis.retention import retention_by_age


def scores_of(trajectory, values, *, operation, batch_size=1):
    place = {"trajectory": trajectory, "method": "ROME", "regularizer": "Unregularized", "facts": "bundled"}
    place |= {"setting": "sequential-instance", "batch_size": batch_size, "operation": operation, "task": "edits"}
    place |= {"moment": "now", "metric": "reliability", "protocol": "natural"}
    return pd.DataFrame([{**place, "example": i, "value": value} for i, value in enumerate(values)])


def test_the_age_of_a_fact_is_the_number_of_operations_since_its_own():
    table = retention_by_age(scores_of("a", [0.0, 0.5, 1.0], operation=3), width=1)
    assert table["age"].tolist() == [0, 1, 2]
    assert table["value"].tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(table["low"]).all()  # one trajectory has no spread


def test_facts_of_a_batch_have_the_same_age():
    table = retention_by_age(scores_of("a", [0.0, 1.0, 1.0, 1.0], operation=2, batch_size=2), width=1)
    assert table["value"].tolist() == [1.0, 0.5]
    assert table["n"].tolist() == [2, 2]


def test_ages_are_grouped_and_trajectories_are_the_unit():
    first, second = (scores_of(name, values, operation=4) for name, values in (("a", [0, 0, 1, 1]), ("b", [1] * 4)))
    table = retention_by_age(pd.concat([first, second]), width=2)
    assert table["age"].tolist() == [0.5, 2.5]
    assert table["value"].tolist() == [1.0, 0.5]
    assert table["trajectories"].tolist() == [2, 2]
    half = 12.706204736432095 * np.std([0, 1], ddof=1) / np.sqrt(2)  # t quantile 0.975, one degree of freedom
    assert table["high"].iloc[1] == pytest.approx(0.5 + half)


def test_facts_right_after_their_own_edits_are_not_counted():
    rows = scores_of("a", [0.0, 1.0], operation=2)
    table = retention_by_age(pd.concat([rows, rows.assign(moment="after_edit", value=7)]), width=1)
    assert table["value"].max() == 1
