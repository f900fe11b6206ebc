"""Units distributed by Dask: a grid on local processes, one of which dies."""

import os
import signal
import threading
import time

import pandas as pd
import pytest
import torch

from tests.helpers import error_of
from workbench.errors import DiskError, SpecError
from workbench.experiment.clusters import connect, distribute
from workbench.experiment.grids import grid
from workbench.experiment.resolved import resolve, resolve_all
from workbench.experiment.runner import run
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.threads import usable_cores

PATIENCE = 120  # seconds


@pytest.fixture
def specs(tiny):
    """Give a grid of four trajectories."""
    rome = {"v_num_grad_steps": 20, "contexts": ["{}"]}
    small = ExperimentSpec(model=tiny, hyperparameters=rome, n_operations=12, tasks={"tasks": ["nli"], "limit": 2})
    return grid(small, {"regularizer": [{"kind": "Unregularized"}, {"kind": "RECT"}], "seed": [0, 1]})


def kill_when_it_works(pid, store, died):
    """Kill a process once a trajectory has begun and none is finished."""
    deadline = time.monotonic() + PATIENCE
    while not store.names("edits") and time.monotonic() < deadline:
        time.sleep(0.02)
    died.append(all(not record["finished"] for record in store.trajectories().values()))
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_grid_is_complete_when_a_worker_has_died(specs, tmp_path):
    store, died = Store(tmp_path / "cluster"), []
    runs = resolve_all(specs)
    with connect("local:2") as client:
        pids = client.run(os.getpid)
        assert len(pids) == 2
        killer = threading.Thread(target=kill_when_it_works, args=(min(pids.values()), store, died))
        killer.start()
        assert distribute(client, runs, store) == {}
        killer.join()
        assert set(client.run(os.getpid).values()) != set(pids.values())
    assert died == [True]
    pd.testing.assert_frame_equal(store.results([each.key for each in runs]), run(specs, store=tmp_path / "alone"))


@pytest.mark.slow
def test_a_cluster_on_this_machine_leaves_the_environment_unchanged():
    before = dict(os.environ)
    with connect("local:1") as client:
        assert client.submit(os.getpid).result() != os.getpid()
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_job_per_core_has_one_thread_which_sleeps_while_it_waits(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with connect("local:auto") as client:
        workers = client.run(lambda: (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]))
    assert list(workers.values()) == [("1", "PASSIVE")] * usable_cores()


@pytest.mark.slow
def test_a_full_disk_ends_a_grid_at_once_and_the_same_call_goes_on(specs, small_disk):
    specs = [spec.model_copy(update={"n_operations": 1, "checkpoints": (0, 1)}) for spec in specs]
    store = Store(small_disk.path / "store")
    small_disk.fill(leave=20_000)
    sentence = error_of(DiskError, run, specs, store=store, cluster="local:1")
    assert sentence.startswith(str(small_disk.path))
    assert "No space left on device" in sentence
    assert not any(record["finished"] for record in store.trajectories().values())
    small_disk.free()
    assert set(run(specs, store=store, cluster="local:1").trajectory) == set(store.trajectories())
    assert len(store.trajectories()) == len(specs)


@pytest.mark.slow
def test_a_unit_that_fails_is_named_and_the_others_are_finished(specs, tmp_path):
    store = Store(tmp_path)
    bad = specs[0].model_copy(update={"hyperparameters": {"layer": 99, "contexts": ("{}",)}})
    good = specs[1].model_copy(update={"n_operations": 1, "checkpoints": (0, 1)})
    with connect("local:1") as client:
        failed = distribute(client, resolve_all([bad, good]), store)
    assert list(failed) == [str(bad)]
    assert "layer 99 is out of range" in failed[str(bad)]
    assert store.finished(resolve(good).key)


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        ("local:0", "cluster 'local:0': the number of processes must be auto or a whole number from 1 to 9999, as in"),
        ("local:²", "cluster 'local:²': the number of processes must be auto or a whole number from 1 to 9999, as in"),
        ("local:x", "cluster 'local:x': the number of processes must be auto or a whole number from 1 to 9999, as in"),
        ("no-such-file.json", "cluster 'no-such-file.json' is neither local, local:N, an address such as"),
    ],
)
def test_a_malformed_cluster_is_refused(cluster, sentence):
    with pytest.raises(SpecError) as caught, connect(cluster):
        pass
    assert str(caught.value).startswith(sentence)
