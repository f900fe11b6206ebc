"""Means with bootstrap intervals."""

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]

RESAMPLES = 2000


def bootstrap_interval(
    values: Array, *, weights: Array | None = None, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979).

    Parameters
    ----------
    values : array (n,)
        One number per independent unit, such as a fact.
    weights : array (n,), optional
        Weights of the units, not negative; equal by default. With the denominators of ratios as weights, the mean is
        the ratio of the sums: a micro average.
    seed : int
        Seed of the resampling.
    confidence : float
        Coverage, between 0 and 1.

    Returns
    -------
    low, high : float
        Ends of the interval; both NaN for fewer than two values, which have no spread, or if all weights are 0.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    means = weighted_mean(values[draws], weights[draws])
    known = means[~np.isnan(means)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def weighted_mean(values: Array, weights: Array) -> Array:
    """Return the weighted mean over the last axis; NaN where all weights are 0."""
    total = weights.sum(axis=-1)
    values = np.where(weights > 0, values, 0.0)
    return np.divide((values * weights).sum(axis=-1), total, out=np.full_like(total, np.nan), where=total > 0)


def summarize(scores: pd.DataFrame, by: list[str], *, seed: int = 0) -> pd.DataFrame:
    """Return mean, n and 95 % interval of the column `value` in each group.

    Parameters
    ----------
    scores : DataFrame
        One row per independent unit; the column `weight`, if there is one, holds their weights.
    by : list of str
        Grouping columns; groups keep the order of their first rows.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row per group; the columns of `by`, then value, n, low, high.
    """
    rows = []
    for group, part in scores.groupby(by, sort=False, dropna=False):
        values = part["value"].to_numpy(dtype=float)
        weights = part["weight"].to_numpy(dtype=float) if "weight" in part else np.ones(len(part))
        low, high = bootstrap_interval(values, weights=weights, seed=seed)
        rows.append((*group, float(weighted_mean(values, weights)), len(part), low, high))
    return pd.DataFrame(rows, columns=[*by, "value", "n", "low", "high"])
