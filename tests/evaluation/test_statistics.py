"""Bootstrap intervals, compared with a plain implementation and the normal approximation."""

import math

import numpy as np
import pandas as pd
import pytest

from workbench.evaluation.statistics import bootstrap_interval, summarize, weighted_mean


def values_of(n, *, seed=0):
    return np.random.default_rng(seed).gamma(2.0, size=n)


def test_the_interval_is_the_normal_one_for_many_values():
    values = values_of(400)
    low, high = bootstrap_interval(values)
    error = values.std() / math.sqrt(400)
    # 2000 resamples place a 2.5 % quantile to about 0.06 standard errors
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_the_interval_is_that_of_a_plain_bootstrap_for_few_values():
    values, means = [0.0, 0.0, 1.0, 1.0, 1.0, 0.25], []
    rng = np.random.default_rng(123)
    for _ in range(20_000):
        means.append(sum(values[i] for i in rng.integers(0, 6, size=6)) / 6)
    means.sort()
    low, high = bootstrap_interval(np.array(values))
    assert low == pytest.approx(means[500], abs=0.05)
    assert high == pytest.approx(means[19_500], abs=0.05)


def test_half_the_confidence_gives_the_quartiles():
    values = values_of(400)
    error = values.std() / math.sqrt(400)
    low, high = bootstrap_interval(values, confidence=0.5)
    assert (high - low) / 2 == pytest.approx(0.6745 * error, abs=0.1 * error)


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_the_interval_contains_the_mean(n):
    for seed in range(10):
        values = values_of(n, seed=seed)
        low, high = bootstrap_interval(values)
        assert low < values.mean() < high


def test_the_interval_of_proportions_stays_within_them():
    low, high = bootstrap_interval(np.array([1.0] * 9 + [0.0]))
    assert 0 <= low < 0.9 < high <= 1


def test_the_seed_decides_the_interval():
    values = values_of(30)
    np.random.seed(1)  # the global state has no say
    first = bootstrap_interval(values, seed=3)
    np.random.seed(2)
    assert bootstrap_interval(values, seed=3) == first
    assert bootstrap_interval(values, seed=4) != first


def test_equal_values_give_a_point():
    assert bootstrap_interval(np.array([0.3] * 7)) == (pytest.approx(0.3), pytest.approx(0.3))


@pytest.mark.parametrize("values", [[], [0.5]])
def test_fewer_than_two_values_have_no_interval(values):
    assert all(math.isnan(end) for end in bootstrap_interval(np.array(values)))


def test_summary_keeps_order_and_counts():
    scores = pd.DataFrame(
        [("z", "x", 1.0), ("a", "x", 0.0), ("z", "x", 0.0), ("z", "b", 1.0), ("a", "x", 1.0), ("z", "x", 0.5)],
        columns=["metric", "protocol", "value"],
    )
    table = summarize(scores, ["metric", "protocol"], seed=2)
    assert list(table.columns) == ["metric", "protocol", "value", "n", "low", "high"]
    assert table[["metric", "protocol", "value", "n"]].to_numpy().tolist() == [
        ["z", "x", 0.5, 3],
        ["a", "x", 0.5, 2],
        ["z", "b", 1.0, 1],
    ]
    assert (table["low"][0], table["high"][0]) == bootstrap_interval(np.array([1.0, 0.0, 0.5]), seed=2)
    assert math.isnan(table["low"][2])


def test_summary_by_one_column():
    table = summarize(pd.DataFrame({"task": ["nli", "nli"], "value": [0.0, 1.0]}), ["task"])
    assert table[["task", "value", "n"]].to_numpy().tolist() == [["nli", 0.5, 2]]


def test_an_empty_summary_has_its_columns():
    table = summarize(pd.DataFrame(columns=["metric", "value"]), ["metric"])
    assert list(table.columns) == ["metric", "value", "n", "low", "high"]
    assert len(table) == 0


