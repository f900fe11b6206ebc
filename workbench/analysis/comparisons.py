"""Methods side by side: what their edits reach, and what they cost."""

import pandas as pd

from workbench.analysis.tables import edit_metrics
from workbench.evaluation.edits import EditProtocol


def compare_methods(results: pd.DataFrame, operations: pd.DataFrame) -> pd.DataFrame:
    """Edit metrics and cost of methods, from experiments with single edits.

    Parameters
    ----------
    results : DataFrame
        From `workbench.run`; one trajectory a method and batch size.
    operations : DataFrame
        From `Store.operations`, of the same trajectories.

    Returns
    -------
    DataFrame
        Columns method, batch_size, metric, protocol, value, n, low, high, and seconds (of computing an update, mean
        over operations, divided by the facts in one; what is taken from the model once for all is not in it).
    """
    table = edit_metrics(results)[["method", "batch_size", "metric", "protocol", "value", "n", "low", "high"]]
    seconds = operations.groupby(["method", "batch_size"], as_index=False)["seconds"].mean()
    seconds["seconds"] /= seconds["batch_size"]
    return table.merge(seconds, on=["method", "batch_size"], validate="many_to_one")


def as_readme_table(table: pd.DataFrame, *, protocol: EditProtocol = "teacher_forced") -> str:
    """The comparison as a Markdown table: one row a method and batch size.

    Parameters
    ----------
    table : DataFrame
        From `compare_methods`.
    protocol : str
        Whose scores are shown.

    Returns
    -------
    str
        Columns method, facts an operation, reliability, generalization, locality (95 % interval), seconds an edit.
    """
    chosen = table[table["protocol"] == protocol]
    metrics = list(dict.fromkeys(chosen["metric"]))
    lines = [
        f"| method | facts an operation | {' | '.join(metrics)} | seconds an edit |",
        "| --- | ---: |" + " --- |" * len(metrics) + " ---: |",
    ]
    for (method, batch_size), rows in chosen.groupby(["method", "batch_size"], sort=False):
        scores = [f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows.itertuples()]
        lines.append(f"| {method} | {batch_size} | {' | '.join(scores)} | {rows['seconds'].iloc[0]:.2g} |")
    return "\n".join(lines)
