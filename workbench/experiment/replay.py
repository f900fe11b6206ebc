"""Replay: the edits of a stored trajectory as a sequence again, read from the store."""

from dataclasses import dataclass
from typing import Any

from workbench.editing.editor import Editor
from workbench.errors import RunError
from workbench.experiment.cache_keys import edit_key, state_after, state_of_sum, unedited_state
from workbench.experiment.guarding import read_admission
from workbench.experiment.models import load_model
from workbench.experiment.resolved import ResolvedRun, resolve
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.sequence import EditSequence
from workbench.sequence_parts import SequenceEdit
from workbench.update import WeightUpdate


@dataclass(frozen=True, eq=False)
class ReplayedOperation:
    """One operation of a trajectory.

    Attributes
    ----------
    requests : tuple of EditRequest
        Its facts.
    edit : SequenceEdit or None
        What it added to the weights; None where the edit failed or a guard refused it.
    """

    requests: tuple[EditRequest, ...]
    edit: SequenceEdit | None


@dataclass(frozen=True, eq=False)
class Replay:
    """A stored trajectory.

    Attributes
    ----------
    spec : ExperimentSpec
        Its spec.
    sequence : EditSequence
        Its edits, without those that failed.
    operations : tuple of ReplayedOperation
        All operations, in order.
    """

    spec: ExperimentSpec
    sequence: EditSequence
    operations: tuple[ReplayedOperation, ...]


def replay_trajectory(store: Store, trajectory: str, lm: LanguageModel | None = None) -> Replay:
    """Read the edits of a stored trajectory of sequential edits; no edit is computed.

    Parameters
    ----------
    store : Store
        The store.
    trajectory : str
        Key of the trajectory.
    lm : LanguageModel, optional
        Its model; by default it is loaded.

    Returns
    -------
    Replay
        Its sums have the bits of those that were measured: at each checkpoint the key of the state is compared.

    Raises
    ------
    RunError
        If the store has no such trajectory, it is not finished or not sequential, what it depends on has changed, an
        edit is missing, as where the store was read from an archive, or `lm` is another model.
    ModelError, RequestError, DataError
        If the model, the facts or the examples of the trajectory cannot be loaded.
    """
    record = store.read_record(trajectory)
    if record is None or not record["finished"]:
        raise RunError(f"the store {store.url} has no finished trajectory {trajectory!r}; run it first.")
    spec = ExperimentSpec(**record["spec"])
    if spec.setting != "sequential":
        raise RunError(
            f"the trajectory {trajectory} edits the unedited model in every operation; give a sequential one."
        )
    run = resolve(spec)
    if run.key != trajectory:
        raise RunError(
            f"the facts, the data, the model or the libraries of the trajectory {trajectory} have changed since it was "
            "run; run it again."
        )
    lm = load_model(spec.model, spec.dtype) if lm is None else lm
    if lm.fingerprint != record["fingerprint"]:
        raise RunError(f"the trajectory {trajectory} is of {spec.model}, not of {lm.name}; load that model first.")
    with lm.unedited():
        return _replay(store, run, record, lm)


def _replay(store: Store, run: ResolvedRun, record: dict[str, Any], lm: LanguageModel) -> Replay:
    spec, accumulated = run.spec, run.spec.make_accumulated()
    try:
        editor = type(spec.make_editor(lm))(**record["hyperparameters"])
    except TypeError as err:
        raise RunError(f"the hyperparameters of the trajectory {run.key} are not those of {spec.method}.") from err
    sequence = EditSequence(lm, accumulated=accumulated, feed_back=spec.feed_back)
    operations, plain = [], unedited_state(lm)  # of the weights that the next edit is computed on
    state = plain
    for number, batch in enumerate(run.batches, start=1):
        found = _read_edit(store, run, editor, plain, batch, number)
        edit = None
        if found is not None:
            update, key, regularizer = found
            edit = sequence.add(update, regularizer, operation=number)
            after = state_after(plain, key, regularizer)
            state = state_of_sum(after, accumulated)
            plain = state if spec.feed_back else after
        if record["states"].get(str(number), state) != state:
            raise RunError(f"the edits of the trajectory {run.key} in {store.url} are not those that it measured.")
        operations.append(ReplayedOperation(batch, edit))
    return Replay(spec, sequence, tuple(operations))


def _read_edit(
    store: Store, run: ResolvedRun, editor: Editor, state: str, batch: tuple[EditRequest, ...], number: int
) -> tuple[WeightUpdate, str, Any] | None:
    """Return the update that operation `number` added, its key and its regularizer; None if it failed."""
    key, regularizer = edit_key(state, editor, batch), run.spec.make_regularizer(number)
    known = store.read_json(f"edits/{key}.json")
    if known is not None and known["failed"]:
        return None
    update = None if known is None else store.read_update(f"edits/{key}.safetensors")
    if update is None:
        raise RunError(
            f"edit {number} of the trajectory {run.key} is not in the store {store.url}; run the trajectory again "
            "there, which writes it."
        )
    if run.spec.guard is None:
        return update, key, regularizer
    admitted = read_admission(store, run.spec.guard.make_guard(), update, key, regularizer)
    if admitted is None:
        raise RunError(f"the guard's decision on edit {number} is not in the store {store.url}; run it again there.")
    return None if admitted.update is None else (admitted.update, admitted.key, admitted.regularizer)
