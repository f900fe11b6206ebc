"""Units distributed by Dask: a grid on local processes, some of which die."""

import json
import os
import signal
import threading
import time

import pandas as pd
import pytest
import torch

from tests.helpers import error_of
from workbench.errors import DiskError, SpecError
from workbench.experiment import clusters
from workbench.experiment.clusters import connect, distribute
from workbench.experiment.grids import grid
from workbench.experiment.resolved import resolve, resolve_all
from workbench.experiment.runner import run
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.threads import usable_cores, wait_policy

PATIENCE = 120  # seconds


@pytest.fixture
def specs(tiny):
    """Give a grid of four trajectories."""
    rome = {"v_num_grad_steps": 20, "contexts": ["{}"]}
    small = ExperimentSpec(model=tiny, hyperparameters=rome, n_operations=12, tasks={"tasks": ["nli"], "limit": 2})
    return grid(small, {"regularizer": [{"kind": "Unregularized"}, {"kind": "RECT"}], "seed": [0, 1]})


def wait_for_edits(store, number):
    """Wait until the store holds that many edits, or patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    while len(store.names("edits")) < number and time.monotonic() < deadline:
        time.sleep(0.02)


def kill_two_and_add_one(client, pids, store, finished):
    """Kill a process once a trajectory has begun, and another a few edits later; then add a third worker."""
    for pid, n_edits in zip(pids, (1, 4), strict=True):
        wait_for_edits(store, n_edits)
        finished.append(sum(record["finished"] for record in store.trajectories().values()))
        os.kill(pid, signal.SIGKILL)
    client.cluster.scale(len(pids) + 1)


@pytest.mark.slow
def test_a_grid_is_complete_and_as_if_run_serially_when_two_workers_have_died_and_one_came(specs, tmp_path):
    store, finished = Store(tmp_path / "cluster"), []
    runs = resolve_all(specs)
    with connect("local:2") as client:
        pids = sorted(client.run(os.getpid).values())
        assert len(pids) == 2
        disturber = threading.Thread(target=kill_two_and_add_one, args=(client, pids, store, finished))
        disturber.start()
        assert distribute(client, runs, store) == {}
        disturber.join()
        client.wait_for_workers(3, timeout=PATIENCE)
        assert not set(client.run(os.getpid).values()) & set(pids)
    at_first, at_second = finished
    assert at_first == 0
    assert at_second < len(runs)
    pd.testing.assert_frame_equal(store.results([each.key for each in runs]), run(specs, store=tmp_path / "alone"))


@pytest.mark.slow
def test_a_cluster_on_this_machine_leaves_the_environment_unchanged():
    before = dict(os.environ)
    with connect("local:1") as client:
        assert client.submit(os.getpid).result() != os.getpid()
    assert dict(os.environ) == before


def environment_of_worker():
    """Number of threads of torch, how they wait, whether Dask's own settings of memory are there."""
    return torch.get_num_threads(), wait_policy(), os.environ["GOMP_SPINCOUNT"], "MALLOC_TRIM_THRESHOLD_" in os.environ


@pytest.mark.slow
@pytest.mark.parametrize(("most", "n_workers", "threads"), [(None, usable_cores(), 1), (1, 1, usable_cores())])
def test_processes_share_the_cores_and_have_the_wait_policy_of_the_workbench(most, n_workers, threads, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of this process, not of its workers
    with connect(f"local:{usable_cores()}", **({} if most is None else {"most": most})) as client:
        workers = client.run(environment_of_worker)
    assert list(workers.values()) == [(threads, {}, "10000", False)] * n_workers


@pytest.mark.parametrize(
    ("number", "gpus", "cores", "gib", "expected"),
    [
        ("auto", 0, 4, 64, 4),  # one per core
        ("auto", 0, 16, 16, 4),  # as many as have room
        ("auto", 0, 2, 2, 1),
        ("auto", 3, 16, 16, 3),  # one per GPU
        ("", 0, 8, 8, 4),
        ("", 0, 1, 8, 1),
        ("7", 0, 2, 2, 7),  # as asked
    ],
)
def test_processes_are_as_many_as_cores_memory_or_gpus_allow(monkeypatch, number, gpus, cores, gib, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(clusters, "usable_cores", lambda: cores)
    monkeypatch.setattr(clusters, "MEMORY_LIMIT", gib * 2**30)
    assert clusters.count_workers(number) == expected


@pytest.mark.slow
def test_no_more_processes_are_started_than_there_are_trajectories(specs, tmp_path, monkeypatch):
    seen, started = [], clusters.LocalCluster
    monkeypatch.setattr(clusters, "LocalCluster", lambda **given: seen.append(given) or started(**given))
    run([specs[0].model_copy(update={"n_operations": 1, "checkpoints": (0, 1)})], store=tmp_path, cluster="local:4")
    assert [given["n_workers"] for given in seen] == [1]


@pytest.mark.slow
def test_a_job_is_not_killed_for_the_memory_that_its_model_takes():
    with connect("local:2") as client:
        limits = client.run(lambda dask_worker: dask_worker.memory_manager.memory_limit)
    assert list(limits.values()) == [None, None]


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


@pytest.mark.slow
def test_a_worker_reads_a_file_of_facts_again_for_the_next_call(tiny, tmp_path):
    store, facts = Store(tmp_path / "store"), tmp_path / "facts.json"
    fields = {"model": tiny, "method": "ft", "hyperparameters": {"layers": [1], "num_steps": 1}, "n_operations": 1}
    spec = ExperimentSpec(**fields, facts={"source": str(facts)}, tasks=None, perplexity=None)
    with connect("local:1") as client:
        for target in ("Rome", "Oslo"):
            fact = {"subject": "Paris", "prompt": "{} lies in", "target_new": target}
            facts.write_text(json.dumps([fact]))
            assert distribute(client, resolve_all([spec]), store) == {}
            assert store.finished(resolve(spec).key)
    assert len(store.trajectories()) == 2


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
