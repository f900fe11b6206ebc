"""Retention: how the scores of edited facts depend on how many operations came after theirs."""

import numpy as np
import pandas as pd

from workbench.analysis.curves import SERIES, interval_of_mean
from workbench.evaluation.edits import METRICS
from workbench.experiment.measures import EDITS, NOW

_BY = [*SERIES, "facts", "metric", "protocol"]


def retention_by_age(scores: pd.DataFrame, *, width: int = 10) -> pd.DataFrame:
    """Average the scores of edited facts by age, the number of operations since their own.

    Every checkpoint contributes the facts edited so far; a fact that several checkpoints see at the same age range
    counts once for each. The interval is over trajectories: facts of one sequence share its model.

    Parameters
    ----------
    scores : DataFrame
        Table of `Store.scores`, of sequences.
    width : int
        Number of ages per group.

    Returns
    -------
    DataFrame
        Columns method, regularizer, setting, batch_size, facts, metric, protocol, age (mean of the group), value (mean
        of the means of trajectories), low, high (Student's 95 % interval; NaN for one trajectory), trajectories, n
        (scores).
    """
    now = scores[(scores["task"] == EDITS) & (scores["moment"] == NOW)]
    age = now["operation"] - now["example"] // now["batch_size"] - 1
    now = now.assign(age=age, group=age // width)
    rows = []
    for group, part in now.groupby([*_BY, "group"], sort=False, dropna=False):
        means = part.groupby("trajectory")["value"].mean().to_numpy()
        low, high = interval_of_mean(means) if len(means) > 1 else (np.nan, np.nan)
        rows.append((*group[:-1], part["age"].mean(), means.mean(), low, high, len(means), len(part)))
    table = pd.DataFrame(rows, columns=[*_BY, "age", "value", "low", "high", "trajectories", "n"])
    order = table["metric"].map({metric: i for i, metric in enumerate(METRICS)})
    return (
        table.assign(order=order).sort_values(["order", "age"], kind="stable", ignore_index=True).drop(columns="order")
    )
