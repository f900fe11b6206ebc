"""The same protocol on two sources of facts, with the edit sequence as the unit."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from workbench.analysis.contrasts import FEWEST_SEQUENCES, PLAIN, RECT40
from workbench.analysis.units import last_points, not_enough
from workbench.evaluation.statistics import CONFIDENCE, student_interval

Array = npt.NDArray[np.float64]

SCORES = {
    "reliability": "reliability",
    "generalization": "generalization",
    "locality": "locality",
    "likelihood": "reference answers of tasks, change in nats per token",
    "text": "held-out text, change in nats per token",
}
_COLUMNS = ["score", "value", "low", "high", "units"]


def summarize_sources(units: pd.DataFrame) -> pd.DataFrame:
    """Average the units of each source of facts and regularizer, at the largest number of edits.

    Parameters
    ----------
    units : DataFrame
        Table of `measure_units`.

    Returns
    -------
    DataFrame
        Columns method, facts, regularizer, n_edits, score (of `SCORES`), value, low, high (Student's 95 % interval over
        edit sequences) and units.
    """
    by, rows = ["method", "facts", "regularizer", "n_edits"], []
    for group, part in last_points(units).groupby(by, sort=False):
        for score in SCORES:
            values = part[score].dropna().to_numpy(float)
            if len(values):
                rows.append((*group, score, values.mean(), *student_interval(values), len(values)))
    return pd.DataFrame(rows, columns=[*by, *_COLUMNS])


def compare_sources(units: pd.DataFrame, *, reference: str) -> pd.DataFrame:
    """Compare the effect of edits between sources of facts, and that of RECT within each.

    Parameters
    ----------
    units : DataFrame
        Table of `measure_units`.
    reference : str
        Source that the others are compared with, as in the column `facts`.

    Returns
    -------
    DataFrame
        Columns method, comparison, facts, score, value, low, high, units. ``other facts``: the unregularized edits of
        these facts minus those of the reference, with the interval of Welch (1947) over independent sequences, and the
        number of the smaller side. ``RECT 40 %``: minus the unregularized edits of the same sequences, with Student's.
    """
    rows: list[tuple[object, ...]] = []
    for (method, facts), part in last_points(units).groupby(["method", "facts"], sort=False):
        plain = part[part["regularizer"] == PLAIN]
        others = last_points(units[(units["method"] == method) & (units["facts"] == reference)])
        others = others[others["regularizer"] == PLAIN]
        for score in SCORES:
            first, second = (each[score].dropna().to_numpy(float) for each in (plain, others))
            if facts != reference and len(first) and len(second):
                value, fewest = first.mean() - second.mean(), min(len(first), len(second))
                rows.append((method, "other facts", facts, score, value, *_welch(first, second), fewest))
            wide = part.pivot_table(index="unit", columns="regularizer", values=score)
            if {PLAIN, RECT40} <= set(wide):
                change = (wide[RECT40] - wide[PLAIN]).dropna().to_numpy()
                rows.append((method, RECT40, facts, score, change.mean(), *student_interval(change), len(change)))
    return pd.DataFrame(rows, columns=["method", "comparison", "facts", *_COLUMNS])


def describe_sources(summary: pd.DataFrame, compared: pd.DataFrame) -> str:
    """Say what edits of other facts do, how that differs from the reference, and what RECT changes.

    Parameters
    ----------
    summary, compared : DataFrame
        Tables of `summarize_sources` and `compare_sources`.

    Returns
    -------
    str
        A line per source and method, the other sources first, then a line per comparison.
    """
    lines = []
    others = compared.loc[compared["comparison"] == "other facts", "facts"]
    plain = summary[summary["regularizer"] == PLAIN]
    ordered = pd.concat([plain[plain["facts"].isin(others)], plain[~plain["facts"].isin(others)]])
    for (facts, method, n_edits), part in ordered.groupby(["facts", "method", "n_edits"], sort=False):
        lines.append(f"{facts}, {method}, facts edited: {n_edits}; {_numbers(part)}.")
    for (method, comparison, facts), part in compared.groupby(["method", "comparison", "facts"], sort=False):
        said = "minus the reference" if comparison == "other facts" else f"{comparison} minus unregularized"
        lines.append(f"{facts}, {method}, {said}: {_numbers(part)}.")
    return "\n".join(lines)


def _numbers(part: pd.DataFrame) -> str:
    said, units = [], int(part["units"].min())
    for row in part.to_dict("records"):
        ends = "" if np.isnan(row["low"]) else f" ({row['low']:+.3f} to {row['high']:+.3f})"
        said.append(f"{row['score']} {row['value']:+.3f}{ends}")
    enough = f"95 % intervals over {units} edit sequences" if units >= FEWEST_SEQUENCES else not_enough(units)
    return f"{', '.join(said)}; {enough}"


def _welch(first: Array, second: Array) -> tuple[float, float]:
    """Return Welch's interval of the difference of two means; NaN if a side has one value, or neither has a spread."""
    if min(len(first), len(second)) < 2 or np.ptp(first) == np.ptp(second) == 0:
        return np.nan, np.nan
    variances = np.array([each.var(ddof=1) / len(each) for each in (first, second)])
    freedom = variances.sum() ** 2 / sum(variances**2 / [len(first) - 1, len(second) - 1])
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * variances.sum() ** 0.5
    value = first.mean() - second.mean()
    return float(value - half), float(value + half)
