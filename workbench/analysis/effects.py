"""Effects of edits, with 95 % intervals over edit sequences and over examples.

A statement about editing is about all sequences of edits that could have been drawn, so the edit sequence is the unit.
Every sequence is measured on the same examples, which makes a crossed design of two random factors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from workbench.evaluation.statistics import CONFIDENCE, bounded_interval, student_interval

Array = npt.NDArray[np.float64]

_HIGHEST_RATIO = 100.0
_NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """The measured quantity of a claim, with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        The effect and the ends of its interval; the ends are NaN for fewer than two units.
    n : int
        Number of pairs, over all units.
    trajectories : int
        Number of independent units: edit sequences, or single edits.
    between, within : float
        The parts of the variance of `value` that fall with the number of units and with the number of examples.
    abilities, facts : str
        Names of the abilities that were compared, and of the source of facts.
    """

    value: float = _NAN
    low: float = _NAN
    high: float = _NAN
    n: int = 0
    trajectories: int = 0
    between: float = _NAN
    within: float = 0.0
    abilities: str = ""
    facts: str = ""


def crossed_effect(parts: Sequence[Array], *, limits: tuple[float, float] | None = None) -> Effect:
    """Mean over sequences and examples, with an interval for new sequences and new examples.

    The variance of the mean is that of the means of sequences, V_s = s² / J, plus that of the means of examples, V_e:
    the estimate of Cameron, Gelbach and Miller (2011) for clusters in two dimensions, without the subtraction of the
    variance of single values, so that it is never too small (Owen 2007, for the bootstrap that resamples both).
    Student's quantile has the degrees of freedom of Satterthwaite (1946),
    (V_s + V_e)² / (V_s² / (J − 1) + Σ_k V_ek² / (E_k − 1)), which are J − 1 if sequences make all of the variance.
    Percentiles of a bootstrap over five to eight sequences would be much too narrow.

    Scores with limits get one pseudo-observation per limit among the examples of each part, and, where all sequences
    agree, at least the exact bound over sequences, both as in `bounded_interval`.

    Parameters
    ----------
    parts : sequence of array (J, E_k)
        The values of J sequences in the E_k examples of each task k; tasks count alike.
    limits : tuple of float, optional
        Ends of the range of values.

    Returns
    -------
    Effect
    """
    J, K = len(parts[0]), len(parts)
    of_sequences = np.mean([part.mean(axis=1) for part in parts], axis=0)  # (J,)
    value, n = float(of_sequences.mean()), sum(part.size for part in parts)
    of_examples = [np.append(part.mean(axis=0), limits or ()) for part in parts]
    V_e = np.array([each.var(ddof=1) / len(each) / K**2 if len(each) > 1 else np.nan for each in of_examples])
    if J < 2 or np.isnan(V_e).any():
        return Effect(value, n=n, trajectories=J)
    V_s = float(of_sequences.var(ddof=1)) / J
    total = V_s + float(V_e.sum())
    if total == 0:
        return Effect(value, n=n, trajectories=J)
    freedom = total**2 / (V_s**2 / (J - 1) + sum(v**2 / (len(e) - 1) for v, e in zip(V_e, of_examples, strict=True)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * total**0.5
    low, high = value - half, value + half
    if limits is not None:
        if np.allclose(of_sequences, value, rtol=0, atol=1e-12):
            exact = bounded_interval(np.full(J, value), lowest=limits[0], highest=limits[1])
            low, high = min(low, exact[0]), max(high, exact[1])
        low, high = max(low, limits[0]), min(high, limits[1])
    return Effect(value, low, high, n, J, between=V_s, within=float(V_e.sum()))


def nested_effect(units: Sequence[Array], *, limits: tuple[float, float]) -> Effect:
    """Mean over edits that each have facts of their own: single edits of one fact, or of a batch.

    For single facts the interval is `bounded_interval` over facts. Facts of one batch share its update: the interval is
    Student's over the means of batches, and at least `bounded_interval` over all facts.

    Parameters
    ----------
    units : sequence of array
        The values of the facts of each edit.
    limits : tuple of float
        Ends of the range of values.

    Returns
    -------
    Effect
    """
    means, facts = np.array([unit.mean() for unit in units]), np.concatenate(units)
    effect = Effect(float(means.mean()), n=len(facts), trajectories=len(units))
    if len(units) < 2:
        return effect
    intervals = [bounded_interval(facts, lowest=limits[0], highest=limits[1])]
    if len(facts) > len(units):
        intervals.append(student_interval(means))
    low, high = np.nanmin([each[0] for each in intervals]), np.nanmax([each[1] for each in intervals])
    between = float(means.var(ddof=1)) / len(units)
    low, high = min(low, effect.value), max(high, effect.value)  # batches may differ in size
    return Effect(effect.value, float(low), float(high), effect.n, effect.trajectories, between=between)


def mean_effect(values: Array) -> Effect:
    """Mean of one number per sequence, with Student's interval over sequences."""
    low, high = student_interval(values)
    between = float(values.var(ddof=1)) / len(values) if len(values) > 1 else _NAN
    return Effect(float(values.mean()), low, high, len(values), len(values), between=between)


def ratio_effect(at: Callable[[float], Effect], ratio: float) -> Effect:
    """Interval of a ratio of two means by Fieller's theorem (1954).

    The interval has the ratios ρ for which the interval of the mean of first − ρ · second includes 0.

    Parameters
    ----------
    at : callable
        Function of ρ that returns the effect first − ρ · second.
    ratio : float
        The measured ratio.

    Returns
    -------
    Effect
        The upper end is infinite if the second mean may be 0.
    """
    there = at(ratio)
    if not np.isfinite(there.low):
        return Effect(ratio, n=there.n, trajectories=there.trajectories)
    low = 0.0 if at(0.0).low <= 0 else optimize.brentq(lambda rho: at(rho).low, 0.0, ratio)
    high = np.inf
    if at(_HIGHEST_RATIO).high < 0:
        high = optimize.brentq(lambda rho: at(rho).high, ratio, _HIGHEST_RATIO)
    scale = _scale(at, ratio)
    between, within = there.between / scale**2, there.within / scale**2
    return Effect(ratio, float(low), float(high), there.n, there.trajectories, between=between, within=within)


def _scale(at: Callable[[float], Effect], ratio: float) -> float:
    """Return the second mean: first − ρ · second falls by it per unit of ρ."""
    return at(ratio).value - at(ratio + 1).value


def fit_exponent(n_edits: Array, distances: Array) -> float:
    """Return the exponent b of distance ∝ n_edits^b: the slope of a least-squares line through the logarithms.

    With b = ½ edits move the weights as steps in random directions do, with b = 1 in one direction.

    Parameters
    ----------
    n_edits : array (n,)
        Numbers of edits, at least 1.
    distances : array (n,)
        How far the weights are from the unedited ones.

    Returns
    -------
    float
        NaN for fewer than three numbers of edits.
    """
    known = (n_edits > 0) & (distances > 0)
    if len(np.unique(n_edits[known])) < 3:
        return _NAN
    return float(np.polyfit(np.log(n_edits[known]), np.log(distances[known]), 1)[0])
