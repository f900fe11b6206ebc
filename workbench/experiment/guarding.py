"""The guard of an experiment: its decision about each edit, kept in the store as edits are."""

import time
from dataclasses import dataclass
from typing import Any

from workbench.assessment import Guard
from workbench.editing.editor import Editor
from workbench.errors import RiskError, first_line
from workbench.experiment.cache_keys import key_of
from workbench.experiment.store import Store
from workbench.regularize import Regularizer, from_settings, settings_of
from workbench.sequence import EditSequence
from workbench.update import WeightUpdate

REFUSED = "refused"


@dataclass(frozen=True)
class Admission:
    """What a guard made of one edit.

    Attributes
    ----------
    update : WeightUpdate or None
        The update to add; None for a refused one.
    regularizer : Regularizer
        The regularizer that it goes through.
    key : str
        What identifies the update.
    repair : str or None
        Name of the repair, ``"refused"``, or None where the edit is added as it was computed.
    failed : str or None
        Why it was refused.
    seconds : float
        Time that the decision took.
    """

    update: WeightUpdate | None
    regularizer: Regularizer
    key: str
    repair: str | None
    failed: str | None
    seconds: float


def admit(
    sequence: EditSequence,
    store: Store,
    guard: Guard,
    editor: Editor,
    computed: WeightUpdate,
    key: str,
    regularizer: Regularizer,
) -> Admission:
    """Return the guard's decision about an edit, from the store if it is known.

    Parameters
    ----------
    sequence : EditSequence
        The edits so far.
    store : Store
        Where the decision is kept.
    guard : Guard
        The guard.
    editor : Editor
        The method that computed the update.
    computed : WeightUpdate
        The update as it was computed on the base of the sequence.
    key : str
        What identifies the update.
    regularizer : Regularizer
        The regularizer that it is about to go through.

    Returns
    -------
    Admission
    """
    own = key_of("guard", key, settings_of(regularizer), guard.limit, guard.repairs)
    record, tensors = f"guards/{own}.json", f"guards/{own}.safetensors"
    known = store.read_json(record)
    update = None if known is None or not known["replaced"] else store.read_update(tensors)
    if known is None or (known["replaced"] and update is None):
        known = _decide(sequence, store, tensors, guard, editor, computed, regularizer)
        store.write_json(record, known)
        update = store.read_update(tensors) if known["replaced"] else None
    repair, failed, seconds = known["repair"], known["failed"], known["seconds"]
    if repair == REFUSED:
        return Admission(None, regularizer, key, repair, failed, seconds)
    chosen = from_settings(known["regularizer"])
    if update is not None:
        return Admission(update, chosen, own, repair, None, seconds)
    return Admission(computed, chosen, key, repair, None, seconds)


def _decide(
    sequence: EditSequence,
    store: Store,
    tensors: str,
    guard: Guard,
    editor: Editor,
    computed: WeightUpdate,
    regularizer: Regularizer,
) -> dict[str, Any]:
    start, failed = time.perf_counter(), None
    update, chosen, repair = computed, regularizer, None
    try:
        with sequence.base.applied(sequence.lm):
            update, admitted = guard.admit(computed, editor, regularizer, sequence.lm)
        chosen = admitted or regularizer
    except RiskError as err:
        repair, failed = REFUSED, first_line(err)
    else:
        if update is not computed:
            repair = "r-rome"
            store.write_update(tensors, update)
        elif chosen != regularizer:
            repair = "prune"
    return {
        "repair": repair,
        "failed": failed,
        "replaced": update is not computed,
        "regularizer": settings_of(chosen),
        "seconds": time.perf_counter() - start,
    }
