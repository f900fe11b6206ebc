"""Units handed out by Dask: a grid on local processes, one of which dies."""

import os
import signal
import threading
import time

import pandas as pd
import pytest

from workbench.errors import SpecError
from workbench.experiment.cache_keys import unit_key
from workbench.experiment.clusters import client_of, hand_out
from workbench.experiment.runner import run
from workbench.experiment.spec import ExperimentSpec, grid
from workbench.experiment.store import Store

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
    died.append(all(not record["finished"] for record in store.units().values()))
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_grid_is_complete_when_a_worker_has_died(specs, tmp_path):
    store, died = Store(tmp_path / "cluster"), []
    units = {unit_key(spec): spec for spec in specs}
    with client_of("local:2") as client:
        pids = client.run(os.getpid)
        assert len(pids) == 2
        killer = threading.Thread(target=kill_when_it_works, args=(min(pids.values()), store, died))
        killer.start()
        assert hand_out(client, units, store) == {}
        killer.join()
        assert set(client.run(os.getpid).values()) != set(pids.values())
    assert died == [True]
    pd.testing.assert_frame_equal(store.results(list(units)), run(specs, store=tmp_path / "alone"))


@pytest.mark.slow
def test_processes_of_this_machine_leave_the_environment_as_it_was():
    before = dict(os.environ)
    with client_of("local:1") as client:
        assert client.submit(os.getpid).result() != os.getpid()
    assert dict(os.environ) == before


@pytest.mark.slow
def test_what_cannot_be_finished_is_named_and_the_rest_is_done(specs, tmp_path):
    store = Store(tmp_path)
    bad = specs[0].model_copy(update={"hyperparameters": {"layer": 99, "contexts": ("{}",)}})
    good = specs[1].model_copy(update={"n_operations": 1, "checkpoints": (0, 1)})
    units = {unit_key(spec): spec for spec in (bad, good)}
    with client_of("local:1") as client:
        failed = hand_out(client, units, store)
    assert list(failed) == [str(bad)]
    assert "layer 99 is out of range" in failed[str(bad)]
    assert store.finished(unit_key(good))


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        ("local:0", "cluster 'local:0': the number of processes must be at least 1, as in local:2."),
        ("local:x", "cluster 'local:x': the number of processes must be at least 1, as in local:2."),
        ("no-such-file.json", "cluster 'no-such-file.json' is neither local, local:N, an address such as"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(cluster, sentence):
    with pytest.raises(SpecError) as caught, client_of(cluster):
        pass
    assert str(caught.value).startswith(sentence)
