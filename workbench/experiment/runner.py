"""Runs experiments into a store: trajectory after trajectory, and what is measured at their checkpoints."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from workbench.errors import RunError, WorkbenchError, first_line
from workbench.experiment import measures
from workbench.experiment.cache_keys import unedited_state, unit_key, versions
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import OPERATIONS, RESULTS, SCORES, Store
from workbench.experiment.store_location import default_store
from workbench.experiment.trajectory import Point, points
from workbench.extras import require_extra
from workbench.lm import LanguageModel, load
from workbench.update import WeightUpdate

_MEASURED = ["task", "metric", "protocol", "source", "split", "moment", "example", "value", "weight"]


def run(
    specs: ExperimentSpec | Sequence[ExperimentSpec],
    *,
    store: str | Path | Store | None = None,
    cluster: str | None = None,
    device: str | None = None,
    device_map: str | None = None,
) -> pd.DataFrame:
    """Run experiments, or what is left of them, and return their results.

    Parameters
    ----------
    specs : ExperimentSpec or sequence of them
        What to run.
    store : str, Path or Store, optional
        Where results are kept and found again: a folder or an fsspec URL; by default what the environment variable
        WORKBENCH_STORE says, or ``build/store``.
    cluster : str, optional
        ``"local"`` or ``"local:N"`` for N processes on this machine, the address of a Dask scheduler
        (``"tcp://…"``), or the scheduler file that its workers share. By default all is run in this process.
    device, device_map : str, optional
        As `workbench.load` takes them.

    Returns
    -------
    DataFrame
        A row a trajectory, checkpoint and score: model, method, regularizer, setting, batch_size, seed, operation,
        n_edits, facts, task, metric, protocol, source, split, moment, parameter, at, value, n, low, high, and the
        key of the unit. `task` is ``edits`` (with `moment`: ``before`` the first edit, ``after_edit``, each fact right
        after its own, or ``now``), one of the eight, ``perplexity`` or ``weights`` (the metrics of `weight_change`).

    Raises
    ------
    SpecError, ModelError, RequestError, DataError
        Before anything runs, if what a spec names cannot be had.
    RunError
        When all others are done, if a trajectory could not be finished. An edit that fails is no error: it is in
        `Store.operations` with its reason, and the trajectory goes on without it.
    """
    store = opened(store)
    asked = [specs] if isinstance(specs, ExperimentSpec) else list(specs)
    units = {unit_key(spec): spec for spec in asked}
    waiting = {unit: spec for unit, spec in units.items() if not store.finished(unit)}
    if waiting and cluster is not None:
        require_extra("distributed", "cluster")
        from workbench.experiment.clusters import run_on  # distributed takes a second

        failed = run_on(cluster, waiting, store, device_map=device_map)
    else:
        failed = _run_here(waiting, store, device, device_map)
    if failed:
        spec, reason = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(units)} trajectories could not be finished; {spec}: {reason}")
    return store.results(list(units))


def _run_here(
    units: dict[str, ExperimentSpec], store: Store, device: str | None, device_map: str | None
) -> dict[str, str]:
    """Run units one after another; return the reasons of those that could not be finished."""
    failed = {}
    with tqdm(units.values(), desc="Experiments", unit="trajectory", disable=not units) as bar:
        for spec in bar:
            try:
                run_unit(loaded(spec.model, spec.dtype, device, device_map), spec, store)
            except WorkbenchError as err:
                failed[str(spec)] = first_line(err)
    return failed


@lru_cache(maxsize=1)
def loaded(name: str, dtype: str, device: str | None, device_map: str | None) -> LanguageModel:
    """A model, kept for the next trajectory on it."""
    return load(name, dtype=dtype, device=device, device_map=device_map)


def kept_updates(spec: ExperimentSpec, store: str | Path | Store | None = None) -> dict[int, WeightUpdate]:
    """The accumulated update at each checkpoint of a trajectory that has been run, by number of operations.

    Parameters
    ----------
    spec : ExperimentSpec
        The trajectory; in the setting ``single`` each update is one operation's.
    store : str, Path or Store, optional
        As for `run`.

    Returns
    -------
    dict of int to WeightUpdate
        Without checkpoint 0, and without states in which every edit has failed.

    Raises
    ------
    RunError
        If it has not been run to its end.
    """
    store = opened(store)
    updates = {t: store.read_update(f"updates/{state}.safetensors") for t, state in states(spec, store).items()}
    return {t: update for t, update in updates.items() if update is not None}


def states(spec: ExperimentSpec, store: Store) -> dict[int, str]:
    """The key of the model at each checkpoint of a trajectory; raises `RunError` unless it has been run to its end."""
    record = store.read_json(f"units/{unit_key(spec)}.json")
    if record is None or not record["finished"]:
        raise RunError(f"{spec} has not been run to its end in {store.url}; run it first.")
    return {int(operation): record["states"][operation] for operation in sorted(record["states"], key=int)}


def opened(store: str | Path | Store | None) -> Store:
    """The store that is meant: itself, the one at a place, or the default one."""
    return store if isinstance(store, Store) else Store(store or default_store())


def run_unit(lm: LanguageModel, spec: ExperimentSpec, store: Store) -> str:
    """Run one trajectory to its end.

    Parameters
    ----------
    lm : LanguageModel
        The spec's model, unedited; left so.
    spec : ExperimentSpec
        What to run.
    store : Store
        Where results go, and where what is known is found.

    Returns
    -------
    str
        The unit's key.

    Raises
    ------
    WorkbenchError
        If the method cannot be used on the model, or a task's data do not fit it.
    """
    unit, start = unit_key(spec), time.perf_counter()
    editor = spec.make_editor(lm).prepared(lm)
    record = {
        "spec": spec.model_dump(mode="json"),
        "method": editor.label,
        "hyperparameters": asdict(editor),
        "fingerprint": lm.fingerprint,
        "versions": versions(),
    }
    store.write_json(f"units/{unit}.json", {**record, "finished": False})
    common = {
        "unit": unit,
        "model": spec.model,
        "method": editor.label,
        "regularizer": spec.make_regularizer().label,
        "setting": spec.setting_name,
        "batch_size": spec.batch_size,
        "seed": spec.seed,
        "facts": Path(spec.facts.source).name + ", words before the subject" * spec.facts.words_before_subject,
    }
    states = {}
    with (
        tqdm(total=spec.n_operations, desc=str(spec), unit="operation", leave=False) as bar,
        closing(points(lm, spec, store, editor)) as trajectory,
    ):
        for point in trajectory:
            if point.operation in spec.checkpoints:
                states[point.operation] = point.state
                _write(point, lm, spec, store, common)
            bar.update(point.operation - bar.n)
    seconds = round(time.perf_counter() - start, 1)
    store.write_json(f"units/{unit}.json", {**record, "states": states, "seconds": seconds, "finished": True})
    return unit


def measure_unedited(lm: LanguageModel, spec: ExperimentSpec, store: Store) -> str:
    """Put into the store what a spec measures of the unedited model, for all trajectories that start there.

    Parameters
    ----------
    lm : LanguageModel
        The spec's model, unedited.
    spec : ExperimentSpec
        Its tasks and perplexity.
    store : Store
        Where they go.

    Returns
    -------
    str
        The key of the unedited state.
    """
    state = unedited_state(lm)
    if spec.tasks:
        measures.task_scores(lm, store, state, spec.tasks)
    if spec.perplexity:
        measures.perplexity_row(lm, store, state, spec.perplexity)
    return state


def _write(point: Point, lm: LanguageModel, spec: ExperimentSpec, store: Store, common: dict) -> None:
    """Measure a checkpoint; write its update, the operations since the checkpoint before, its scores and results.

    In this order, and what is there already is not written again: each life of a run that is killed gets further.
    """
    name = f"{common['unit']}/{point.operation:06}.parquet"
    update = f"updates/{point.state}.safetensors"
    operations, each, results = (f"{part}/{name}" for part in ("operations", "scores", "results"))
    if len(point.update) and not store.has(update):
        store.write_update(update, point.update)
    if not store.has(operations):
        before = max((t for t in spec.checkpoints if t < point.operation), default=0)
        rows = pd.DataFrame(point.operations[before:], index=range(before, point.operation)).assign(**common)
        rows["operation"] = rows.index + 1
        store.write_table(operations, rows, OPERATIONS)
    common = {**common, "operation": point.operation, "n_edits": point.operation * spec.batch_size}
    scores = _scores(point, lm, spec, store)
    if not store.has(each):
        store.write_table(each, scores.assign(**common), SCORES)
    if not store.has(results):
        rows = [measures.summarize_scores(scores), *_other_rows(point, lm, spec, store)]
        store.write_table(results, pd.concat(rows, ignore_index=True).assign(**common), RESULTS)


def _scores(point: Point, lm: LanguageModel, spec: ExperimentSpec, store: Store) -> pd.DataFrame:
    """Of each fact right after its edit, of each fact so far now, and of each task's examples."""
    parts = []
    if point.operation:
        after = [part.assign(request=part["request"] + i * spec.batch_size) for i, part in enumerate(point.scores)]
        parts.append(pd.concat(after).assign(moment=measures.AFTER_EDIT))
    if spec.setting == "sequential" or not point.operation:
        now = measures.edit_scores(lm, store, point.state, point.requests, spec.edit_protocols)
        parts.append(now.assign(moment=measures.NOW if point.operation else measures.BEFORE))
    scores = pd.concat(parts).rename(columns={"request": "example"}).assign(task=measures.EDITS, weight=1.0)
    if spec.tasks:
        scores = pd.concat([scores, measures.task_scores(lm, store, point.state, spec.tasks)])
    return scores.reindex(columns=_MEASURED)


def _other_rows(point: Point, lm: LanguageModel, spec: ExperimentSpec, store: Store) -> Iterator[pd.DataFrame]:
    """What has no examples: failed edits, perplexity, weights."""
    if point.operation:
        failed = [row["failed"] is not None for row in point.operations]
        row = {"task": measures.EDITS, "metric": "failed", "value": float(sum(failed)), "n": len(failed)}
        yield pd.DataFrame([row])
    if spec.perplexity:
        yield measures.perplexity_row(lm, store, point.state, spec.perplexity)
    if len(point.update):
        yield measures.weight_rows(lm, store, point.state, point.update).assign(task=measures.WEIGHTS)
