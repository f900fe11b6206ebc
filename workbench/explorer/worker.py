"""Work of a panel, in a thread of its own, so that the kernel goes on answering: one job after another."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from IPython import get_ipython

from workbench.explorer.progress import Cancelled, Watch

Work = Callable[[Watch], None]


@dataclass
class Job:
    """Something to be done.

    Attributes
    ----------
    name : str
        Of jobs that wait under one name the last one counts.
    work : callable
        Takes the `Watch` by which it is cancelled.
    slow : bool
        Whether it takes so long that progress is worth showing.
    idle_only : bool
        Whether it gives way to any other, and is done when that has been.
    notes : list of str
        Warnings that it has caused.
    """

    name: str
    work: Work
    slow: bool = False
    idle_only: bool = False
    notes: list[str] = field(default_factory=list)


class Jobs:
    """A thread that does one job after another.

    Parameters
    ----------
    watch : callable
        Makes the `Watch` of a job.
    begun : callable
        Takes a job that begins.
    ended : callable
        Takes a job that has ended and what it raised, None if it went well.
    """

    def __init__(
        self,
        *,
        watch: Callable[[Job], Watch],
        begun: Callable[[Job], None],
        ended: Callable[[Job, Exception | None], None],
    ) -> None:
        self._watch_of, self._begun, self._ended = watch, begun, ended
        self._changed = threading.Condition()
        self._waiting: dict[str, Job] = {}
        self._now: tuple[Job, Watch] | None = None
        self._interrupted: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="explorer", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Let a job be done when those before it are; one that waits under its name is dropped."""
        with self._changed:
            self._waiting.pop(job.name, None)
            self._waiting[job.name] = job
            if self._now and self._now[0].idle_only:
                self._interrupted = self._now[0]
                self._now[1].cancel()
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the job that runs, and drop those that wait."""
        with self._changed:
            self._waiting.clear()
            self._interrupted = None
            if self._now:
                self._now[1].cancel()

    def close(self) -> None:
        """End the thread."""
        self.cancel()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is nothing to do; whether that came within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and self._now is None, timeout)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            job, watch = taken
            error = None
            try:
                self._begun(job)
                with _no_displays(), _warnings_in(job.notes):
                    job.work(watch)
            except Cancelled as err:
                error = err
            except Exception as err:  # a thread that dies would leave a panel that never answers again
                error = err
            try:
                self._ended(job, error)
            finally:
                with self._changed:
                    if isinstance(error, Cancelled) and self._interrupted is job:
                        self._waiting.setdefault(job.name, job)
                    self._now = self._interrupted = None
                    self._changed.notify_all()

    def _take(self) -> tuple[Job, Watch] | None:
        """The job that is next, those that give way behind the others."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            name = min(self._waiting, key=lambda name: self._waiting[name].idle_only)
            job = self._waiting.pop(name)
            self._now = job, self._watch_of(job)
            return self._now


@contextmanager
def _no_displays() -> Iterator[None]:
    """Nothing that libraries display in this thread is shown: progress bars would land below the panel."""
    publisher = getattr(get_ipython(), "display_pub", None)
    if not hasattr(publisher, "register_hook"):  # not in a notebook
        yield
        return

    def drop(message):
        return None

    publisher.register_hook(drop)  # of this thread alone
    try:
        yield
    finally:
        publisher.unregister_hook(drop)


class _Notes(logging.Handler):
    """Keeps the warnings of one thread."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes, self._thread = notes, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._notes.append(record.getMessage())


@contextmanager
def _warnings_in(notes: list[str]) -> Iterator[None]:
    """What the workbench warns of in this thread goes into `notes`."""
    log, handler = logging.getLogger("workbench"), _Notes(notes)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
