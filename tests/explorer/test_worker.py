"""Jobs run one after another; a job replaces a waiting one of its name; errors end the job, not the thread."""

import logging
import threading

import pytest

from workbench.explorer.progress import Cancelled, ProgressMonitor
from workbench.explorer.worker import Job, Worker

PATIENCE = 20


@pytest.fixture
def ended() -> list:
    """Give the name and the error of each job that has ended, in order."""
    return []


@pytest.fixture
def worker(ended):
    """Give a running worker."""
    worker = Worker(
        make_monitor=lambda job: ProgressMonitor(),
        on_start=lambda job: None,
        on_end=lambda job, error: ended.append((job.name, type(error).__name__ if error else None)),
    )
    yield worker
    worker.close()


class Held:
    """Work that runs until it is released, unless it is cancelled."""

    def __init__(self):
        self.started, self.release = threading.Event(), threading.Event()

    def __call__(self, monitor):
        self.started.set()
        while not self.release.wait(0.005):
            monitor.check()


def test_a_job_replaces_a_waiting_one_of_the_same_name(worker, ended):
    held, done = Held(), []
    worker.submit(Job("edit", held))
    assert held.started.wait(PATIENCE)
    for i in range(5):
        worker.submit(Job("regularize", lambda monitor, i=i: done.append(i)))
    held.release.set()
    assert worker.wait(PATIENCE)
    assert done == [4]
    assert ended == [("edit", None), ("regularize", None)]


def test_an_error_ends_the_job_and_not_the_thread(worker, ended):
    worker.submit(Job("bad", lambda monitor: 1 / 0))
    worker.submit(Job("good", lambda monitor: None))
    assert worker.wait(PATIENCE)
    assert ended == [("bad", "ZeroDivisionError"), ("good", None)]


def test_cancelling_ends_the_running_job_and_drops_waiting_ones(worker, ended):
    held = Held()
    worker.submit(Job("edit", held))
    worker.submit(Job("look", lambda monitor: None))
    assert held.started.wait(PATIENCE)
    worker.cancel()
    assert worker.wait(PATIENCE)
    assert ended == [("edit", "Cancelled")]


def test_an_idle_job_is_interrupted_and_runs_again_after_the_others(worker, ended):
    held, runs = Held(), []

    def slow(monitor):
        runs.append(1)
        if len(runs) == 1:
            held(monitor)

    worker.submit(Job("continue", slow, idle_only=True))
    assert held.started.wait(PATIENCE)
    worker.submit(Job("look", lambda monitor: None))
    assert worker.wait(PATIENCE)
    assert ended == [("continue", "Cancelled"), ("look", None), ("continue", None)]


def test_a_job_that_raises_cancelled_by_itself_does_not_run_again(worker, ended):
    def give_up(monitor):
        raise Cancelled

    worker.submit(Job("continue", give_up, idle_only=True))
    assert worker.wait(PATIENCE)
    assert ended == [("continue", "Cancelled")]


def test_warnings_of_the_thread_are_kept_as_notes_and_those_of_others_are_not(worker):
    log, held = logging.getLogger("workbench.somewhere"), Held()

    def warn(monitor):
        held(monitor)
        log.warning("2 of %d", 5)

    job = Job("edit", warn)
    worker.submit(job)
    assert held.started.wait(PATIENCE)
    log.warning("elsewhere")
    held.release.set()
    assert worker.wait(PATIENCE)
    assert job.notes == ["2 of 5"]
    assert not any(type(handler).__name__ == "_Notes" for handler in logging.getLogger("workbench").handlers)
