"""What predicts the loss, on tables in which it is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workbench.analysis.why import PREDICTORS, TOGETHER, describe_predictors, longest_sequence, rank_predictors
from workbench.errors import SpecError


def damage(n=8, *, method="ROME", checkpoints=4, seed=0):
    """Sequences in which the loss grows with the KL, and the other predictors are noise."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({name: np.exp(rng.normal(size=n * checkpoints)) for name in PREDICTORS})
    rows["text"] = 10 * rows["kl"] ** 3 + 0.01 * rng.normal(size=len(rows))
    return rows.assign(
        likelihood=-rows["kl"], method=method, sequence=[f"{method} {i // checkpoints}" for i in range(len(rows))]
    )


def test_alone_a_coefficient_is_spearmans_correlation():
    rows = damage()
    ranked = rank_predictors(rows).query("response == 'text'").set_index("predictor")
    for name in PREDICTORS:
        assert ranked.loc[name, "alone"] == pytest.approx(stats.spearmanr(rows[name], rows["text"]).statistic)
    assert ranked.loc["kl", "alone_low"] > 0.9
    assert ranked.loc["kl", "best"] == 1.0
    assert ranked["sequences"].unique().tolist() == [8]


def test_together_they_are_the_least_squares_of_standardized_ranks():
    rows = damage()
    ranked = rank_predictors(rows).query("response == 'text'").set_index("predictor")
    X, y = rows[list(PREDICTORS)].rank(), rows["text"].rank()
    X, y = (X - X.mean()) / X.std(), (y - y.mean()) / y.std()
    expected = np.linalg.solve(X.T @ X, X.T @ y)
    assert ranked.loc[list(PREDICTORS), "together"].to_numpy() == pytest.approx(expected)


def test_sequences_are_left_out_as_a_whole():
    rows = damage()
    ranked = rank_predictors(rows).query("response == 'text'").set_index("predictor")
    for name in ("kl", "n_edits"):
        x, y, errors, spread = rows[name].rank(), rows["text"].rank(), 0.0, 0.0
        for sequence in rows["sequence"].unique():
            out = rows["sequence"] == sequence
            slope, intercept = np.polyfit(x[~out], y[~out], 1)
            errors += ((y[out] - intercept - slope * x[out]) ** 2).sum()
            spread += ((y[out] - y[~out].mean()) ** 2).sum()
        assert ranked.loc[name, "left_out"] == pytest.approx(1 - errors / spread)
    assert ranked.loc[TOGETHER, "left_out"] > 0.9 > 0.2 > ranked.loc["n_edits", "left_out"]


def test_repeating_the_checkpoints_of_sequences_makes_no_interval_narrower():
    rows = damage(checkpoints=2)
    once, thrice = (
        rank_predictors(table).query("response == 'text' and predictor == 'n_edits'").iloc[0]
        for table in (rows, pd.concat([rows] * 3, ignore_index=True))
    )
    assert thrice["rows"] == 3 * once["rows"]
    assert thrice["alone_high"] - thrice["alone_low"] == pytest.approx(once["alone_high"] - once["alone_low"], rel=1e-6)


def test_the_first_line_names_the_best_predictor_with_its_interval():
    first, *others = describe_predictors(
        rank_predictors(pd.concat([damage(), damage(method="KN", seed=1)]))
    ).splitlines()
    assert first.startswith("all methods, log perplexity ratio: best predicted by KL on probe text (ρ = ")
    assert "95 % interval" in first
    assert "over 16 edit sequences" in first
    assert len(others) == 5  # two responses for each of three groups


def test_fewer_than_five_sequences_decide_nothing():
    ranked = rank_predictors(damage(4))
    assert ranked[["alone_low", "together_high"]].isna().all(axis=None)
    assert describe_predictors(ranked).splitlines()[0] == (
        "ROME, log perplexity ratio: 4 edit sequences are not enough for a statement, 5 are."
    )
    assert rank_predictors(damage(1)).empty


def test_an_overflowed_loss_counts_as_the_largest_and_a_missing_one_not_at_all():
    rows = damage()
    rows.loc[rows["kl"].idxmax(), "text"] = np.inf
    rows.loc[0, "likelihood"] = np.nan
    ranked = rank_predictors(rows)
    assert ranked.query("response == 'text' and predictor == 'kl'")["alone"].iloc[0] > 0.99
    assert ranked.query("response == 'likelihood'")["rows"].unique().tolist() == [31]


def test_the_longest_sequence_is_that_with_the_most_edits_and_there_must_be_one():
    rows = damage().assign(n_edits=[*range(31), 5])
    assert longest_sequence(rows)["n_edits"] == 30
    with pytest.raises(SpecError, match="holds no edit sequence whose updates or spectra were kept"):
        longest_sequence(rows.iloc[:0])