def test_equal_weights_are_no_weights():
    values = values_of(30)
    for weight in (1.0, 7.5):
        weighted = bootstrap_interval(values, weights=np.full(30, weight), seed=3)
        assert weighted == pytest.approx(bootstrap_interval(values, seed=3), rel=1e-12)
        assert weighted_mean(values, np.full(30, weight)) == pytest.approx(values.mean(), rel=1e-12)


def test_the_weighted_interval_is_that_of_a_plain_bootstrap_of_ratios():
    tops, bottoms, ratios = [1, 0, 5, 2, 9, 1], [2, 4, 6, 2, 10, 8], []
    rng = np.random.default_rng(123)
    for _ in range(20_000):
        drawn = rng.integers(0, 6, size=6)
        ratios.append(sum(tops[i] for i in drawn) / sum(bottoms[i] for i in drawn))
    ratios.sort()
    low, high = bootstrap_interval(np.divide(tops, bottoms), weights=np.array(bottoms))
    assert low == pytest.approx(ratios[500], abs=0.03)
    assert high == pytest.approx(ratios[19_500], abs=0.03)


def test_a_value_without_weight_never_counts():
    values, weights = np.array([0.2, 0.4, 1e9, 0.6, -1e9]), np.array([1.0, 2.0, 0.0, 1.0, 0.0])
    others = np.array([0.2, 0.4, -5.0, 0.6, 77.0])
    assert weighted_mean(values, weights) == pytest.approx((0.2 + 2 * 0.4 + 0.6) / 4)
    assert bootstrap_interval(values, weights=weights) == bootstrap_interval(others, weights=weights)
    low, high = bootstrap_interval(values, weights=weights)
    assert 0.2 <= low <= high <= 0.6


def test_the_mean_weighted_by_denominators_is_the_ratio_of_sums():
    tops, bottoms = np.array([1.0, 0.0, 5.0, 0.0]), np.array([2.0, 4.0, 6.0, 0.0])
    ratios = np.array([0.5, 0.0, 5 / 6, 0.0])
    assert weighted_mean(ratios, bottoms) == pytest.approx(tops.sum() / bottoms.sum()) == 0.5
    scores = pd.DataFrame({"metric": "f1", "value": ratios, "weight": bottoms})
    table = summarize(scores, ["metric"], seed=2)
    assert table["value"].tolist() == [pytest.approx(6 / 12)]
    assert table["n"].tolist() == [4]
    assert (table["low"][0], table["high"][0]) == bootstrap_interval(ratios, weights=bottoms, seed=2)


def test_every_group_uses_the_weights_of_its_rows():
    scores = pd.DataFrame({"metric": ["a", "b", "a", "b"], "value": [0.0, 0.0, 1.0, 1.0], "weight": [3, 1, 1, 3]})
    assert summarize(scores, ["metric"])["value"].tolist() == [pytest.approx(1 / 4), pytest.approx(3 / 4)]


def test_means_are_over_the_last_axis_and_nan_where_no_value_has_weight():
    values, weights = np.array([[1.0, 3.0], [5.0, 6.0]]), np.array([[3.0, 1.0], [0.0, 0.0]])
    first, second = weighted_mean(values, weights)
    assert first == pytest.approx(1.5)
    assert math.isnan(second)


@pytest.mark.filterwarnings("error")
def test_where_no_value_has_weight_there_is_neither_mean_nor_interval_nor_warning():
    table = summarize(pd.DataFrame({"metric": "f1", "value": [0.0, 0.0], "weight": [0.0, 0.0]}), ["metric"])
    assert table["n"].tolist() == [2]
    assert table[["value", "low", "high"]].isna().all(axis=None)


@pytest.mark.filterwarnings("error")
def test_resamples_that_draw_no_weight_are_left_out():
    # a quarter of the resamples of two draw the one without weight twice
    assert bootstrap_interval(np.array([0.5, 0.0]), weights=np.array([4.0, 0.0])) == (0.5, 0.5)
