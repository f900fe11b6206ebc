"""Single edits of given facts, each on the unedited model, without a store.

An edit is one operation on one fact or, where the method can, on a batch of facts.
"""

from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from workbench.editing.editor import Editor
from workbench.errors import SpecError
from workbench.evaluation.edits import DEFAULT_PROTOCOLS, EditProtocol, score_edits
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer
from workbench.request import EditRequest
from workbench.update import WeightUpdate


def split_batches(editor: Editor, requests: Sequence[EditRequest], batch_size: int) -> list[list[EditRequest]]:
    """Split requests into the batches of one operation each; the last batch may be smaller.

    Parameters
    ----------
    editor : Editor
        The editing method.
    requests : sequence of EditRequest
        The N facts.
    batch_size : int
        Number of facts per operation.

    Returns
    -------
    list of list of EditRequest

    Raises
    ------
    SpecError
        If the batch size is below 1, or above 1 for a method that edits one fact per operation.
    """
    if batch_size < 1:
        raise SpecError(f"batch_size must be at least 1; got {batch_size}.")
    if batch_size > 1 and not editor.supports_batch:
        raise SpecError(f"{editor.label} edits one fact per operation, so batch_size must be 1; got {batch_size}.")
    return [list(requests[i : i + batch_size]) for i in range(0, len(requests), batch_size)]


def compute_single_updates(
    lm: LanguageModel, editor: Editor, requests: Sequence[EditRequest], *, batch_size: int = 1
) -> list[WeightUpdate]:
    """Compute the update of each operation on the current model; nothing is applied.

    Parameters
    ----------
    lm : LanguageModel
        The model, usually unedited.
    editor : Editor
        The editing method; its contexts are sampled once for all requests, unless given.
    requests : sequence of EditRequest
        The N facts.
    batch_size : int
        Number of facts per operation.

    Returns
    -------
    list of WeightUpdate
        One update per batch.

    Raises
    ------
    SpecError
        If the method cannot edit batches of that size.
    EditError, RequestError
        If an edit cannot be computed.
    """
    batches, editor = split_batches(editor, requests, batch_size), editor.prepared(lm)
    return [editor.compute_update(lm, batch) for batch in tqdm(batches, desc=f"{editor.label}, single edits")]


def score_single_edits(
    lm: LanguageModel,
    updates: Sequence[WeightUpdate],
    requests: Sequence[EditRequest],
    regularizers: Sequence[Regularizer],
    *,
    batch_size: int = 1,
    protocols: Sequence[EditProtocol] = DEFAULT_PROTOCOLS,
) -> pd.DataFrame:
    """Score each single edit under each regularizer; the updates are shared by all regularizers.

    Parameters
    ----------
    lm : LanguageModel
        The model that the updates were computed on; left unchanged.
    updates, requests : sequence of WeightUpdate, sequence of EditRequest
        One update per batch of requests.
    regularizers : sequence of Regularizer
        Regularizers to apply to every update.
    batch_size : int
        Number of facts per operation, as for the updates.
    protocols : sequence of str
        Protocols of the metrics, as for `score_edits`.

    Returns
    -------
    DataFrame
        Columns request, regularizer, metric, protocol, value.
    """
    parts = []
    batches = [list(requests[i : i + batch_size]) for i in range(0, len(requests), batch_size)]
    for i, (update, batch) in enumerate(zip(tqdm(updates, desc="Scoring edits"), batches, strict=True)):
        for regularizer in regularizers:
            with regularizer(update, lm).applied(lm):
                scores = score_edits(lm, batch, protocols=protocols)
            scores["request"] += i * batch_size
            parts.append(scores.assign(regularizer=regularizer.label))
    table = pd.concat(parts, ignore_index=True)
    return table[["request", "regularizer", "metric", "protocol", "value"]]
