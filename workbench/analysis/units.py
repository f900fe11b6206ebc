"""Units: what each edit sequence did to a model, one row per sequence, regularizer and number of edits.

A sequence of edits is one unit. In the setting ``single`` each operation edits the unedited model, so that every
operation is a unit of its own: a sequence of one.
"""

import numpy as np
import pandas as pd

from workbench.analysis.contrasts import FEWEST_SEQUENCES
from workbench.analysis.curves import smooth_changes
from workbench.experiment.measures import AFTER_EDIT, EDITS, NOW

# how much of the model is kept: more is better, and 0 (1 for locality) is the unedited model
KEPT = {
    "likelihood": "log-likelihood of the reference answers of the tasks, change in nats per token",
    "text": "log-likelihood of held-out text, change in nats per token",
    "locality": "share of answers to unrelated prompts that are as before",
}
ARM = ["model", "method", "hyperparameters", "setting", "batch_size", "facts", "n_edits"]
_POINT = ["trajectory", "operation"]


def measure_units(
    results: pd.DataFrame, scores: pd.DataFrame, operations: pd.DataFrame, *, protocol: str = "natural"
) -> pd.DataFrame:
    """Measure what the edits of each unit wrote and what they changed beside it.

    Parameters
    ----------
    results, scores, operations : DataFrame
        Tables of `Store.results`, `Store.scores` and `Store.operations`, of the same trajectories.
    protocol : str
        Protocol of the scores of the edits.

    Returns
    -------
    DataFrame
        One row per unit, regularizer and number of edits: the columns of `ARM`, regularizer, draw, seed, trajectory,
        operation, unit (a name that the regularizers of one sequence share), reliability, generalization, locality,
        editing (mean of the first two), likelihood and text (as in `KEPT`), kl (drift, in nats per token), share (of
        the entries that were applied, mean over operations). What was not measured is NaN.
    """
    places = [*ARM, "regularizer", "draw", "seed"]
    units = results.loc[results["operation"] > 0, [*_POINT, *places]].drop_duplicates(_POINT).dropna(subset=["draw"])
    single = units["setting"].str.startswith("single")
    numbered = (":" + units["operation"].astype(str)).where(single, "")
    units = units.assign(
        unit=units["draw"].astype(str) + numbered, n_edits=units["n_edits"].where(~single, units["batch_size"])
    )
    numbers = [
        _edit_scores(scores, protocol),
        change_of_likelihood(scores).rename("likelihood"),
        _change_of_text(results),
        _values(results, "kl").rename("kl"),
        _shares(operations),
    ]
    units = units.merge(pd.concat(numbers, axis=1).reset_index(), on=_POINT, how="left")
    return units.assign(editing=units[["reliability", "generalization"]].mean(axis=1)).reset_index(drop=True)


def last_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each model, method, setting and batch size at its largest number of edits."""
    by = [column for column in ARM if column != "n_edits"]
    return table[table["n_edits"] == table.groupby(by)["n_edits"].transform("max")]


def not_enough(units: int) -> str:
    """Say that a number of edit sequences decides nothing."""
    sequences = "edit sequence is" if units == 1 else "edit sequences are"
    return f"{units} {sequences} not enough for a statement, {FEWEST_SEQUENCES} are"


def _edit_scores(scores: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return the mean scores of the facts of each unit: those edited so far, or in the setting single, just now."""
    rows = scores[(scores["task"] == EDITS) & (scores["protocol"] == protocol) & (scores["operation"] > 0)]
    single = rows["setting"].str.startswith("single")
    own = rows["example"] // rows["batch_size"] + 1 == rows["operation"]
    rows = rows[(rows["moment"] == AFTER_EDIT) & single & own | (rows["moment"] == NOW) & ~single]
    means = rows.groupby([*_POINT, "metric"])["value"].mean().unstack()
    return means.reindex(columns=["reliability", "generalization", "locality"])


def change_of_likelihood(scores: pd.DataFrame) -> "pd.Series[float]":
    """Return the change of the smooth score against the unedited model, mean over examples and then over tasks.

    Parameters
    ----------
    scores : DataFrame
        Table of `Store.scores`.

    Returns
    -------
    Series
        In nats per token, by trajectory and operation; 0 before the first one.
    """
    of_tasks = smooth_changes(scores).groupby([*_POINT, "task"])["change"].mean()
    return of_tasks.groupby(_POINT).mean()


def _change_of_text(results: pd.DataFrame) -> "pd.Series[float]":
    """Return the change of the log-likelihood per token of held-out text: minus that of the log perplexity."""
    logs = _values(results, "perplexity").map(np.log)
    unedited = logs[logs.index.get_level_values("operation") == 0].droplevel("operation")
    before = unedited.reindex(logs.index.get_level_values("trajectory")).to_numpy()
    return (before - logs).rename("text")


def _values(results: pd.DataFrame, metric: str) -> "pd.Series[float]":
    return results[results["metric"] == metric].groupby(_POINT)["value"].mean()


def _shares(operations: pd.DataFrame) -> "pd.Series[float]":
    """Return the share of entries that was applied: of one operation, or the mean of those so far."""
    rows = operations.sort_values(_POINT).set_index(_POINT)
    so_far = rows["share_applied"].groupby("trajectory").expanding().mean().droplevel(0)
    return rows["share_applied"].where(rows["setting"].str.startswith("single"), so_far).rename("share")
