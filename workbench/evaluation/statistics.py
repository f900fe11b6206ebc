"""Means with bootstrap intervals."""

import numpy as np
import pandas as pd

RESAMPLES = 2000


def bootstrap_interval(values: np.ndarray, *, seed: int = 0, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979).

    Parameters
    ----------
    values : array (n,)
        One number an independent unit, such as a fact.
    seed : int
        Draws the resamples.
    confidence : float
        Coverage, between 0 and 1.

    Returns
    -------
    low, high : float
        Ends of the interval; both NaN for fewer than two values, of which no spread can be told.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summarize(scores: pd.DataFrame, by: list[str], *, seed: int = 0) -> pd.DataFrame:
    """Mean, n and 95 % interval of the column `value` in each group.

    Parameters
    ----------
    scores : DataFrame
        One row an independent unit.
    by : list of str
        Grouping columns; groups keep the order of their first rows.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        The columns of `by`, then value, n, low, high.
    """
    rows = []
    for group, part in scores.groupby(by, sort=False):
        low, high = bootstrap_interval(part["value"].to_numpy(), seed=seed)
        rows.append((*group, part["value"].mean(), len(part), low, high))
    return pd.DataFrame(rows, columns=[*by, "value", "n", "low", "high"])
