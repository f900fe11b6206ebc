"""Effects: coverage of the intervals over sequences and examples by simulation; ratios; exponents."""

import numpy as np
import pytest
from scipy import stats

from workbench.analysis.effects import crossed_effect, fit_exponent, mean_effect, nested_effect, ratio_effect
from workbench.analysis.published import TABLE1


def coverage(effects, truth):
    return np.mean([effect.low <= truth <= effect.high for effect in effects])


@pytest.mark.parametrize(("n_sequences", "of_sequence", "of_example"), [(5, 0.1, 0.1), (5, 0.2, 0.0), (8, 0.02, 0.2)])
def test_the_interval_covers_new_sequences_and_new_examples(n_sequences, of_sequence, of_example):
    rng, effects, shape = np.random.default_rng(0), [], (n_sequences, 30)
    for _ in range(2000):
        a, b = rng.normal(0, of_sequence, (n_sequences, 1)), rng.normal(0, of_example, (1, 30))
        effects.append(crossed_effect([a + b - 0.1 + rng.normal(0, 0.2, shape)]))
    assert coverage(effects, -0.1) >= 0.93


def test_the_interval_covers_differences_of_zeros_and_ones_after_rare_collapses():
    # one sequence in three collapses, which loses the examples that the unedited model can do
    rng, effects = np.random.default_rng(1), []
    for _ in range(2000):
        known, collapsed = rng.random((1, 40)) < 0.6, rng.random((8, 1)) < 1 / 3
        effects.append(crossed_effect([-1.0 * (known & collapsed)], limits=(-1, 1)))
    assert coverage(effects, -0.2) >= 0.93


def test_a_bootstrap_over_examples_alone_would_not_cover():
    rng, covered = np.random.default_rng(2), []
    for _ in range(1000):
        values = rng.normal(0, 0.2, (5, 1)) + rng.normal(0, 0.2, (5, 30))
        means = values.mean(axis=0)
        covered.append(abs(means.mean()) <= 1.96 * means.std(ddof=1) / 30**0.5)
    assert np.mean(covered) < 0.6


def test_sequences_that_differ_widen_the_interval_whatever_the_number_of_examples():
    # the fall of ROME over three draws of facts
    falls = np.array([-0.20, -0.03, -0.21])
    effect = crossed_effect([np.repeat(falls[:, None], 5000, axis=1)], limits=(-1, 1))
    half = 4.302653 * falls.std(ddof=1) / 3**0.5
    assert effect.value == pytest.approx(-0.44 / 3)
    assert (effect.low, effect.high) == pytest.approx((-0.44 / 3 - half, -0.44 / 3 + half), rel=1e-3)
    assert effect.low < 0 < effect.high
    assert effect.trajectories == 3


def test_tasks_count_alike_whatever_their_number_of_examples():
    parts = [np.full((6, 100), -1.0), np.zeros((6, 10))]
    assert crossed_effect(parts).value == pytest.approx(-0.5)


def test_one_sequence_has_no_interval():
    effect = crossed_effect([np.arange(6.0).reshape(1, 6)], limits=(-10, 10))
    assert effect.value == 2.5
    assert np.isnan([effect.low, effect.high]).all()


def test_sequences_that_all_agree_leave_the_exact_bound():
    # zero against zero after a collapse: five of five equal pairs of sequences exclude no difference below 0.52
    effect = crossed_effect([np.zeros((5, 50))], limits=(-1, 1))
    assert effect.high >= 1 - 0.025 ** (1 / 5) - 1e-12
    assert effect.low <= -(1 - 0.025 ** (1 / 5)) + 1e-12


def test_facts_of_one_batch_are_not_independent():
    rng = np.random.default_rng(3)
    batches = [np.full(50, shift) + rng.normal(0, 0.01, 50) for shift in (0.0, -0.3, -0.1, 0.1, -0.2)]
    means = np.array([batch.mean() for batch in batches])
    half = stats.t.ppf(0.975, 4) * means.std(ddof=1) / 5**0.5
    effect = nested_effect(batches, limits=(-1, 1))
    assert (effect.low, effect.high) == pytest.approx((means.mean() - half, means.mean() + half))
    assert (effect.trajectories, effect.n) == (5, 250)


def test_single_edits_that_all_agree_leave_the_exact_bound():
    effect = nested_effect([np.zeros(1)] * 20, limits=(-1, 1))
    assert effect.low <= -(1 - 0.025 ** (1 / 20)) + 1e-12
    assert effect.high >= 1 - 0.025 ** (1 / 20) - 1e-12


@pytest.mark.slow
def test_the_interval_of_a_ratio_covers_it():
    rng, effects = np.random.default_rng(4), []
    for _ in range(1000):
        plain = rng.beta(4, 2, 30)
        kept = plain * (rng.random(30) < 0.9)

        def at(rho, first=kept, second=plain):
            return nested_effect([np.array([d]) for d in first - rho * second], limits=(-rho, 1.0))

        effects.append(ratio_effect(at, kept.mean() / plain.mean()))
    assert coverage(effects, 0.9) >= 0.93
    assert all(0 <= effect.low < effect.value < effect.high for effect in effects)


def test_a_ratio_to_almost_nothing_has_no_upper_end():
    def at(rho):
        return nested_effect(
            [np.array([d]) for d in np.tile([0.4, 0.6], 10) - rho * np.array([0.1] + [0.0] * 19)], limits=(-rho, 1)
        )

    assert ratio_effect(at, 100.0).high == np.inf


def test_the_mean_of_sequences_has_students_interval():
    effect = mean_effect(np.array([0.6, 0.7, 0.8]))
    half = 4.302653 * 0.1 / 3**0.5
    assert (effect.value, effect.low, effect.high) == pytest.approx((0.7, 0.7 - half, 0.7 + half))


def test_the_exponent_is_that_of_a_power_law():
    t = np.array([1.0, 5.0, 10.0, 15.0])
    assert fit_exponent(t, 9000 * t**0.5) == pytest.approx(0.5)
    assert fit_exponent(np.append(0.0, t), np.append(0.0, 3 * t)) == pytest.approx(1)
    assert np.isnan(fit_exponent(t[:2], t[:2]))


def test_the_papers_table_1_grows_with_the_power_of_0_73():
    x, y = np.log(TABLE1["n_edits"]), np.log(TABLE1["manhattan_distance"])
    naive = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    found = fit_exponent(TABLE1["n_edits"].to_numpy(dtype=float), TABLE1["manhattan_distance"].to_numpy())
    assert found == pytest.approx(naive)
    assert found == pytest.approx(0.73, abs=0.005)
