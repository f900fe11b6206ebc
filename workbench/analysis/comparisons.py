"""Comparison of methods: the scores of their edits, and their cost."""

import pandas as pd

from workbench.analysis.tables import select_edit_metrics
from workbench.evaluation.edits import EditProtocol


def compare_methods(results: pd.DataFrame, operations: pd.DataFrame) -> pd.DataFrame:
    """Compare the edit metrics and the cost of methods, from experiments with single edits.

    Parameters
    ----------
    results : DataFrame
        Table of `workbench.run`, with one trajectory per method and batch size.
    operations : DataFrame
        Table of `Store.operations`, of the same trajectories.

    Returns
    -------
    DataFrame
        Columns method, batch_size, metric, protocol, value, n, low, high, and seconds (to compute an update, mean over
        operations, divided by the facts of an operation; without the preparation of the method).
    """
    table = select_edit_metrics(results)[["method", "batch_size", "metric", "protocol", "value", "n", "low", "high"]]
    seconds = operations.groupby(["method", "batch_size"], as_index=False)["seconds"].mean()
    seconds["seconds"] /= seconds["batch_size"]
    return table.merge(seconds, on=["method", "batch_size"], validate="many_to_one")


def format_comparison(table: pd.DataFrame, *, protocol: EditProtocol = "teacher_forced") -> str:
    """Return the comparison as a Markdown table with one row per method and batch size.

    Parameters
    ----------
    table : DataFrame
        Table of `compare_methods`.
    protocol : str
        Protocol of the scores to show.

    Returns
    -------
    str
        Columns method, facts per operation, one per metric (95 % interval), seconds per edit.
    """
    chosen = table[table["protocol"] == protocol]
    metrics = list(dict.fromkeys(chosen["metric"]))
    lines = [
        f"| method | facts per operation | {' | '.join(metrics)} | seconds per edit |",
        "| --- | ---: |" + " --- |" * len(metrics) + " ---: |",
    ]
    for (method, batch_size), rows in chosen.groupby(["method", "batch_size"], sort=False):
        scores = [f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows.itertuples()]
        lines.append(f"| {method} | {batch_size} | {' | '.join(scores)} | {rows['seconds'].iloc[0]:.2g} |")
    return "\n".join(lines)
