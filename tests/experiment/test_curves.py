"""Curves: means over seeds with Student's interval, and a single seed's own interval."""

import math

import pandas as pd
import pytest

from workbench.experiment.curves import OVER_EXAMPLES, OVER_SEEDS, abilities_and_perplexity, over_seeds

PLACE = {"method": "ROME", "setting": "sequential-instance", "batch_size": 1, "task": "nli", "protocol": "standard"}


def row(seed, value, *, operation=5, regularizer="Unregularized", metric="choice_accuracy", **more):
    place = {"source": "bundled", "split": "bundled", "moment": None, "parameter": None, "at": None, **PLACE}
    where = {"seed": seed, "operation": operation, "n_edits": operation, "regularizer": regularizer, "metric": metric}
    return {**place, **where, "value": value, "n": 40, "low": value - 0.1, "high": value + 0.1, **more}


def test_several_seeds_give_their_mean_and_students_interval():
    [found] = over_seeds(pd.DataFrame([row(0, 0.2), row(1, 0.4), row(2, 0.6)])).itertuples()
    half = 4.302653 * 0.2 / math.sqrt(3)  # t of 97.5 % with two degrees of freedom; the standard deviation is 0.2
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.4 - half, 0.4 + half))
    assert (found.seeds, found.spread, found.n) == (3, OVER_SEEDS, 40)


def test_one_seed_keeps_its_own_interval():
    [found] = over_seeds(pd.DataFrame([row(0, 0.2)])).itertuples()
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.1, 0.3))
    assert (found.seeds, found.spread) == (1, OVER_EXAMPLES)


def test_what_differs_in_more_than_its_seed_is_kept_apart():
    rows = [row(0, 0.2), row(1, 0.4), row(0, 0.5, operation=10), row(0, 0.3, regularizer="RECT 40 %")]
    assert list(over_seeds(pd.DataFrame(rows))["seeds"]) == [2, 1, 1]


def test_the_score_that_stands_for_a_task_is_drawn_and_no_other():
    rows = [row(0, 0.2), row(0, 0.9, metric="valid_rate"), row(0, 30.0, task="perplexity", metric="perplexity")]
    abilities, perplexities = abilities_and_perplexity(over_seeds(pd.DataFrame(rows)))
    assert list(abilities["metric"]) == ["choice_accuracy"]
    assert list(abilities["title"]) == ["NLI"]
    assert list(abilities["floor"]) == [0.5]
    assert list(perplexities["value"]) == [30.0]
