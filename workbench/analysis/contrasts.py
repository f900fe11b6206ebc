"""The comparisons behind the claims: which stored trajectories are paired, and over which units."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from workbench.analysis.effects import (
    Effect,
    crossed_effect,
    fit_exponent,
    mean_effect,
    nested_effect,
    ratio_effect,
)
from workbench.analysis.pairs import (
    Paired,
    Runs,
    area_under_curves,
    largest_group,
    pair,
    reach,
    select,
    share_checkpoints,
)
from workbench.experiment.store import PRESET
from workbench.regularize import RECT, Unregularized

Array = npt.NDArray[np.float64]
Score = Literal["abilities", "smooth"]
Measure = Callable[[Runs], Effect | None]

FEWEST_SEQUENCES = 5
PLAIN, RECT40 = Unregularized().label, RECT(0.4).label
_DIFFERENCE = (-1.0, 1.0)


def fall(method: str, setting: str, score: Score, *, hyperparameters: str = PRESET) -> Measure:
    """Effect: change from the unedited model to the last checkpoint of sequences of unregularized edits."""
    return lambda runs: _difference(_first_and_last(runs, method, setting, score, hyperparameters), score)


def share_left(method: str, setting: str) -> Measure:
    """Effect: share of the abilities of the unedited model that is left at the last checkpoint, as in `fall`."""
    return lambda runs: _share(_first_and_last(runs, method, setting, "abilities", PRESET))


def _first_and_last(runs: Runs, method: str, setting: str, score: Score, hyperparameters: str) -> Paired | None:
    where = {"method": method, "setting": setting, "regularizer": PLAIN, "hyperparameters": hyperparameters}
    rows = largest_group(_rows(runs, score, where))
    last = reach(rows, enough=FEWEST_SEQUENCES)
    return pair(rows[rows["operation"] == last], rows[rows["operation"] == 0], ["draw"])


def after_one_edit(method: str, score: Score, *, hyperparameters: str = PRESET) -> Measure:
    """Effect of one edit, over edits of different facts: share of the abilities that is left, or change in nats.

    The edits are the single edits of one draw, or the first edits of sequences, whichever are more.
    """

    def effect(runs: Runs) -> Effect | None:
        where = {"method": method, "regularizer": PLAIN, "hyperparameters": hyperparameters}
        rows = _rows(runs, score, where)
        single = largest_group(rows[rows["setting"] == "single-instance"])
        single = single[single["draw"] == _longest_draw(single, "operation")]
        first = largest_group(rows[(rows["setting"] == "sequential-instance") & (rows["operation"] <= 1)])
        paired = [_pair_with_unedited(part) for part in (single, first)]
        most = max(paired, key=lambda each: len(each.first[0]) if each else 0)
        return _difference(most, score) if score == "smooth" else _share(most)

    return effect


def larger_batch(method: str, score: Score) -> Measure:
    """Effect: score after one operation on the largest batch, minus that after the smallest of the same draw."""

    def effect(runs: Runs) -> Effect | None:
        where = {"method": method, "regularizer": PLAIN, "hyperparameters": PRESET, "operation": 1}
        rows = _rows(runs, score, where)
        rows = rows[rows["setting"].str.startswith("single")]
        if rows.empty:
            return None
        facts = rows.groupby("facts")["draw"].nunique().idxmax()
        rows = rows[rows["facts"] == facts]
        draws = rows.groupby("batch_size")["draw"].nunique()
        sizes = draws.index[draws >= min(FEWEST_SEQUENCES, draws.max())]
        largest, smallest = (rows[rows["batch_size"] == size] for size in (sizes.max(), sizes.min()))
        return None if len(sizes) < 2 else _difference(pair(largest, smallest, ["draw"]), score)

    return effect


def growth(metric: str, at: float | None = None) -> Measure:
    """Effect: exponent b of measure ∝ edits^b along each ROME sequence, mean over sequences."""

    def effect(runs: Runs) -> Effect | None:
        where = {"method": "ROME", "setting": "sequential-instance", "regularizer": PLAIN, "hyperparameters": PRESET}
        rows = select(runs.results, {**where, "metric": metric})
        rows = largest_group(rows[rows["at"].isna() if at is None else np.isclose(rows["at"].astype(float), at or 0)])
        exponents = [
            (draw, fit_exponent(part["n_edits"].to_numpy(dtype=float), part["value"].to_numpy(dtype=float)))
            for (draw, *_), part in rows.groupby(["draw", "seed", "parameter"])
        ]
        means = pd.DataFrame(exponents, columns=["draw", "b"]).dropna().groupby("draw")["b"].mean()
        return replace(mean_effect(means.to_numpy()), facts=str(rows["facts"].iloc[0])) if len(means) else None

    return effect


def editing(
    metric: str, protocol: str, *, method: str, setting: str, regularizer: str, rival: str, share: bool
) -> Measure:
    """Effect: score of single edits under one regularizer, as a share of, or minus, that under another."""

    def effect(runs: Runs) -> Effect | None:
        rows = runs.edits(metric, protocol, method=method, setting=setting, hyperparameters=PRESET)
        rows = largest_group(_under_both(rows, regularizer, rival))
        if setting.endswith("instance"):
            rows = rows[
                rows["draw"] == _longest_draw(rows, "example")
            ]  # other draws have the same facts in another order
        columns = ["draw", "seed", "batch_size", "example", "value"]
        first, second = (rows.loc[rows["regularizer"] == label, columns] for label in (regularizer, rival))
        joined = first.merge(second, on=columns[:-1], suffixes=("_1", "_2"), validate="one_to_one")
        if joined.empty:
            return None
        joined["batch"] = joined["example"] // joined["batch_size"]
        means = joined.groupby(["draw", "batch", "example"])[["value_1", "value_2"]].mean()
        units = [part.to_numpy() for _, part in means.groupby(["draw", "batch"])]  # (facts, 2) each
        found = (
            _share_of_units(units) if share else nested_effect([u[:, 0] - u[:, 1] for u in units], limits=_DIFFERENCE)
        )
        return found and replace(found, facts=str(rows["facts"].iloc[0]))

    return effect


def preserved(method: str, setting: str, score: Score) -> Measure:
    """Effect: mean over the edits of sequences under RECT, minus that without it, by the area under the curves."""

    def effect(runs: Runs) -> Effect | None:
        rows = _rows(runs, score, {"method": method, "setting": setting, "hyperparameters": PRESET})
        rows = largest_group(_under_both(rows, RECT40, PLAIN))
        both = share_checkpoints(*(rows[rows["regularizer"] == label] for label in (RECT40, PLAIN)))
        last = reach(both[0], enough=FEWEST_SEQUENCES)
        first, second = (area_under_curves(_up_to(arm, last)) for arm in both)
        return _difference(pair(first, second, ["draw"]), score)

    return effect


def preserved_text(method: str, setting: str, task: str) -> Measure:
    """Effect: like `preserved`, for the logarithm of a number that has no examples: perplexity or drift."""

    def effect(runs: Runs) -> Effect | None:
        where = {"method": method, "setting": setting, "hyperparameters": PRESET, "task": task}
        rows = select(runs.results, where)
        rows = largest_group(_under_both(rows[rows["value"] > 0], RECT40, PLAIN))
        by = ["draw", "seed", "metric", "protocol", "source", "operation", "n_edits"]
        first, second = (rows.loc[rows["regularizer"] == label, [*by, "value"]] for label in (RECT40, PLAIN))
        joined = first.merge(second, on=by, suffixes=("_1", "_2"), validate="one_to_one")
        joined = _up_to(joined, reach(joined, enough=FEWEST_SEQUENCES)).sort_values("n_edits")
        joined["value"] = np.log(joined["value_1"] / joined["value_2"])
        areas = [
            (key[0], np.trapezoid(part["value"], part["n_edits"]) / np.ptp(part["n_edits"]))
            for key, part in joined.groupby(["draw", "seed", "metric", "protocol", "source"])
            if len(part) > 1
        ]
        means = pd.DataFrame(areas, columns=["draw", "area"]).groupby("draw")["area"].mean()
        return replace(mean_effect(means.to_numpy()), facts=str(rows["facts"].iloc[0])) if len(means) else None

    return effect


def _under_both(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return the rows of draws that were edited under both regularizers; other draws must not be chosen over them."""
    rows = rows[rows["regularizer"].isin([first, second])]
    counts = rows.groupby(["facts", "batch_size", "draw", "seed"])["regularizer"].transform("nunique")
    return rows[counts == 2]


