"""How well an assessed risk tells the edits that break a model, on tables worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis.risk import assessed_edits, judge_assessment


def operations(**columns):
    given = {
        **{"trajectory": "a", "model": "m", "method": "ROME", "facts": "hard", "regularizer": "Unregularized"},
        **{"setting": "sequential-instance", "operation": [1, 2, 3], "subject": ["x", "y", "z"], "first_token": False},
        **{"norm": [1.0, 2.0, 3.0], "relative_norm": [0.1, 0.2, 0.3], "spectral_ratio": 1.0, "denominator": 2.0},
        **{"perplexity_unedited": 40.0, "perplexity": [44.0, 88.0, np.nan], "probe_kl": [0.01, 0.9, 0.3]},
    }
    return pd.DataFrame(given | columns)


def test_the_damage_of_an_edit_in_a_sequence_is_its_own():
    edits = assessed_edits(operations()).sort_values("operation")
    assert edits["factor"].iloc[:2].tolist() == pytest.approx([1.1, 2.0])
    assert edits["broke"].tolist() == [False, True, True]  # a perplexity that is no number counts as broken


def test_edits_under_a_regularizer_and_those_without_an_assessment_are_left_out():
    assert len(assessed_edits(operations(regularizer=["RECT 40 %", "Unregularized", "Unregularized"]))) == 2
    assert len(assessed_edits(operations(probe_kl=[0.1, np.nan, np.nan]))) == 1
    assert len(assessed_edits(operations(perplexity_unedited=np.nan))) == 0


def test_shares_and_the_area_under_the_curve_are_those_of_counting():
    edits = pd.DataFrame({"model": "m", "broke": [True, True, False, False], "probe_kl": [0.9, 0.1, 0.15, 0.01]})
    [row] = judge_assessment(edits, limit=0.2).to_dict("records")
    assert (row["edits"], row["broke"], row["caught"], row["false_alarms"]) == (4, 2, 0.5, 0.0)
    assert row["auc"] == 3 / 4
    assert (row["false_alarms_low"], row["false_alarms_high"]) == (0.0, pytest.approx(1 - 0.025**0.5))


def test_where_nothing_broke_there_is_no_area():
    [row] = judge_assessment(pd.DataFrame({"model": "m", "broke": [False], "probe_kl": [0.1]})).to_dict("records")
    assert np.isnan([row["auc"], row["caught"]]).all()
    assert judge_assessment(pd.DataFrame({"model": [], "broke": [], "probe_kl": []})).empty
