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
    found = read_admission(store, guard, computed, key, regularizer)
    if found is None:
        record, tensors = _files_of(guard, key, regularizer)
        store.write_json(record, _decide(sequence, store, tensors, guard, editor, computed, regularizer))
        found = read_admission(store, guard, computed, key, regularizer)
    assert found is not None
    return found


def read_admission(
    store: Store, guard: Guard, computed: WeightUpdate, key: str, regularizer: Regularizer
) -> Admission | None:
    """Return the guard's decision about an edit, as `admit`; None if the store does not hold it."""
    record, tensors = _files_of(guard, key, regularizer)
    known = store.read_json(record)
    if known is None:
        return None
    repair, failed, seconds = known["repair"], known["failed"], known["seconds"]
    if repair == REFUSED:
        return Admission(None, regularizer, key, repair, failed, seconds)
    chosen = from_settings(known["regularizer"])
    if not known["replaced"]:
        return Admission(computed, chosen, key, repair, None, seconds)
    update = store.read_update(tensors)
    own = _key_of_decision(guard, key, regularizer)
    return None if update is None else Admission(update, chosen, own, repair, None, seconds)


def _files_of(guard: Guard, key: str, regularizer: Regularizer) -> tuple[str, str]:
    own = _key_of_decision(guard, key, regularizer)
    return f"guards/{own}.json", f"guards/{own}.safetensors"


def _key_of_decision(guard: Guard, key: str, regularizer: Regularizer) -> str:
    return key_of("guard", key, settings_of(regularizer), guard.limit, guard.repairs)


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
