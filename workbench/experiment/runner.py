"""Runs experiments into a store: one trajectory after another, here or on a cluster."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench.errors import (
    DiskError,
    NothingStoredError,
    RunError,
    SpecError,
    WeightsChangedError,
    WorkbenchError,
    reason_of,
)
from workbench.experiment.checkpoints import run_trajectory
from workbench.experiment.cluster_names import check_cluster
from workbench.experiment.models import forget_model, load_model
from workbench.experiment.resolved import ResolvedRun, resolve, resolve_all
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.experiment.store_location import default_cluster, default_store, stored_only
from workbench.extras import require_extra
from workbench.inputs import require_items
from workbench.update import WeightUpdate

log = logging.getLogger(__name__)

_FAILURES_SHOWN = 5


def run(
    specs: ExperimentSpec | Sequence[ExperimentSpec],
    *,
    store: str | Path | Store | None = None,
    cluster: str | None = None,
    device: str | None = None,
    device_map: str | None = None,
) -> pd.DataFrame:
    """Run experiments and return their results; finished trajectories are read, interrupted ones continue.

    Parameters
    ----------
    specs : ExperimentSpec or sequence of ExperimentSpec
        The trajectories to run.
    store : str, Path or Store, optional
        Store of the results: a folder or an fsspec URL; by default the value of the environment variable
        WORKBENCH_STORE, or ``build/store``.
    cluster : str, optional
        ``"local"`` or ``"local:N"`` for N processes on this machine, the address of a Dask scheduler
        (``"tcp://…"``), or the scheduler file that its workers share. By default the value of the environment variable
        WORKBENCH_CLUSTER; without one, everything runs in this process.
    device, device_map : str, optional
        Placement of the model, as for `workbench.load`.

    Returns
    -------
    DataFrame
        One row per trajectory, checkpoint and score: model, method, regularizer, setting, batch_size, seed, operation,
        n_edits, facts, draw (hash of the facts in their order), hyperparameters (``preset``, or those replaced), task,
        metric, protocol, source, split, moment, parameter, at, value, n, low, high, and the
        column trajectory (its key). `task` is ``edits`` (with `moment`: ``before`` the first edit, ``after_edit``, each
        fact right after its own, or ``now``), one of the eight, ``perplexity``, ``drift`` or ``weights`` (the metrics
        of `weight_change`).

    Raises
    ------
    SpecError, ModelError, RequestError, DataError
        Before anything runs, if something that a spec names cannot be loaded.
    RunError
        After all other trajectories, if one could not be finished, whatever the error, or stored results are damaged.
        An edit that fails is not an error: it is in `Store.operations` with its reason, and the trajectory continues
        without it.
    DiskError
        At once, if the store cannot be written to, such as on a full disk; what it holds is kept, and the same call
        continues from there.
    NothingStoredError
        If the environment variable WORKBENCH_STORED_ONLY is set and none of the trajectories is finished. Otherwise
        the finished ones are read, and the number of the others is logged as a warning.
    """
    store = open_store(store)
    if cluster is not None:
        check_cluster(cluster)
    runs = resolve_all(
        [specs] if isinstance(specs, ExperimentSpec) else require_items(specs, ExperimentSpec, "specs", SpecError)
    )
    return run_resolved(runs, store, cluster=cluster, device=device, device_map=device_map)


def run_resolved(
    resolved: Sequence[ResolvedRun],
    store: Store,
    *,
    cluster: str | None = None,
    device: str | None = None,
    device_map: str | None = None,
) -> pd.DataFrame:
    """Run experiments whose facts and examples are loaded.

    Parameters
    ----------
    resolved : sequence of ResolvedRun
        The trajectories to run.
    store : Store
        Store of the results.
    cluster, device, device_map : str, optional
        As for `run`.

    Returns
    -------
    DataFrame
        As from `run`.

    Raises
    ------
    RunError, DiskError, NothingStoredError
        As in `run`.
    """
    runs = {each.key: each for each in resolved}
    waiting = [each for each in runs.values() if not store.finished(each.key)]
    cluster = cluster or default_cluster()
    if waiting and stored_only():
        return _read_finished(runs, waiting, store)
    if waiting and cluster is not None:
        require_extra("distributed", "cluster")
        from workbench.experiment.clusters import run_on  # distributed is optional, and takes a second to import

        failed = run_on(cluster, waiting, store, device_map=device_map)
    else:
        failed = _run_here(waiting, store, device, device_map)
    if failed:
        shown = [f"{spec}: {reason}" for spec, reason in list(failed.items())[:_FAILURES_SHOWN]]
        more = [f"and {len(failed) - len(shown)} more"] if len(failed) > len(shown) else []
        parts = [f"{len(failed)} of {len(runs)} trajectories could not be finished", *shown, *more]
        raise RunError("; ".join(parts))
    results = store.results(list(runs))
    if reopened := [key for key in runs if not store.finished(key)]:
        raise RunError(f"stored results of {len(reopened)} of {len(runs)} trajectories were damaged; run them again.")
    return results


def _read_finished(runs: Mapping[str, ResolvedRun], waiting: Sequence[ResolvedRun], store: Store) -> pd.DataFrame:
    if len(waiting) == len(runs):
        raise NothingStoredError(f"the store {store.url} holds none of these {len(runs)} trajectories; run them first.")
    log.warning("%d of %d trajectories are not in the store and are left out", len(waiting), len(runs))
    return store.results([key for key in runs if runs[key] not in waiting])


def _run_here(runs: Sequence[ResolvedRun], store: Store, device: str | None, device_map: str | None) -> dict[str, str]:
    """Run trajectories one after another; return the reasons of those that could not be finished."""
    failed = {}
    with tqdm(runs, desc="Experiments", unit="trajectory", disable=not runs) as bar:
        for each in bar:
            try:
                lm = load_model(each.spec.model, each.spec.dtype, device=device, device_map=device_map)
                run_trajectory(lm, each, store)
            except DiskError:  # the results of the others could not be kept either
                raise
            except WorkbenchError as err:
                failed[str(each.spec)] = reason_of(err)
                if isinstance(err, WeightsChangedError):
                    forget_model()
            except Exception as err:  # one trajectory is not to cost the results of the others
                failed[str(each.spec)] = reason_of(err)
                log.exception("%s stopped (%s); the others go on", each.spec, reason_of(err))
    return failed


def read_updates(spec: ExperimentSpec, store: str | Path | Store | None = None) -> dict[int, WeightUpdate]:
    """Return the accumulated update at each checkpoint of a finished trajectory, by number of operations.

    Parameters
    ----------
    spec : ExperimentSpec
        The trajectory; in the setting ``single`` each update is that of one operation.
    store : str, Path or Store, optional
        Store of the results, as for `run`.

    Returns
    -------
    dict of int to WeightUpdate
        Without checkpoint 0, and without states in which every edit has failed.

    Raises
    ------
    RunError
        If the trajectory is not finished, or an update is damaged.
    """
    store = open_store(store)
    run = resolve(spec)
    states = read_states(run, store)
    names = {t: name for t, state in states.items() if store.has(name := f"updates/{state}.safetensors")}
    updates = {t: store.read_update(name) for t, name in names.items()}
    if damaged := [names[t] for t, update in updates.items() if update is None]:
        store.reopen(run.key)
        raise RunError(f"{damaged[0]} of the store {store.url} was damaged; run {run.spec} again, which writes it.")
    return {t: update for t, update in updates.items() if update is not None}


def read_states(run: ResolvedRun, store: Store) -> dict[int, str]:
    """Return the key of the model at each checkpoint of a trajectory; raise `RunError` unless it is finished."""
    record = read_record(run, store)
    return {int(operation): record["states"][operation] for operation in sorted(record["states"], key=int)}


def read_record(run: ResolvedRun, store: Store) -> dict[str, Any]:
    """Return the record of a trajectory in the store; raise `RunError` unless it is finished."""
    record = store.read_record(run.key)
    if record is None or not record["finished"]:
        raise RunError(f"{run.spec} has not been run to its end in {store.url}; run it first.")
    return record


def open_store(store: str | Path | Store | None) -> Store:
    """Return the store at a location, the default one for None; a store is returned as it is."""
    return store if isinstance(store, Store) else Store(store or default_store())
