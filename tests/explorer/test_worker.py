"""Jobs run one after another; the last of a name counts; what gives way is done later; errors end no thread."""

import logging
import threading

import pytest

from workbench.explorer.progress import Cancelled, Watch
from workbench.explorer.worker import Job, Jobs

PATIENCE = 20


@pytest.fixture
def ended() -> list:
    """Give what has ended, in order: name and error."""
    return []


@pytest.fixture
def jobs(ended):
    """Give a thread that works."""
    jobs = Jobs(
        watch=lambda job: Watch(),
        begun=lambda job: None,
        ended=lambda job, error: ended.append((job.name, type(error).__name__ if error else None)),
    )
    yield jobs
    jobs.close()


class Held:
    """Work that goes on until it is let go, asking now and then whether to stop."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, watch):
        self.begun.set()
        while not self.go.wait(0.005):
            watch.check()


def test_of_jobs_that_wait_under_one_name_the_last_counts(jobs, ended):
    held, done = Held(), []
    jobs.put(Job("edit", held))
    assert held.begun.wait(PATIENCE)
    for i in range(5):
        jobs.put(Job("regularize", lambda watch, i=i: done.append(i)))
    held.go.set()
    assert jobs.wait(PATIENCE)
    assert done == [4]
    assert ended == [("edit", None), ("regularize", None)]


def test_an_error_ends_the_job_and_not_the_thread(jobs, ended):
    jobs.put(Job("bad", lambda watch: 1 / 0))
    jobs.put(Job("good", lambda watch: None))
    assert jobs.wait(PATIENCE)
    assert ended == [("bad", "ZeroDivisionError"), ("good", None)]


def test_cancelling_ends_what_runs_and_drops_what_waits(jobs, ended):
    held = Held()
    jobs.put(Job("edit", held))
    jobs.put(Job("look", lambda watch: None))
    assert held.begun.wait(PATIENCE)
    jobs.cancel()
    assert jobs.wait(PATIENCE)
    assert ended == [("edit", "Cancelled")]


def test_a_job_that_gives_way_is_done_after_the_others(jobs, ended):
    held, again = Held(), []

    def slow(watch):
        again.append(1)
        if len(again) == 1:
            held(watch)

    jobs.put(Job("go on", slow, idle_only=True))
    assert held.begun.wait(PATIENCE)
    jobs.put(Job("look", lambda watch: None))
    assert jobs.wait(PATIENCE)
    assert ended == [("go on", "Cancelled"), ("look", None), ("go on", None)]


def test_a_job_that_raises_cancelled_by_itself_is_not_done_again(jobs, ended):
    def give_up(watch):
        raise Cancelled

    jobs.put(Job("go on", give_up, idle_only=True))
    assert jobs.wait(PATIENCE)
    assert ended == [("go on", "Cancelled")]


def test_warnings_of_the_thread_are_kept_as_notes_and_those_of_others_are_not(jobs):
    log, held = logging.getLogger("workbench.somewhere"), Held()

    def warn(watch):
        held(watch)
        log.warning("2 of %d", 5)

    job = Job("edit", warn)
    jobs.put(job)
    assert held.begun.wait(PATIENCE)
    log.warning("elsewhere")
    held.go.set()
    assert jobs.wait(PATIENCE)
    assert job.notes == ["2 of 5"]
    assert not any(type(handler).__name__ == "_Notes" for handler in logging.getLogger("workbench").handlers)
