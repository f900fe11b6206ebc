"""Single edits of facts at hand, each on the unedited model, without a store.

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


def batches_of(editor: Editor, requests: Sequence[EditRequest], batch_size: int) -> list[list[EditRequest]]:
    """Requests in the batches that make one operation each; the last may be smaller.

    Parameters
    ----------
    editor : Editor
        The method.
    requests : sequence of EditRequest
        N facts.
    batch_size : int
        Facts an operation.

    Returns
    -------
    list of list of EditRequest

    Raises
    ------
    SpecError
        If the batch size is below 1, or above 1 for a method that edits one fact an operation.
    """
    if batch_size < 1:
        raise SpecError(f"batch_size must be at least 1; got {batch_size}.")
    if batch_size > 1 and not editor.supports_batch:
        raise SpecError(f"{editor.label} edits one fact an operation, so batch_size must be 1; got {batch_size}.")
    return [list(requests[i : i + batch_size]) for i in range(0, len(requests), batch_size)]


def single_updates(
    lm: LanguageModel, editor: Editor, requests: Sequence[EditRequest], *, batch_size: int = 1
) -> list[WeightUpdate]:
    """The update of each operation, computed on the model as it is now; nothing is applied.

    Parameters
    ----------
    lm : LanguageModel
        Usually unedited.
    editor : Editor
        Its contexts are sampled once for all requests, unless given.
    requests : sequence of EditRequest
        N facts.
    batch_size : int
        Facts an operation.

    Returns
    -------
    list of WeightUpdate
        One a batch.

    Raises
    ------
    SpecError
        If the method cannot edit batches of that size.
    EditError, RequestError
        If an edit cannot be computed.
    """
    batches, editor = batches_of(editor, requests, batch_size), editor.prepared(lm)
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
    """Edit metrics of each single edit under each regularizer; each update is computed once for all of them.

    Parameters
    ----------
    lm : LanguageModel
        The model that the updates were computed on; left as it was.
    updates, requests : sequence of WeightUpdate, sequence of EditRequest
        One update a batch of requests.
    regularizers : sequence of Regularizer
        Applied to every update.
    batch_size : int
        Facts an operation, as the updates were computed.
    protocols : sequence of str
        As for `score_edits`.

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
