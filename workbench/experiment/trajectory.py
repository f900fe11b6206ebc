"""A trajectory: the model after each operation of a spec, one state after another.

It is always walked from its beginning. Edits that the store holds are read instead of computed, by what they hang on: a
run that was killed goes on where it was, and trajectories that begin alike share their beginnings.
"""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch

from workbench.editing.editor import Editor
from workbench.errors import EditError, RequestError, first_line
from workbench.experiment.cache_keys import edit_key, state_after, unedited_state
from workbench.experiment.measures import edit_scores
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """A trajectory after some operations; the model is in this state while the point is looked at."""

    operation: int
    state: str
    update: WeightUpdate  # from the unedited model to this state
    requests: tuple[EditRequest, ...]  # edited so far; before the first operation, those to come
    scores: tuple[pd.DataFrame, ...] = ()  # of each operation's facts, right after it
    operations: tuple[dict, ...] = ()  # what `Store.operations` says of each, but which it is


def points(lm: LanguageModel, spec: ExperimentSpec, store: Store, editor: Editor) -> Iterator[Point]:
    """The model before the first operation and after each, in turn."""
    batches = spec.draw_requests()
    unedited = point = Point(0, unedited_state(lm), WeightUpdate({}), tuple(r for batch in batches for r in batch))
    yield point
    done: tuple[EditRequest, ...] = ()
    for operation, batch in enumerate(batches, start=1):
        before = point if spec.setting == "sequential" else unedited
        key, regularizer = edit_key(before.state, editor, batch), spec.make_regularizer(operation)
        with before.update.applied(lm):
            edit = _edit(lm, store, key, editor, batch)
            update = regularizer(edit.update, lm)
            row = _operation_row(edit, update, lm, batch)
        state = before.state if edit.failed else state_after(before.state, key, regularizer)
        # the sum is applied to the unedited weights, so that what is kept of a state is exactly what was measured
        total, done = before.update + update, done + batch
        with total.applied(lm):
            scores = edit_scores(lm, store, state, batch, spec.edit_protocols)
            point = Point(operation, state, total, done, (*point.scores, scores), (*point.operations, row))
            yield point


@dataclass(frozen=True)
class Edit:
    """What a method made of some facts."""

    update: WeightUpdate  # empty if it failed
    seconds: float
    failed: str | None  # why


def _edit(lm: LanguageModel, store: Store, key: str, editor: Editor, batch: tuple[EditRequest, ...]) -> Edit:
    """What the method makes of a batch on the model as it is now: read from the store, or computed and kept."""
    record, tensors = f"edits/{key}.json", f"edits/{key}.safetensors"
    if (known := store.read_json(record)) is None:
        known = _computed(lm, store, tensors, editor, batch)
        store.write_json(record, known)
    # read back even if just computed: factors from a file and from a GPU may differ when they are multiplied out
    update = WeightUpdate({}) if known["failed"] else store.read_update(tensors)
    return Edit(update, **known)


def _computed(lm: LanguageModel, store: Store, tensors: str, editor: Editor, batch: tuple[EditRequest, ...]) -> dict:
    start = time.perf_counter()
    try:
        update = editor.compute_update(lm, list(batch))
        if bad := [name for name in update if not torch.isfinite(update.delta(name)).all()]:
            raise EditError(f"the update of {bad[0]} is not finite.")
    except (EditError, RequestError, torch.linalg.LinAlgError) as err:
        log.warning("%s of %r failed: %s", editor.label, batch[0].subject, first_line(err))
        return {"seconds": time.perf_counter() - start, "failed": first_line(err)}
    seconds = time.perf_counter() - start
    store.write_update(tensors, update)
    return {"seconds": seconds, "failed": None}


def _operation_row(edit: Edit, applied: WeightUpdate, lm: LanguageModel, batch: tuple[EditRequest, ...]) -> dict:
    """What the table of operations says of one; norms are of all edited matrices together."""
    row = {"subject": batch[0].subject, "seconds": edit.seconds, "failed": edit.failed}
    if edit.failed:
        return row
    [info] = edit.update.info
    norm, norm_before = (_norm(parts) for parts in (map(edit.update.delta, edit.update), map(lm.weight, edit.update)))
    return {
        **row,
        "norm": norm,
        "relative_norm": norm / norm_before,
        "applied_norm": _norm(map(applied.delta, applied)),
        "denominator": info.get("denominator"),
        "steps": len(info["losses"]) if "losses" in info else None,
    }


def _norm(matrices: Iterable[torch.Tensor]) -> float:
    """Frobenius norm of all together."""
    return math.sqrt(sum(float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2 for matrix in matrices))
