"""The long run: which methods still edit, and leave the model as it was, after hundreds of facts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.curves import interval_of_mean
from workbench.analysis.units import change_of_likelihood
from workbench.experiment.measures import EDITS, NOW, WEIGHTS
from workbench.experiment.spec import ExperimentSpec
from workbench.regularize import Unregularized

CONTESTANT = "contestant"
WRITTEN = 0.5  # share of the facts so far that must still be answered
DAMAGE = 1.5  # factor of perplexity that must not be exceeded
SCORES = ("reliability", "natural", "generalization", "locality", "abilities", "perplexity", "kl", "sigma", "condition")
_OF_EDITS = {
    "reliability": ("reliability", "teacher_forced"),
    "natural": ("reliability", "natural"),
    "generalization": ("generalization", "teacher_forced"),
    "locality": ("locality", "teacher_forced"),
}
_SERIES = ["model", "method", "regularizer", "batch_size", "facts"]


def list_specs(base: Mapping[str, Any], contestants: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> list[Any]:
    """Return a spec for every contestant and seed.

    Parameters
    ----------
    base : mapping
        Fields of `ExperimentSpec` that all share; edits are scored teacher forced and naturally unless it says how.
    contestants : sequence of mapping
        Fields that make each: method, and possibly hyperparameters, regularizer, accumulated, feed_back and guard.
    seeds : sequence of int
        Each seed draws its own facts, the same for all contestants.

    Returns
    -------
    list of ExperimentSpec

    Raises
    ------
    SpecError
        If a field is unknown or its value is not allowed.
    """
    shared = {"edit_protocols": ("teacher_forced", "natural"), **base}
    return [ExperimentSpec(**{**shared, **contestant, "seed": seed}) for seed in seeds for contestant in contestants]


def follow_states(results: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return what is left of facts and model at every checkpoint of every trajectory.

    Parameters
    ----------
    results, scores : DataFrame
        Tables of `workbench.run` and `Store.scores`, of the same sequences.

    Returns
    -------
    DataFrame
        Columns contestant, model, method, regularizer, batch_size, facts, trajectory, seed, operation, n_edits;
        reliability, generalization, locality (teacher forced) and natural (reliability where the model answers by
        itself) of all facts so far; abilities (change of the log-likelihood of reference answers, in nats per token,
        mean over tasks of means over examples); perplexity (factor against the unedited model); kl (drift, nats per
        token); sigma and condition (σ_max and σ_max/σ_min of the weights against those of the unedited ones, the
        largest over the edited matrices). NaN where the specs do not measure it.
    """
    place = ["trajectory", "operation"]
    states = results[[*_SERIES, "seed", *place, "n_edits"]].drop_duplicates(place).set_index(place)
    states[CONTESTANT] = [_name(*row) for row in zip(states["method"], states["regularizer"], strict=True)]
    now = results[(results["task"] == EDITS) & (results["moment"] == NOW)]
    for column, (metric, protocol) in _OF_EDITS.items():
        of_score = now[(now["metric"] == metric) & (now["protocol"] == protocol)]
        states[column] = of_score.set_index(place)["value"]
    states["abilities"] = change_of_likelihood(scores)
    perplexity = results[results["task"] == "perplexity"].set_index(place)["value"]
    states["perplexity"] = perplexity / perplexity.xs(0, level="operation")
    states["kl"] = results[results["task"] == "drift"].set_index(place)["value"]
    largest, smallest = (_against_before(results, f"{end}_singular_value") for end in ("largest", "smallest"))
    states["sigma"] = largest.groupby(level=place).max()
    states["condition"] = (largest / smallest).groupby(level=place).max()
    order = [CONTESTANT, *_SERIES, *place, "seed", "n_edits", *SCORES]
    return states.reset_index()[order].sort_values(["seed", CONTESTANT, "operation"], ignore_index=True)


def _name(method: str, regularizer: str) -> str:
    return method if regularizer == Unregularized().label else f"{method} with {regularizer}"


def _against_before(results: pd.DataFrame, metric: str) -> "pd.Series[float]":
    place = ["trajectory", "operation", "parameter"]
    rows = results[results["task"] == WEIGHTS]
    after, before = (rows[rows["metric"] == name].set_index(place)["value"] for name in (metric, f"{metric}_before"))
    return after / before


