"""Units distributed by Dask: to processes on this machine, or to the workers of a running scheduler.

What several trajectories measure on the unedited model is measured once, before them. A worker runs one trajectory at a
time; when a worker dies, another resumes its trajectory from the store.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock

import dask
import torch
from distributed import Client, Future, LocalCluster, as_completed, get_worker
from distributed.system import MEMORY_LIMIT
from tqdm.auto import tqdm

from workbench.errors import DiskError, SpecError, WeightsChangedError, first_line, reason_of
from workbench.experiment.cache_keys import key_of
from workbench.experiment.checkpoints import measure_unedited, run_trajectory
from workbench.experiment.cluster_names import AUTO, LOCAL, MOST_PROCESSES, check_cluster
from workbench.experiment.models import forget_model, load_model
from workbench.experiment.resolved import ResolvedRun, make_resolver
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.threads import share_of_cores, usable_cores, wait_policy

_CONNECT_SECONDS = 30
_MEMORY_EACH = 4 * 2**30  # bytes for a process that `auto` starts: an embedded model under MEMIT takes half of it
_one_at_a_time = Lock()  # the model of a process is edited in place


def run_on(cluster: str, runs: Sequence[ResolvedRun], store: Store, *, device_map: str | None = None) -> dict[str, str]:
    """Run trajectories on a cluster, and wait for them.

    Parameters
    ----------
    cluster : str
        ``local`` (one process per GPU or, without GPUs, per two cores), ``local:N``, ``local:auto`` (one process per
        GPU or per core), the address of a scheduler, or its scheduler file. No more processes are started here than
        there are trajectories.
    runs : sequence of ResolvedRun
        The trajectories to run.
    store : Store
        Store that every worker can reach under the same address.
    device_map : str, optional
        Device map of the model, as for `workbench.load`.

    Returns
    -------
    dict of str to str
        Why trajectories could not be finished, by their specs.

    Raises
    ------
    SpecError
        If `cluster` has none of these forms, or cannot be reached.
    DiskError
        At once, if a worker cannot write to the store; trajectories that have not begun are not run.
    """
    with connect(cluster, most=len(runs)) as client:
        return distribute(client, runs, store, device_map=device_map)


def distribute(
    client: Client, runs: Sequence[ResolvedRun], store: Store, *, device_map: str | None = None
) -> dict[str, str]:
    """Run trajectories on the workers of a client and wait for them; as `run_on`, but for the cluster."""
    baselines: dict[str, Future[None]] = {}
    specs: dict[Future[None], ExperimentSpec] = {}
    failed, call = {}, uuid.uuid4().hex
    for run in runs:
        given = run.spec, call, store.address, device_map  # workers load the data themselves, to spare the scheduler
        shared = key_of(run.spec.model_dump(include={"model", "dtype", "tasks", "perplexity"}))
        if shared not in baselines:
            baselines[shared] = client.submit(_measure_unedited, *given, key=f"unedited-{shared}")
        specs[client.submit(_run_trajectory, *given, baselines[shared], key=f"trajectory-{run.key}")] = run.spec
    with tqdm(total=len(specs), desc="Experiments", unit="trajectory") as bar:
        for future in as_completed(specs):
            err = future.exception()
            if isinstance(err, DiskError):  # the results of the others could not be kept either
                raise err
            if err is not None:
                failed[str(specs[future])] = reason_of(err)
            bar.update()
    return failed


@contextmanager
def connect(cluster: str, *, most: int = MOST_PROCESSES) -> Iterator[Client]:
    """Yield a client of the cluster; a cluster on this machine is started, and closed at the end.

    Parameters
    ----------
    cluster : str
        Name of the cluster, as for `run_on`.
    most : int
        Largest number of processes of a cluster on this machine, which share its cores.

    Raises
    ------
    SpecError
        If the name has none of the forms, or the cluster cannot be reached.
    """
    check_cluster(cluster)
    name, _, number = cluster.partition(":")
    if name == LOCAL:
        n_workers = min(most, count_workers(number))
        # by default Dask kills a worker whose model takes nearly its share of the memory
        settings = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": None}
        with (
            _environment_of_workers({**share_of_cores(n_workers), **wait_policy()}),
            LocalCluster(n_workers=n_workers, **settings) as local,
            Client(local) as client,
        ):
            yield client
        return
    address = {"address": cluster} if "://" in cluster else {"scheduler_file": cluster}
    try:
        client = Client(**address, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as err:
        raise SpecError(f"the Dask scheduler {cluster} cannot be reached ({first_line(err)}); is it running?") from err
    with client:
        yield client


@contextmanager
def _environment_of_workers(variables: Mapping[str, str]) -> Iterator[None]:
    """Start workers with these variables inside a ``with`` block, and restore the environment at its end.

    Dask would start them with one thread, and have them return freed memory to the system at once, whose pages torch
    asks for again at every layer: a fifth of the time. Variables of this process precede Dask's, which it leaves here.
    """
    before = dict(os.environ)
    try:
        os.environ.update(variables)
        with dask.config.set({"distributed.nanny.pre-spawn-environ": dict(variables)}):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def count_workers(number: str) -> int:
    """Return the number of processes that ``local:number`` asks for.

    Without GPUs, ``auto`` asks for one per core, but for no more than the memory of the machine has room for.
    """
    if number not in ("", AUTO):
        return int(number)
    cores = usable_cores()
    on_cores = min(cores, MEMORY_LIMIT // _MEMORY_EACH) if number else cores // 2
    return torch.cuda.device_count() or max(1, on_cores)


def _device() -> str | None:
    """Return the GPU of a worker of this machine, by its number; a worker started elsewhere sees only its own."""
    name, n = get_worker().name, torch.cuda.device_count()
    return f"cuda:{name % n}" if isinstance(name, int) and n else None


def _measure_unedited(spec: ExperimentSpec, call: str, store: str, device_map: str | None) -> None:
    with _one_at_a_time, _changed_model_forgotten():
        measure_unedited(_load(spec, device_map), _resolver(call)(spec), Store(store))


def _run_trajectory(spec: ExperimentSpec, call: str, store: str, device_map: str | None, _unedited: None) -> None:
    with _one_at_a_time, _changed_model_forgotten():
        run_trajectory(_load(spec, device_map), _resolver(call)(spec), Store(store))


@lru_cache(maxsize=1)
def _resolver(call: str) -> Callable[[ExperimentSpec], ResolvedRun]:
    """Return what loads facts and examples once for all trajectories of one call; files may change before the next."""
    return make_resolver()


@contextmanager
def _changed_model_forgotten() -> Iterator[None]:
    try:
        yield
    except WeightsChangedError:
        forget_model()
        raise


def _load(spec: ExperimentSpec, device_map: str | None) -> LanguageModel:
    return load_model(spec.model, spec.dtype, device=None if device_map else _device(), device_map=device_map)
