"""Sweeps over a hyperparameter: which layer, which rates."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from workbench.editing.rome import ROME
from workbench.evaluation.statistics import summarize
from workbench.experiment.trials import score_single_edits, single_updates
from workbench.lm import LanguageModel
from workbench.regularize import Unregularized
from workbench.request import EditRequest


def sweep(
    lm: LanguageModel, editor: ROME, requests: Sequence[EditRequest], *, field: str, values: Sequence[Any]
) -> pd.DataFrame:
    """Edit metrics of single edits for each value of one hyperparameter, the others as in `editor`.

    Parameters
    ----------
    lm : LanguageModel
        Unedited.
    editor : ROME
        The hyperparameters that stay.
    requests : sequence of EditRequest
        The same facts for each value.
    field : str
        Name of a field of `editor`.
    values : sequence
        What it takes.

    Returns
    -------
    DataFrame
        Columns named after the field, metric, protocol, value, n, low, high, and relative_norm (mean ‖ΔW‖/‖W‖) and
        steps (mean number of optimisation steps).

    Raises
    ------
    EditError, RequestError
        If an edit cannot be computed.
    """
    editor = editor.prepared(lm)
    parts = []
    for value in values:
        updates = single_updates(lm, replace(editor, **{field: value}), requests)
        scores = score_single_edits(lm, updates, requests, [Unregularized()])
        info = pd.DataFrame([update.info[0] for update in updates])
        part = summarize(scores, ["metric", "protocol"])
        part.insert(0, field, value)
        parts.append(part.assign(relative_norm=info["relative_norm"].mean(), steps=info["losses"].map(len).mean()))
    return pd.concat(parts, ignore_index=True)