def _rows(runs: Runs, score: Score, where: Mapping[str, object]) -> pd.DataFrame:
    return runs.abilities(**where) if score == "abilities" else runs.smooth(**where)


def _difference(paired: Paired | None, score: Score) -> Effect | None:
    if paired is None:
        return None
    parts = [first - second for first, second in zip(paired.first, paired.second, strict=True)]
    found = crossed_effect(parts, limits=_DIFFERENCE if score == "abilities" else None)
    return replace(found, abilities=paired.abilities, facts=paired.facts)


def _share(paired: Paired | None) -> Effect | None:
    if paired is None:
        return None
    first, second = (np.mean([part.mean() for part in arm]) for arm in (paired.first, paired.second))
    if second <= 0:
        return None

    def at(rho: float) -> Effect:
        parts = [a - rho * b for a, b in zip(paired.first, paired.second, strict=True)]
        return crossed_effect(parts, limits=(-rho, 1.0))

    return replace(ratio_effect(at, float(first / second)), abilities=paired.abilities, facts=paired.facts)


def _share_of_units(units: list[Array]) -> Effect | None:
    first, second = np.mean([unit.mean(axis=0) for unit in units], axis=0)
    if second <= 0:
        return None

    def at(rho: float) -> Effect:
        return nested_effect([unit[:, 0] - rho * unit[:, 1] for unit in units], limits=(-rho, 1.0))

    return ratio_effect(at, float(first / second))


def _pair_with_unedited(rows: pd.DataFrame) -> Paired | None:
    """Pair the scores after each operation with those before the first; every operation is a unit."""
    after = rows[rows["operation"] > 0]
    units = after[["draw", "operation"]].drop_duplicates()
    before = rows[rows["operation"] == 0].drop(columns="operation").merge(units, on="draw")
    return pair(after, before, ["draw", "operation"])


def _longest_draw(rows: pd.DataFrame, fact: str) -> str | None:
    """Return the draw with the most facts, which a column numbers; of equal ones, the first."""
    counts = rows.groupby("draw")[fact].nunique()
    return None if counts.empty else str(counts.idxmax())


def _up_to(rows: pd.DataFrame, last: int) -> pd.DataFrame:
    """Return the rows of the draws that reach an operation, up to it."""
    reached = rows.loc[rows["operation"] == last, "draw"]
    return rows[rows["draw"].isin(reached) & (rows["operation"] <= last)]
