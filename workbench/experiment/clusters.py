"""Units handed out by Dask: to processes of this machine, or to the workers of a running scheduler.

What several units need of the unedited model is measured once, before them. A worker runs one unit at a time; when it
dies, its unit goes to another, which resumes it from the store.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import torch
from distributed import Client, LocalCluster, as_completed, get_worker
from tqdm.auto import tqdm

from workbench.errors import SpecError, first_line
from workbench.experiment.cache_keys import key_of
from workbench.experiment.runner import loaded, measure_unedited, run_unit
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel

LOCAL = "local"
_CONNECT_SECONDS = 30
_one_at_a_time = Lock()  # the model of a process is edited in place


def run_on(
    cluster: str, units: Mapping[str, ExperimentSpec], store: Store, *, device_map: str | None = None
) -> dict[str, str]:
    """Run units on a cluster, and wait for them.

    Parameters
    ----------
    cluster : str
        ``local``, ``local:N``, the address of a scheduler, or its scheduler file.
    units : mapping of str to ExperimentSpec
        What to run, by key.
    store : Store
        Every worker must reach it at the same place.
    device_map : str, optional
        As for `workbench.load`.

    Returns
    -------
    dict of str to str
        Why a unit could not be finished, by what it is.

    Raises
    ------
    SpecError
        If `cluster` is none of these, or cannot be reached.
    """
    with client_of(cluster) as client:
        return hand_out(client, units, store, device_map=device_map)


def hand_out(
    client: Client, units: Mapping[str, ExperimentSpec], store: Store, *, device_map: str | None = None
) -> dict[str, str]:
    """Run units on the workers of a client, and wait for them; as `run_on`."""
    baselines, futures, failed = {}, {}, {}
    for unit, spec in units.items():
        shared = key_of(spec.model_dump(include={"model", "dtype", "tasks", "perplexity"}))
        if shared not in baselines:
            baselines[shared] = client.submit(_baseline, spec, store.address, device_map, key=f"unedited-{shared}")
        future = client.submit(_unit, spec, store.address, device_map, baselines[shared], key=f"unit-{unit}")
        futures[future] = str(spec)
    with tqdm(total=len(futures), desc="Experiments", unit="trajectory") as bar:
        for future in as_completed(futures):
            if (err := future.exception()) is not None:
                failed[futures[future]] = first_line(err)
            bar.update()
    return failed


@contextmanager
def client_of(cluster: str) -> Iterator[Client]:
    """A client of the cluster; one on this machine is started, and closed on leaving.

    Parameters
    ----------
    cluster : str
        As for `run_on`.

    Raises
    ------
    SpecError
        If it is no form of cluster, or cannot be reached.
    """
    name, _, number = cluster.partition(":")
    if name == LOCAL:
        n_workers = int(number) if number.isdigit() else 0 if number else _default_workers()
        if n_workers < 1:
            raise SpecError(f"cluster {cluster!r}: the number of processes must be at least 1, as in local:2.")
        share = str(max(1, (os.cpu_count() or 1) // n_workers))  # threads of several processes wait for one another
        settings = {"threads_per_worker": 1, "dashboard_address": None, "env": {"OMP_NUM_THREADS": share}}
        with _environment_kept(), LocalCluster(n_workers=n_workers, **settings) as here, Client(here) as client:
            yield client
        return
    place = {"address": cluster} if "://" in cluster else {"scheduler_file": cluster}
    if "://" not in cluster and not Path(cluster).is_file():
        raise SpecError(
            f"cluster {cluster!r} is neither local, local:N, an address such as tcp://host:8786, nor a scheduler file "
            "that is there; dask scheduler --scheduler-file makes one."
        )
    try:
        client = Client(**place, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as err:
        raise SpecError(f"the Dask scheduler {cluster} cannot be reached ({first_line(err)}); is it running?") from err
    with client:
        yield client


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Dask sets thread counts for its workers in the environment of this process, and leaves them there."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _default_workers() -> int:
    """One process a GPU; without one, a process for each two cores."""
    return torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // 2)


def _device() -> str | None:
    """Each worker of this machine has a GPU of its own, by its number; a worker started elsewhere sees its own."""
    name, n = get_worker().name, torch.cuda.device_count()
    return f"cuda:{name % n}" if isinstance(name, int) and n else None


def _baseline(spec: ExperimentSpec, store: str, device_map: str | None) -> str:
    with _one_at_a_time:
        return measure_unedited(_model(spec, device_map), spec, Store(store))


def _unit(spec: ExperimentSpec, store: str, device_map: str | None, _ready: str) -> str:
    with _one_at_a_time:
        return run_unit(_model(spec, device_map), spec, Store(store))


def _model(spec: ExperimentSpec, device_map: str | None) -> LanguageModel:
    return loaded(spec.model, spec.dtype, None if device_map else _device(), device_map)