def find_endurance(states: pd.DataFrame, *, written: float = WRITTEN, damage: float = DAMAGE) -> pd.DataFrame:
    """Return how many facts each sequence took while it still held them and the model was whole.

    Parameters
    ----------
    states : DataFrame
        Table of `follow_states`.
    written : float
        Smallest share of the facts so far that the model answers by itself.
    damage : float
        Largest factor of perplexity.

    Returns
    -------
    DataFrame
        One row per trajectory: contestant, trajectory, seed, lasts (facts at the last checkpoint up to which both
        limits held at every checkpoint; 0 if they failed at the first), edits (facts in all) and ended_by ("facts",
        "model", "both", or empty if the sequence lasted to its end).
    """
    rows = []
    for (contestant, trajectory, seed), part in states.groupby([CONTESTANT, "trajectory", "seed"], sort=False):
        part = part[part["operation"] > 0].sort_values("operation")
        forgets, breaks = ~(part["natural"] >= written), ~(part["perplexity"] <= damage)
        failed = (forgets | breaks).to_numpy()
        first = int(failed.argmax()) if failed.any() else len(part)
        ended = ""
        if first < len(part):
            ended = {(True, True): "both", (True, False): "facts", (False, True): "model"}[
                bool(forgets.iloc[first]), bool(breaks.iloc[first])
            ]
        lasts = int(part["n_edits"].iloc[first - 1]) if first else 0
        rows.append((contestant, trajectory, seed, lasts, int(part["n_edits"].max()), ended))
    return pd.DataFrame(rows, columns=[CONTESTANT, "trajectory", "seed", "lasts", "edits", "ended_by"])


def rank_contestants(states: pd.DataFrame, operations: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the leaderboard: what is left after the last operation, and what it cost.

    Parameters
    ----------
    states : DataFrame
        Table of `follow_states`.
    operations, scores : DataFrame
        Tables of `Store.operations` and `Store.scores`, of the same sequences.

    Returns
    -------
    DataFrame
        One row per contestant, those that last longest first: lasts_low and lasts_high (of its sequences), then the
        columns `SCORES` after the last operation as means over sequences, each with ``_low`` and ``_high``, the ends of
        Student's 95 % interval (NaN for one sequence), oldest (natural reliability of the facts of the first
        operation), seconds (per fact), failed (operations) and sequences.
    """
    endurance = find_endurance(states)
    last = states[states["operation"] == states.groupby("trajectory")["operation"].transform("max")]
    oldest, seconds, failed = _oldest(scores), _seconds(operations), _failed(operations)
    rows = []
    for contestant, part in last.groupby(CONTESTANT, sort=False):
        lasts = endurance.loc[endurance[CONTESTANT] == contestant, "lasts"]
        row: dict[str, Any] = {CONTESTANT: contestant, "lasts_low": lasts.min(), "lasts_high": lasts.max()}
        names = part["trajectory"]
        for column in SCORES:
            row |= _mean_with_interval(column, part[column].to_numpy(float))
        row["oldest"] = oldest.reindex(names).mean()
        row["seconds"] = seconds.reindex(names).mean()
        row["failed"] = int(failed.reindex(names).sum())
        row["sequences"] = len(part)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(["lasts_low", "natural"], ascending=False, ignore_index=True)


def _mean_with_interval(column: str, values: "np.ndarray[Any, np.dtype[np.float64]]") -> dict[str, float]:
    low, high = interval_of_mean(values) if len(values) > 1 and np.isfinite(values).all() else (np.nan, np.nan)
    return {column: float(values.mean()), f"{column}_low": low, f"{column}_high": high}


def _oldest(scores: pd.DataFrame) -> "pd.Series[float]":
    now = scores[(scores["task"] == EDITS) & (scores["moment"] == NOW) & (scores["example"] < scores["batch_size"])]
    rows = now[(now["metric"] == "reliability") & (now["protocol"] == "natural")]
    last = rows["operation"] == rows.groupby("trajectory")["operation"].transform("max")
    return rows[last].groupby("trajectory")["value"].mean()


def _seconds(operations: pd.DataFrame) -> "pd.Series[float]":
    return (operations["seconds"] / operations["batch_size"]).groupby(operations["trajectory"]).mean()


def _failed(operations: pd.DataFrame) -> "pd.Series[int]":
    return operations["failed"].notna().astype(int).groupby(operations["trajectory"]).sum()


def describe_endurance(endurance: pd.DataFrame) -> str:
    """Say in one sentence which contestants last, and which do not.

    Parameters
    ----------
    endurance : DataFrame
        Table of `find_endurance`.

    Returns
    -------
    str
    """
    by_name = endurance.groupby(CONTESTANT, sort=False)
    to_the_end = [str(name) for name, part in by_name if (part["ended_by"] == "").all()]
    others = {str(name): (int(part["lasts"].min()), int(part["lasts"].max())) for name, part in by_name}
    spans = [
        f"{name} {low}" if low == high else f"{name} {low} to {high}"
        for name, (low, high) in sorted(others.items(), key=lambda item: -item[1][0])
        if name not in to_the_end
    ]
    n_edits, sequences = int(endurance["edits"].max()), by_name.size()
    counts = " to ".join(dict.fromkeys([str(sequences.min()), str(sequences.max())]))
    whole = (
        f"{', '.join(to_the_end)} last{'s' * (len(to_the_end) == 1)} to the end"
        if to_the_end
        else "no method lasts to the end"
    )
    rest = f"; the others hold their facts and the model up to: {', '.join(spans)}" if spans else ""
    return f"Of {n_edits} facts, {whole}{rest} ({counts} sequence{'' if counts == '1' else 's'} each)."
