"""A trajectory: the model after each operation of a run, one state after another.

A trajectory is always walked from its beginning. Edits that the store holds are read instead of computed: a run that
was killed resumes where it was, and trajectories that begin alike share their beginnings.
"""

import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from workbench.assessment import assess
from workbench.editing.editor import Editor
from workbench.encoding import is_first_token
from workbench.errors import EditError, RequestError, UpdateError, first_line
from workbench.experiment.cache_keys import edit_key, state_after, state_of_sum, unedited_state
from workbench.experiment.guarding import admit
from workbench.experiment.measures import measure_edits, measure_perplexity
from workbench.experiment.resolved import ResolvedRun
from workbench.experiment.spec import PerplexitySpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.sequence import EditSequence
from workbench.update import WeightUpdate
from workbench.weightstats import share_changed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """A trajectory after some operations; the model is in this state until the next point is requested."""

    operation: int
    state: str
    update: WeightUpdate  # from the unedited model to this state
    scores: tuple[pd.DataFrame, ...] = ()  # of the assessed facts of each operation, right after it
    operations: tuple[dict[str, Any], ...] = ()  # rows of `Store.operations`, without the columns of the trajectory


def walk_trajectory(lm: LanguageModel, run: ResolvedRun, store: Store, editor: Editor) -> Generator[Point, None, None]:
    """Yield the model before the first operation and after each operation."""
    spec = run.spec
    unedited = base = _Base(unedited_state(lm), WeightUpdate({}))
    point = Point(0, unedited.state, unedited.update)
    watch = _PerplexityWatch(lm, store, spec.perplexity, unedited.state)
    yield point
    accumulated = spec.make_accumulated()
    for operation, batch in enumerate(run.batches, start=1):
        base = base if spec.setting == "sequential" else unedited
        key, regularizer = edit_key(base.state, editor, batch), spec.make_regularizer(operation)
        # earlier edits as one: only their sum is in memory
        sequence = EditSequence(lm, accumulated=accumulated, feed_back=spec.feed_back, start=base.update)
        edit = _read_or_compute(sequence, store, key, editor, batch)
        row = {"subject": batch[0].name, "seconds": edit.seconds, "failed": edit.failed}
        row["first_token"] = any(is_first_token(lm.tokenizer, request) for request in batch)
        update = edit.update
        if update is not None:
            with sequence.base.applied(lm):
                row |= _describe(update, lm)
            if spec.guard is not None:
                guard = spec.guard.make_guard()
                admitted = admit(sequence, store, guard, editor, update, key, regularizer)
                update, regularizer, key = admitted.update, admitted.regularizer, admitted.key
                row |= {"repair": admitted.repair, "failed": admitted.failed}
                row["seconds"] = edit.seconds + admitted.seconds
        if update is None:
            state = point.state if spec.setting == "sequential" else unedited.state
        else:
            added = sequence.add(update, regularizer, seconds=edit.seconds, operation=operation)
            row |= {"applied_norm": added.update.norm(), "share_applied": share_changed(added.update)}
            plain = state_after(base.state, key, regularizer)
            state = state_of_sum(plain, accumulated)
            base = _Base(state if spec.feed_back else plain, sequence.base)
        facts = run.assessed_facts((operation - 1) * spec.batch_size, operation * spec.batch_size)
        with sequence.applied():
            scores = (measure_edits(lm, store, state, facts, spec.edit_protocols),) if facts else ()
            row |= watch.measure(state)
            so_far = (*point.scores, *scores), (*point.operations, row)
            point = Point(operation, state, sequence.total, *so_far)
            yield point


@dataclass(frozen=True)
class _Base:
    """The model that an edit is computed on: another one than is measured, if a regularized sum is not fed back."""

    state: str
    update: WeightUpdate  # from the unedited model to this state


class _PerplexityWatch:
    """The perplexity after every operation, beside that of the unedited model, where the spec asks for it."""

    def __init__(self, lm: LanguageModel, store: Store, asked: PerplexitySpec | None, unedited_state: str) -> None:
        self._lm, self._store = lm, store
        self._asked = asked.model_copy(update={"limit": asked.each}) if asked and asked.each else None
        self._unedited = self._perplexity(unedited_state)

    def measure(self, state: str) -> dict[str, float | None]:
        """Return the columns of `Store.operations` about the current model, which is in `state`."""
        return {"perplexity_unedited": self._unedited, "perplexity": self._perplexity(state)}

    def _perplexity(self, state: str) -> float | None:
        if self._asked is None:
            return None
        return float(measure_perplexity(self._lm, self._store, state, self._asked)["value"].iloc[0])


@dataclass(frozen=True)
class _Edit:
    """The update that a method computed for some facts, or why it failed."""

    update: WeightUpdate | None
    seconds: float
    failed: str | None


def _read_or_compute(
    sequence: EditSequence, store: Store, key: str, editor: Editor, batch: tuple[EditRequest, ...]
) -> _Edit:
    record, tensors = f"edits/{key}.json", f"edits/{key}.safetensors"
    known = store.read_json(record)
    if known is not None and set(known) == {"seconds", "failed"}:
        update = None if known["failed"] else store.read_update(tensors)
        if known["failed"] or update is not None:
            return _Edit(update, **known)
    known = _compute(sequence, store, tensors, editor, batch)
    store.write_json(record, known)
    # read back even if just computed: factors from a file and from a GPU may differ when they are multiplied out
    update = None if known["failed"] else store.read_update(tensors)
    return _Edit(update, **known)


def _compute(
    sequence: EditSequence, store: Store, tensors: str, editor: Editor, batch: tuple[EditRequest, ...]
) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        update = sequence.compute(batch, editor)
    except (EditError, RequestError, UpdateError, torch.linalg.LinAlgError) as err:
        log.warning("%s of %r failed: %s", editor.label, batch[0].name, first_line(err))
        return {"seconds": time.perf_counter() - start, "failed": first_line(err)}
    seconds = time.perf_counter() - start
    store.write_update(tensors, update)
    return {"seconds": seconds, "failed": None}


def _describe(computed: WeightUpdate, lm: LanguageModel) -> dict[str, Any]:
    """Return the columns of `Store.operations` about an update that is about to be added to the weights of `lm`."""
    steps = [n for record in computed.records for n in record.steps]
    found = assess(computed, lm)
    return {
        "norm": computed.norm(),
        "relative_norm": computed.relative_norm(lm),
        "spectral_ratio": found.spectral_ratio,
        "denominator": found.denominator,
        "probe_kl": found.kl,
        "condition_growth": found.condition_growth,
        "steps": sum(steps) / len(steps) if steps else None,
    }
