"""Which share of an update to apply: the front between what is edited and what is kept, and a rule that chooses it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from workbench.analysis.contrasts import FEWEST_SEQUENCES, RECT40
from workbench.analysis.units import ARM, KEPT, last_points, not_enough
from workbench.energy import EnergyRECT
from workbench.evaluation.statistics import RESAMPLES, student_interval
from workbench.printable import percent
from workbench.regularize import RECT, Regularizer, Unregularized, settings_of

Array = npt.NDArray[np.float64]

ENOUGH = 0.95  # share of the editing score of the whole update that a smaller share of its entries has to keep
_PLAIN = Unregularized().label


def list_regularizers(keeps: Sequence[float], energies: Sequence[float]) -> list[dict[str, Any]]:
    """Return RECT with each share, where 1 is the whole update, and the rule with each energy, for `wb.grid`."""
    return [settings_of(each) for each in (*map(_with_share, keeps), *map(EnergyRECT, energies))]


def fixed_shares(keeps: Sequence[float]) -> dict[str, float]:
    """Return the shares by the labels of their regularizers, in ascending order."""
    return {_with_share(keep).label: float(keep) for keep in sorted(keeps)}


def _with_share(keep: float) -> Regularizer:
    return Unregularized() if keep == 1 else RECT(keep)


def tabulate_fronts(units: pd.DataFrame, fixed: Mapping[str, float], *, seed: int = 0) -> pd.DataFrame:
    """Average the units of each regularizer, and say which of them are on the front.

    A regularizer is on the front if no other one edits at least as well and keeps at least as much, and is better in
    one of the two. Only units that were measured under every regularizer of their arm count.

    Parameters
    ----------
    units : DataFrame
        Table of `measure_units`.
    fixed : mapping of str to float
        Shares of `fixed_shares`; they stand in where the share that was applied is not stored.
    seed : int
        Seed of the resampling.

    Returns
    -------
    DataFrame
        One row per arm, measure of `KEPT` and regularizer: the columns of `ARM`, measure, regularizer, share (mean of
        the entries applied), editing and kept, each with its Student's 95 % interval over units (_low, _high),
        on_front, front_share (of 2,000 resamples of the units, in how many it is on the front; NaN for one unit),
        units (their number).
    """
    rows: list[dict[str, object]] = []
    for arm, part in units.groupby(ARM, sort=False):
        for measure in KEPT:
            table = _complete(part, ["editing", measure])
            if table is not None:
                place = {**dict(zip(ARM, arm, strict=True)), "measure": measure}
                rows += [{**place, **row} for row in _front(table, measure, _applied(part, fixed), seed)]
    return pd.DataFrame(rows, columns=_FRONT_COLUMNS)


def choose_shares(
    units: pd.DataFrame, fixed: Mapping[str, float], *, enough: float = ENOUGH, seed: int = 0
) -> pd.DataFrame:
    """Find the smallest fixed share that keeps enough of the editing score of the whole update.

    Parameters
    ----------
    units : DataFrame
        Table of `measure_units`.
    fixed : mapping of str to float
        Shares of `fixed_shares`, with that of the whole update.
    enough : float
        Share of the mean editing score of the whole update.
    seed : int
        Seed of the bootstrap over units.

    Returns
    -------
    DataFrame
        One row per arm: the columns of `ARM`, share, low and high (2.5 and 97.5 % quantiles over resamples of the
        units; NaN for fewer than five), editing (of the whole update), units. Without a score to keep, share is NaN.
    """
    rows = []
    for arm, part in units[units["regularizer"].isin(fixed)].groupby(ARM, sort=False):
        table = _complete(part, ["editing"])
        if table is None or _PLAIN not in table["editing"]:
            continue
        labels = [label for label in fixed if label in table["editing"]]
        shares, values = np.array([fixed[label] for label in labels]), table["editing"][labels].to_numpy()
        whole = labels.index(_PLAIN)
        found = _smallest(values.mean(axis=0), shares, whole, enough)
        low = high = np.nan
        if len(values) >= FEWEST_SEQUENCES and not np.isnan(found):
            draws = [_smallest(each.mean(axis=0), shares, whole, enough) for each in _resampled(values, seed)]
            low, high = np.nanquantile(draws, [0.025, 0.975], method="inverted_cdf")
        mean = float(values[:, whole].mean())
        rows.append((*arm, found, low, high, mean, len(values)))
    return pd.DataFrame(rows, columns=[*ARM, "share", "low", "high", "editing", "units"])


def compare_rule(units: pd.DataFrame, fixed: Mapping[str, float], *, rival: str = RECT40) -> pd.DataFrame:
    """Compare the rule with a fixed share, unit by unit.

    Parameters
    ----------
    units : DataFrame
        Table of `measure_units`.
    fixed : mapping of str to float
        Shares of `fixed_shares`; the other regularizers are rules.
    rival : str
        Label of the regularizer that the rule is compared with.

    Returns
    -------
    DataFrame
        One row per arm, energy and score (editing and those of `KEPT`): the columns of `ARM`, regularizer, share (mean
        that it chose), score, value (mean difference, rule minus rival), low, high (Student's 95 % interval), units.
    """
    rows = []
    for arm, part in units.groupby(ARM, sort=False):
        for label in dict.fromkeys(part.loc[~part["regularizer"].isin(fixed), "regularizer"]):
            share = part.loc[part["regularizer"] == label, "share"].mean()
            for score in ("editing", *KEPT):
                wide = part[part["regularizer"].isin([label, rival])].pivot_table(
                    index="unit", columns="regularizer", values=score
                )
                if {label, rival} <= set(wide):
                    change = (wide[label] - wide[rival]).dropna().to_numpy()
                    rows.append((*arm, label, share, score, change.mean(), *student_interval(change), len(change)))
    return pd.DataFrame(rows, columns=[*ARM, "regularizer", "share", "score", "value", "low", "high", "units"])


_SCORES = [f"{name}{end}" for name in ("editing", "kept") for end in ("", "_low", "_high")]
_FRONT_COLUMNS = [*ARM, "measure", "regularizer", "share", *_SCORES, "on_front", "front_share", "units"]


def _applied(units: pd.DataFrame, fixed: Mapping[str, float]) -> "pd.Series[float]":
    """Return the mean share of the entries applied under each regularizer."""
    return units.groupby("regularizer")["share"].mean().fillna(pd.Series(dict(fixed), dtype=float))


def _complete(units: pd.DataFrame, scores: list[str]) -> pd.DataFrame | None:
    """Return a table with a row per unit and columns (score, regularizer), of the units that have all of them."""
    wide = units.pivot_table(index="unit", columns="regularizer", values=scores, sort=False).dropna()
    return wide if len(wide) and set(scores) <= set(wide.columns.get_level_values(0)) else None


def _front(table: pd.DataFrame, measure: str, shares: "pd.Series[float]", seed: int) -> list[dict[str, object]]:
    editing, kept = table["editing"], table[measure]
    both = np.stack([editing.to_numpy(), kept[editing.columns].to_numpy()], axis=2)  # (units, regularizers, 2)
    on_front = _undominated(both.mean(axis=0))
    drawn = np.full(len(on_front), np.nan)
    if len(both) > 1:
        drawn = np.mean([_undominated(each.mean(axis=0)) for each in _resampled(both, seed)], axis=0)
    rows = []
    for i, label in enumerate(editing.columns):
        row: dict[str, object] = {"regularizer": label, "share": float(shares[label])}
        for j, name in enumerate(("editing", "kept")):
            low, high = student_interval(both[:, i, j])
            row |= {name: float(both[:, i, j].mean()), f"{name}_low": low, f"{name}_high": high}
        rows.append({**row, "on_front": bool(on_front[i]), "front_share": float(drawn[i]), "units": len(both)})
    return rows


def _undominated(points: Array) -> npt.NDArray[np.bool_]:
    """Return which points (n, 2) no other point equals or exceeds in both coordinates and exceeds in one."""
    at_least = (points[:, None] >= points[None]).all(axis=2)  # [i, j]: i is at least as good as j
    better = at_least & (points[:, None] > points[None]).any(axis=2)
    return np.logical_not(better.any(axis=0), dtype=bool)


def _smallest(means: Array, shares: Array, whole: int, enough: float) -> float:
    if not means[whole] > 0:
        return np.nan
    return float(shares[means >= enough * means[whole]].min())


def _resampled(values: Array, seed: int) -> Array:
    """Return resamples of the first axis."""
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return values[draws]


def describe_shares(choices: pd.DataFrame, fronts: pd.DataFrame, rules: pd.DataFrame) -> str:
    """Say for each method, at its largest number of edits, which share suffices, where 40 % lies, and what a rule does.

    Parameters
    ----------
    choices, fronts, rules : DataFrame
        Tables of `choose_shares`, `tabulate_fronts` and `compare_rule`.

    Returns
    -------
    str
        A line per method for each of the three.
    """
    lines = []
    for row in last_points(choices).to_dict("records"):
        name = f"{row['method']}, {_edits(row)}"
        if np.isnan(row["share"]):
            lines.append(f"{name}: the whole update does not edit, so no share can be chosen.")
        else:
            over = f"95 % interval {percent(row['low'])} to {percent(row['high'])} over {row['units']} edit sequences"
            over = over if row["units"] >= FEWEST_SEQUENCES else not_enough(row["units"])
            kept = f"{percent(row['share'])} of the entries keep {percent(ENOUGH)} of the editing score"
            lines.append(f"{name}: {kept} ({over}).")
    at_40 = last_points(fronts[fronts["regularizer"] == RECT40])
    for method, part in at_40.groupby("method", sort=False):
        each = part.to_dict("records")
        places = [f"{row['measure']}: {_place(row['on_front'], row['front_share'], row['units'])}" for row in each]
        lines.append(f"{method}, {RECT40} on the front of editing against {'; '.join(places)}.")
    for (rule_of, label), part in last_points(rules).groupby(["method", "regularizer"], sort=False):
        each = part.to_dict("records")
        changes = [f"{row['score']} {_change(row['value'], row['low'], row['high'])}" for row in each]
        share, units = part["share"].iloc[0], part["units"].min()
        enough = "" if units >= FEWEST_SEQUENCES else f" ({not_enough(units)})"
        lines.append(f"{rule_of}, {label} applies {percent(share)}; minus {RECT40}: {', '.join(changes)}{enough}.")
    return "\n".join(lines)


def _edits(row: Mapping[Any, Any]) -> str:
    size, n_edits = row["batch_size"], row["n_edits"]
    if n_edits == size:
        return "a single fact" if size == 1 else f"{size} facts at once"
    return f"{n_edits} facts one after another" if size == 1 else f"{n_edits} facts, {size} at once"


def _place(on_front: bool, share: float, units: int) -> str:
    return ("yes" if on_front else "no") + (f" (in {percent(share)} of resamples)" if units >= FEWEST_SEQUENCES else "")


def _change(value: float, low: float, high: float) -> str:
    return f"{value:+.3f}" + ("" if np.isnan(low) else f" ({low:+.3f} to {high:+.3f})")
