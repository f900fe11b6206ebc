"""Claims, judged on constructed runs with a known answer."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis import claims
from workbench.analysis.claims import CLAIMS, FAILS, HOLDS, PLAIN, RECT40, UNDECIDED, Claim, Effect, Runs, compare_pairs
from workbench.experiment.store import RESULTS, SCORES

FALL = "Abilities fall as sequential edits accumulate"
EMPTY = Runs(pd.DataFrame(columns=SCORES.names), pd.DataFrame(columns=RESULTS.names))


def rows(values, **more):
    """Return rows of scores, one per example."""
    place = {"trajectory": "u", "model": "m", "method": "ROME", "regularizer": PLAIN, "setting": "sequential-instance"}
    place |= {"facts": "bundled", "batch_size": 1, "seed": 0, "operation": 0, "n_edits": 0, "task": "open_qa"}
    place |= {"metric": "span_match", "protocol": "standard", "source": "bundled", "split": "bundled", "moment": None}
    return pd.DataFrame([{**place, "example": i, "value": v, "weight": 1.0, **more} for i, v in enumerate(values)])


def runs(*parts, **unedited):
    """Return runs in which the unedited model is above chance in open-domain QA."""
    summary = {
        "operation": 0,
        "task": "open_qa",
        "protocol": "standard",
        "metric": "span_match",
        "low": 0.3,
        **unedited,
    }
    return Runs(pd.concat(parts, ignore_index=True), pd.DataFrame([summary | unedited], columns=RESULTS.names))


def judge_claim(found, statement):
    """Return the first row with a statement."""
    table = claims.judge_claims(found)
    return table[table["claim"] == statement].iloc[0]


@pytest.mark.parametrize(
    ("low", "high", "above", "said"),
    [(0.1, 0.2, True, HOLDS), (0.1, 0.2, False, FAILS), (-0.2, -0.1, False, HOLDS), (-0.2, -0.1, True, FAILS)]
    + [(-0.1, 0.1, True, UNDECIDED), (-0.1, 0.1, False, UNDECIDED), (np.nan, np.nan, True, UNDECIDED)],
)
def test_the_interval_decides(low, high, above, said):
    claim = Claim("", "", 0, above, lambda runs: None)
    assert claims.judge(claim, Effect(0.0, low, high, 10)) == said


def test_without_experiments_nothing_is_decided():
    table = claims.judge_claims(EMPTY)
    assert len(table) == len(CLAIMS) >= 14
    assert set(table["verdict"]) == {UNDECIDED}


def test_the_difference_of_pairs_is_that_of_their_means():
    after, before = rows([0, 1, 0, 1, 0] * 2), rows([1, 1, 1, 1, 0] * 2)
    effect = compare_pairs(after, before, lambda a, b: a - b)
    assert effect.value == pytest.approx(-0.4)
    assert effect.low <= -0.4 <= effect.high
    assert effect.n == 10


def test_pairs_are_resampled_together():
    values = np.linspace(0, 1, 50)
    effect = compare_pairs(rows(values - 0.1), rows(values), lambda a, b: a - b)
    assert (effect.low, effect.high) == pytest.approx((-0.1, -0.1))


def test_tasks_count_alike_whatever_their_number_of_examples():
    after = pd.concat([rows([0.0] * 10), rows([1.0] * 2, task="ner", metric="f1")])
    before = pd.concat([rows([1.0] * 10), rows([1.0] * 2, task="ner", metric="f1")])
    assert compare_pairs(after, before, lambda a, b: a - b).value == pytest.approx(-0.5)


def test_a_ratio_of_sums_stays_one():
    after = rows([1.0, 0.0] * 5).assign(weight=[1.0, 3.0] * 5)
    effect = compare_pairs(after, rows([1.0] * 10), lambda a, b: a - b)
    assert effect.value == pytest.approx(0.25 - 1)


def test_scores_without_a_partner_do_not_count():
    assert compare_pairs(rows([0, 1] * 10), rows([0, 1] * 10, seed=1), lambda a, b: a - b) is None
    assert compare_pairs(rows([0, 1] * 10), rows([0, 1] * 6), lambda a, b: a - b).n == 12


def test_a_few_pairs_decide_nothing():
    assert compare_pairs(rows([1.0] * 9), rows([0.0] * 9), lambda a, b: a - b) is None


def test_abilities_that_fall_are_told_apart_from_those_that_rise():
    before = rows([1.0] * 20)
    falling = runs(before, rows([0.0] * 20, operation=20))
    assert judge_claim(falling, FALL)["verdict"] == HOLDS
    rising = runs(rows([0.0] * 20), rows([1.0] * 20, operation=20))
    assert judge_claim(rising, FALL)["verdict"] == FAILS


def test_tasks_at_chance_do_not_count():
    found = runs(rows([1.0] * 20), rows([0.0] * 20, operation=20), low=0.0)
    assert judge_claim(found, FALL)["n"] == 0


def test_rect_is_compared_on_the_same_facts_right_after_their_edits():
    place = {"task": "edits", "metric": "reliability", "protocol": "teacher_forced", "setting": "single-instance"}
    place |= {"moment": "after_edit", "source": None, "operation": 20}
    plain, rect = rows([1.0] * 20, **place), rows([1.0] * 19 + [0.9], regularizer=RECT40, **place)
    found = judge_claim(runs(plain, rect), "RECT 40 % keeps at least 94 % of editing performance")
    assert found["effect"] == pytest.approx(0.995)
    assert found["verdict"] == HOLDS


def test_growth_is_the_factor_per_edit_whatever_the_distance_between_checkpoints():
    place = {"method": "ROME", "setting": "sequential-instance", "regularizer": PLAIN, "facts": "bundled", "seed": 0}
    place |= {"parameter": "w", "metric": "manhattan_distance", "at": np.nan, "task": "weights", "protocol": None}
    table = pd.DataFrame([{**place, "operation": t, "value": v} for t, v in ((1, 10.0), (3, 40.0), (6, 1080.0))])
    found = judge_claim(
        Runs(EMPTY.scores, table.reindex(columns=RESULTS.names)), "The weights move further with every edit"
    )
    assert found["effect"] == pytest.approx(np.sqrt(2 * 3))
    assert found["n"] == 2
