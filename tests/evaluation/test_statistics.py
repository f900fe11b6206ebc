"""Intervals: the coverage of each by simulation, and the bootstrap compared with a plain implementation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workbench.evaluation.statistics import (
    bootstrap_interval,
    bounded_interval,
    proportion_interval,
    score_interval,
    student_interval,
    summarize,
    weighted_mean,
)

TAIL_OF_SIX = 0.00246  # Φ(t √(6 / 5)) for Student's 2.5 % quantile with five degrees of freedom, −2.5706

TRIALS = 1500  # per distribution: a coverage of 0.95 falls below 0.93 once in three thousand


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
    assert low == pytest.approx(means[round(20_000 * TAIL_OF_SIX)], abs=0.05)
    assert high == pytest.approx(means[round(20_000 * (1 - TAIL_OF_SIX))], abs=0.05)


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


def test_equal_values_have_the_exact_bound_and_outside_a_known_range_none():
    # a share s of other values is missed by seven draws with probability (1 − s)^7 = 2.5 %
    share = 1 - 0.025 ** (1 / 7)
    low, high = bootstrap_interval(np.array([0.3] * 7))
    assert low <= 0.3 - share * 0.3 < 0.3 + share * 0.7 <= high
    assert np.isnan(bootstrap_interval(np.array([7.0] * 7))).all()
    assert np.isnan(student_interval(np.array([7.0] * 7))).all()
    assert np.isnan(student_interval(np.array([7.0]))).all()


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
    assert (table["low"][0], table["high"][0]) == bounded_interval(np.array([1.0, 0.0, 0.5]))
    assert (table["low"][1], table["high"][1]) == proportion_interval(np.array([0.0, 1.0]))
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
    assert low == pytest.approx(ratios[round(20_000 * TAIL_OF_SIX)], abs=0.03)
    assert high == pytest.approx(ratios[round(20_000 * (1 - TAIL_OF_SIX))], abs=0.03)


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
    # a twenty-seventh of the resamples of three draw the one without weight each time
    low, high = bootstrap_interval(np.array([0.5, 0.25, 0.0]), weights=np.array([4.0, 4.0, 0.0]))
    assert (low, high) == (0.25, 0.5)


def test_the_interval_of_zeros_and_ones_is_that_of_an_exact_test():
    for k, n in ((0, 20), (3, 20), (20, 20), (1, 2)):
        exact = stats.binomtest(k, n).proportion_ci(method="exact")
        found = score_interval(np.array([1.0] * k + [0.0] * (n - k)))
        assert found == pytest.approx((exact.low, exact.high))


def test_twenty_of_twenty_is_not_certain():
    assert score_interval(np.ones(20)) == pytest.approx((0.025 ** (1 / 20), 1.0))


@pytest.mark.parametrize("n", [2, 3, 12, 50])
def test_no_interval_of_scores_is_a_point_and_each_contains_the_mean(n):
    rng = np.random.default_rng(n)
    cases = [
        np.zeros(n),
        np.ones(n),
        np.full(n, 0.3),
        rng.random(n),
        np.append(np.ones(n - 1), 0.9),
        rng.beta(9, 0.1, n),
    ]
    for values in cases:
        low, high = score_interval(values)
        assert 0 <= low <= values.mean() + 1e-12
        assert values.mean() - 1e-12 <= high <= 1
        assert high - low > 0.01
        weighted = score_interval(values, weights=1.0 + np.arange(n))
        assert weighted[1] > weighted[0]


def test_scores_without_weight_do_not_count_for_the_interval():
    values, weights = np.array([1.0, 0.0, np.nan, 1.0]), np.array([1.0, 1.0, 0.0, 1.0])
    assert score_interval(values, weights=weights) == proportion_interval(np.array([1.0, 0.0, 1.0]))


def test_scores_outside_zero_to_one_have_students_interval():
    values = np.array([-2.0, -3.0, -2.5, -4.0])
    half = 3.182446 * values.std(ddof=1) / 2
    assert score_interval(values) == pytest.approx((values.mean() - half, values.mean() + half))


def score_distributions(rng, size):
    """Yield samples (experiments, n) of scores in [0, 1], with their mean."""
    for p in (0.005, 0.02, 0.1, 0.5, 0.9, 0.99):
        rare = rng.random(size) < p
        yield rare * 1.0, p  # zeros and ones
        yield rare * rng.random(size), p / 2  # mostly 0
        yield np.where(rare, 1.0, 2 / 3), 2 / 3 + p / 3  # one probe of three fails
        yield rng.binomial(3, p, size) / 3, p
    for a, b in ((0.2, 0.02), (0.5, 0.5), (0.1, 0.1), (2, 5), (0.3, 3), (8, 1)):
        yield rng.beta(a, b, size), a / (a + b)


def difference_distributions(rng, size):
    """Yield samples (experiments, n) of differences in [−1, 1], with their mean."""
    for p in (0.005, 0.02, 0.1, 0.3):
        for worse in (1.0, 0.5):
            changed, falls = rng.random(size) < p, rng.random(size) < worse
            signs = np.where(falls, -1.0, 1.0) * changed
            yield signs, p * (1 - 2 * worse)
            yield signs * rng.random(size), p * (1 - 2 * worse) / 2


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 40])
def test_intervals_of_scores_cover_the_mean(n):
    seen = 0
    for samples, mean in score_distributions(np.random.default_rng(n), (TRIALS, n)):
        ends = np.array([score_interval(values) for values in samples])
        assert ((ends[:, 0] <= mean) & (mean <= ends[:, 1])).mean() >= 0.93
        seen += 1
    assert seen == 30


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 40])
def test_intervals_of_differences_cover_the_mean(n):
    seen = 0
    for samples, mean in difference_distributions(np.random.default_rng(n), (TRIALS, n)):
        ends = np.array([bounded_interval(values, lowest=-1.0) for values in samples])
        assert ((ends[:, 0] <= mean) & (mean <= ends[:, 1])).mean() >= 0.93
        seen += 1
    assert seen == 16
