"""Means of scores with 95 % intervals, which keep their coverage for few values and have a width for equal ones.

===================  ==================================================================================================
values               interval
===================  ==================================================================================================
0 and 1              exact (Clopper and Pearson 1934): `proportion_interval`
from a known range   Student's, with one pseudo-observation at each end of the range: `bounded_interval`
any                  Student's (1908): `student_interval`
weighted             bootstrap of the ratio of sums, expanded percentiles (Hesterberg 2015): `bootstrap_interval`
===================  ==================================================================================================
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95
_NONE = (float("nan"), float("nan"))


def proportion_interval(values: Array, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934).

    Parameters
    ----------
    values : array (n,)
        Zeros and ones, one per independent unit.
    confidence : float
        Coverage, between 0 and 1; it is never less, whatever n and the proportion.

    Returns
    -------
    low, high : float
        Ends of the interval, in [0, 1].
    """
    n, k, tail = len(values), float(np.sum(values)), (1 - confidence) / 2
    low = stats.beta.ppf(tail, k, n - k + 1) if k > 0 else 0.0
    high = stats.beta.ppf(1 - tail, k + 1, n - k) if k < n else 1.0
    return float(low), float(high)


def bounded_interval(
    values: Array, *, lowest: float = 0.0, highest: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the mean of values from a known range, such as fractional scores or differences of scores.

    Student's interval of the values and of two pseudo-observations, one at each end of the range. For zeros and ones it
    is close to the adjusted interval of Agresti and Coull (1998, with two at each end), for differences of paired zeros
    and ones to that of Bonett and Price (2012, eq. 3). The pseudo-observations stand for the rare values that few
    observations have not shown: the interval contains the mean of the values and always has a width. Where all values
    are equal, it is at least the exact bound: with probability `confidence`, a share of less than 1 − (tail)^(1/n) of
    all units has other values, and those differ by at most the distance to the ends of the range.

    Parameters
    ----------
    values : array (n,)
        One number per independent unit.
    lowest, highest : float
        Ends of the range.
    confidence : float
        Coverage, between 0 and 1.

    Returns
    -------
    low, high : float
        Ends of the interval, within the range; both NaN for fewer than two values.
    """
    if len(values) < 2:
        return _NONE
    low, high = student_interval(np.append(values, [lowest, highest]), confidence=confidence)
    if np.ptp(values) == 0:
        others = 1 - ((1 - confidence) / 2) ** (1 / len(values))
        low = min(low, values[0] - others * (values[0] - lowest))
        high = max(high, values[0] + others * (highest - values[0]))
    return float(max(low, lowest)), float(min(high, highest))


def student_interval(values: Array, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's interval of the mean of independent values; both ends are NaN for one value, or if all are equal.

    Equal values from an unknown range say nothing about how far others may lie.

    Parameters
    ----------
    values : array (n,)
        One number per independent unit.
    confidence : float
        Coverage, between 0 and 1.

    Returns
    -------
    low, high : float
        Ends of the interval.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return _NONE
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def bootstrap_interval(
    values: Array, *, weights: Array | None = None, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Bootstrap interval of a mean or of a ratio of sums (Efron 1979), with expanded percentiles.

    The tails are Φ(t √(n / (n − 1))) instead of (1 − confidence) / 2, where t is Student's quantile of that tail
    (Hesterberg 2015, arXiv 1411.5279, section 5.3): percentiles of resamples are too narrow for few values.

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
        Ends of the interval; both NaN for fewer than two values with a weight. If all of these are equal, the exact
        bound of `bounded_interval` within [0, 1], and NaN if they lie outside.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    known = values[weights > 0]
    if len(known) < 2:
        return _NONE
    if np.ptp(known) == 0:
        return bounded_interval(known, confidence=confidence) if 0 <= known[0] <= 1 else _NONE
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    means = weighted_mean(values[draws], weights[draws])
    n = len(known)
    tail = stats.norm.cdf(stats.t.ppf((1 - confidence) / 2, n - 1) * np.sqrt(n / (n - 1)))
    low, high = np.nanquantile(means, [tail, 1 - tail])
    return float(low), float(high)


def score_interval(
    values: Array, *, weights: Array | None = None, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the mean of scores, by the method for their kind (see the table of this module).

    Parameters
    ----------
    values : array (n,)
        One score per independent unit. Scores that all lie within [0, 1] are taken to have this range.
    weights : array (n,), optional
        Weights of the units, not negative; equal by default. Scores without weight do not count.
    seed : int
        Seed of the bootstrap, which is used for weights that differ.
    confidence : float
        Coverage, between 0 and 1.

    Returns
    -------
    low, high : float
        Ends of the interval; both NaN for fewer than two scores, and for equal ones outside [0, 1].
    """
    values = np.asarray(values, dtype=float)
    if weights is not None:
        weights = np.asarray(weights, dtype=float)
        values, weights = values[weights > 0], weights[weights > 0]
        if len(weights) and np.ptp(weights) > 0:
            return bootstrap_interval(values, weights=weights, seed=seed, confidence=confidence)
    if len(values) < 2:
        return _NONE
    if np.isin(values, (0.0, 1.0)).all():
        return proportion_interval(values, confidence=confidence)
    if values.min() >= 0 and values.max() <= 1:
        return bounded_interval(values, confidence=confidence)
    return student_interval(values, confidence=confidence)


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
        Seed of the bootstrap, for weights that differ.

    Returns
    -------
    DataFrame
        One row per group; the columns of `by`, then value, n, low, high; the interval is that of `score_interval`.
    """
    rows = []
    for group, part in scores.groupby(by, sort=False, dropna=False):
        values = part["value"].to_numpy(dtype=float)
        weights = part["weight"].to_numpy(dtype=float) if "weight" in part else np.ones(len(part))
        low, high = score_interval(values, weights=weights, seed=seed)
        rows.append((*group, float(weighted_mean(values, weights)), len(part), low, high))
    return pd.DataFrame(rows, columns=[*by, "value", "n", "low", "high"])
