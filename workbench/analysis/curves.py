"""Curves over edits from the results of experiments: one value per point, with its interval."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from workbench.analysis.effects import crossed_effect
from workbench.evaluation.abilities import select_headlines
from workbench.evaluation.statistics import student_interval
from workbench.evaluation.tasks import TASKS

SERIES = ["method", "regularizer", "setting", "batch_size"]  # columns that identify a curve
_PLACE = ["task", "metric", "protocol", "source", "split", "moment", "parameter", "at"]
OVER_SEEDS, OVER_EXAMPLES = "seeds", "examples"


def average_over_seeds(results: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Average every score of every trajectory over seeds, at each number of edits.

    Parameters
    ----------
    results : DataFrame
        Table of `workbench.run`.
    confidence : float
        Confidence level of the interval, between 0 and 1.

    Returns
    -------
    DataFrame
        Columns method, regularizer, setting, batch_size, n_edits, those that identify the score, value, low, high,
        n (examples per seed), seeds, and `spread`. With several seeds, low and high are the ends of Student's interval
        of their mean, and spread is ``seeds``; with one seed they are those of the trajectory, over examples, and
        spread is ``examples``.
    """
    rows = []
    by = [*SERIES, "operation", "n_edits", *_PLACE]
    for group, part in results.groupby(by, sort=False, dropna=False):
        low, high, spread = _interval(part, confidence)
        mean = part["value"].mean()
        rows.append((*group, mean, low, high, part["n"].max(), part["seed"].nunique(), spread))
    table = pd.DataFrame(rows, columns=[*by, "value", "low", "high", "n", "seeds", "spread"])
    return table.astype({"n": "Int64"})


def _interval(part: pd.DataFrame, confidence: float) -> tuple[float, float, str]:
    values = part["value"].to_numpy()
    if len(values) == 1:
        return *part[["low", "high"]].iloc[0], OVER_EXAMPLES
    return *interval_of_mean(values, confidence=confidence), OVER_SEEDS


def interval_of_mean(values: npt.NDArray[np.float64], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of Student's interval of the mean of independent values (at least two); a point if all agree."""
    if np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    return student_interval(values, confidence=confidence)


def label_series(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column `series`, which names the curves of a table.

    Parameters
    ----------
    table : DataFrame
        Table with the columns method, regularizer and batch_size.

    Returns
    -------
    DataFrame
        The table with the column `series`, made of those of the three that differ, or of the method if none does.
    """
    parts = [table["method"], table["regularizer"], table["batch_size"].astype(str) + " facts at once"]
    varying = [part for part in parts if part.nunique() > 1] or parts[:1]
    return table.assign(series=pd.concat(varying, axis=1).agg(", ".join, axis=1))


def join_batch_sizes(results: pd.DataFrame) -> pd.DataFrame:
    """Join single operations with several batch sizes into one curve: the unedited model, then each size.

    Parameters
    ----------
    results : DataFrame
        Table of `workbench.run`, of single operations.

    Returns
    -------
    DataFrame
        The rows after the first operation and one set of those before it, with one setting and batch size, so that only
        `n_edits` distinguishes them.
    """
    kept = results[results["operation"] <= 1].drop(columns="trajectory").assign(setting="single", batch_size=0)
    kept["operation"] = kept["n_edits"]
    return kept.drop_duplicates([*SERIES, "seed", "n_edits", *_PLACE])


def trace_perplexity(operations: pd.DataFrame) -> pd.DataFrame:
    """Return the perplexity of every trajectory after every operation, and before the first.

    Parameters
    ----------
    operations : DataFrame
        Table of `Store.operations`, of sequences whose specs measure the perplexity after every operation.

    Returns
    -------
    DataFrame
        Columns method, regularizer, setting, batch_size, trajectory, n_edits and value.
    """
    columns = [*SERIES, "trajectory"]
    rows = operations.dropna(subset=["perplexity"])
    after = rows.assign(n_edits=rows["operation"] * rows["batch_size"], value=rows["perplexity"])
    before = rows.drop_duplicates("trajectory").assign(n_edits=0).assign(value=rows["perplexity_unedited"])
    table = pd.concat([before, after])[[*columns, "n_edits", "value"]]
    return table.sort_values(["trajectory", "n_edits"], ignore_index=True)


def describe_runs(results: pd.DataFrame) -> str:
    """Return a caption: models, methods, facts, and the numbers of sequences and of examples per ability.

    Parameters
    ----------
    results : DataFrame
        Table of `workbench.run`.

    Returns
    -------
    str
        One line of text.
    """
    parts = [", ".join(dict.fromkeys(results[column])) for column in ("model", "method", "facts")]
    counts = results.groupby("regularizer", sort=False)["seed"].nunique()
    draws = " to ".join(dict.fromkeys([str(counts.min()), str(counts.max())]))
    examples = results.loc[results["task"].isin(TASKS) & results["n"].notna(), "n"]
    parts.append(f"{draws} sequence{'' if draws == '1' else 's'} per curve")
    if len(examples):
        parts.append(f"{' to '.join(dict.fromkeys([str(examples.min()), str(examples.max())]))} examples per ability")
    return " · ".join(parts)


def split_abilities(curves: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of the headline scores of abilities, with title and floor, and those of perplexity."""
    abilities = curves[curves["task"].isin(TASKS)]
    return select_headlines(abilities), curves[curves["task"] == "perplexity"]


def select_smooth(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the smooth scores of abilities, with the title of each."""
    rows = table[table["task"].isin(TASKS)]
    rows = rows[rows["metric"] == rows["task"].map({name: task.smooth for name, task in TASKS.items()})]
    return rows.assign(title=rows["task"].map({name: task.title for name, task in TASKS.items()}))


def smooth_changes(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `select_smooth` with the column `change`, against the same example under the unedited model.

    Parameters
    ----------
    scores : DataFrame
        Table of `Store.scores`, of sequences.

    Returns
    -------
    DataFrame
        In nats per token; 0 before the first operation.
    """
    rows = select_smooth(scores)
    place = ["trajectory", "task", "protocol", "source", "split", "example"]
    unedited = rows.loc[rows["operation"] == 0, [*place, "value"]]
    rows = rows.merge(unedited, on=place, suffixes=("", "_unedited"), validate="many_to_one")
    return rows.assign(change=rows["value"] - rows["value_unedited"])


def change_smooth(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare the smooth score of every example with that under the unedited model, and average the changes.

    Parameters
    ----------
    scores : DataFrame
        Table of `Store.scores`, of sequences.

    Returns
    -------
    DataFrame
        Columns method, regularizer, setting, batch_size, n_edits, task, title, value (mean change, in nats per token),
        low and high (95 % interval over sequences and examples as in `crossed_effect`; over examples for one sequence),
        n (examples), seeds.
    """
    rows, changes = smooth_changes(scores), []
    for group, part in rows.groupby([*SERIES, "n_edits", "task", "title"], sort=False):
        wide = part.pivot(index="trajectory", columns="example", values="change").dropna(axis="columns").to_numpy()
        effect = crossed_effect([wide])
        low, high = (effect.low, effect.high) if len(wide) > 1 else student_interval(wide[0])
        if not wide.any():  # before the first edit
            low = high = 0.0
        changes.append((*group, effect.value, low, high, wide.shape[1], len(wide)))
    columns = [*SERIES, "n_edits", "task", "title", "value", "low", "high", "n", "seeds"]
    return pd.DataFrame(changes, columns=columns)
