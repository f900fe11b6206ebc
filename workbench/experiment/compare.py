"""Methods side by side: what their edits reach, and what they cost."""

import time
from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from workbench.editing.editor import Editor
from workbench.evaluation.edits import DEFAULT_PROTOCOLS, Protocol, score_edits
from workbench.evaluation.statistics import summarize
from workbench.experiment.trials import batches_of
from workbench.lm import LanguageModel
from workbench.request import EditRequest


def compare_methods(
    lm: LanguageModel,
    editors: Sequence[tuple[Editor, int]],
    requests: Sequence[EditRequest],
    *,
    protocols: Sequence[Protocol] = DEFAULT_PROTOCOLS,
) -> pd.DataFrame:
    """Edit metrics of single edits by several methods, each operation on the unedited model.

    Parameters
    ----------
    lm : LanguageModel
        Unedited; left as it was.
    editors : sequence of (Editor, int)
        Methods and their numbers of facts an operation.
    requests : sequence of EditRequest
        The same N facts for each.
    protocols : sequence of str
        As for `score_edits`.

    Returns
    -------
    DataFrame
        Columns method, batch_size, metric, protocol, value, n, low, high, and seconds (of computing an update, mean an
        operation, divided by the facts in it; what is taken from the model once for all is not in it).

    Raises
    ------
    SpecError
        If a method cannot edit batches of its size.
    EditError, RequestError
        If an edit cannot be computed.
    """
    parts = []
    for editor, batch_size in editors:
        batches, editor = batches_of(editor, requests, batch_size), editor.prepared(lm)
        scores, seconds = [], 0.0
        for batch in tqdm(batches, desc=f"{editor.label}, {batch_size} a time"):
            start = time.perf_counter()
            update = editor.compute_update(lm, batch)
            seconds += time.perf_counter() - start
            with update.applied(lm):
                scores.append(score_edits(lm, batch, protocols=protocols))
        table = summarize(pd.concat(scores), ["metric", "protocol"])
        table.insert(0, "method", editor.label)
        table.insert(1, "batch_size", batch_size)
        parts.append(table.assign(seconds=seconds / len(requests)))
    return pd.concat(parts, ignore_index=True)


def as_readme_table(table: pd.DataFrame, *, protocol: Protocol = "teacher_forced") -> str:
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
