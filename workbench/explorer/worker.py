"""A thread that does the work of a panel, so that the kernel stays responsive."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from IPython import get_ipython

from workbench.explorer.progress import Cancelled, ProgressMonitor

Work = Callable[[ProgressMonitor], None]


@dataclass
class Job:
    """A piece of work.

    Attributes
    ----------
    name : str
        Name of the job; a new job replaces one of the same name that is still waiting.
    work : callable
        Called with the `ProgressMonitor` that cancels it.
    slow : bool
        Whether it takes long enough to show its progress.
    idle_only : bool
        Whether it runs only while no other job waits; a new job interrupts it, and it starts again afterwards.
    notes : list of str
        Warnings that were logged while it ran.
    """

    name: str
    work: Work
    slow: bool = False
    idle_only: bool = False
    notes: list[str] = field(default_factory=list)


class Worker:
    """A thread that runs one job after another.

    Parameters
    ----------
    make_monitor : callable
        Returns the `ProgressMonitor` of a job.
    on_start : callable
        Called with each job that starts.
    on_end : callable
        Called with each job that has ended, and with the exception that it raised, or None.
    """

    def __init__(
        self,
        *,
        make_monitor: Callable[[Job], ProgressMonitor],
        on_start: Callable[[Job], None],
        on_end: Callable[[Job, Exception | None], None],
    ) -> None:
        self._make_monitor, self._on_start, self._on_end = make_monitor, on_start, on_end
        self._changed = threading.Condition()
        self._waiting: dict[str, Job] = {}
        self._running: tuple[Job, ProgressMonitor] | None = None
        self._interrupted: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="explorer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job, in place of a waiting one of the same name."""
        with self._changed:
            self._waiting.pop(job.name, None)
            self._waiting[job.name] = job
            if self._running and self._running[0].idle_only:
                self._interrupted = self._running[0]
                self._running[1].cancel()
            self._changed.notify_all()

    def cancel(self) -> None:
        """Cancel the running job, and drop all waiting ones."""
        with self._changed:
            self._waiting.clear()
            self._interrupted = None
            if self._running:
                self._running[1].cancel()

    def close(self) -> None:
        """End the thread."""
        self.cancel()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no job runs or waits; return False if that takes longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and self._running is None, timeout)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            job, monitor = taken
            error: Exception | None = None
            try:
                self._on_start(job)
                with _displays_dropped(), _warnings_kept_in(job.notes):
                    job.work(monitor)
            except Exception as err:  # a dead thread would leave a panel that never answers again
                error = err
            try:
                self._on_end(job, error)
            finally:
                with self._changed:
                    if isinstance(error, Cancelled) and self._interrupted is job:
                        self._waiting.setdefault(job.name, job)
                    self._running = self._interrupted = None
                    self._changed.notify_all()

    def _take(self) -> tuple[Job, ProgressMonitor] | None:
        """Wait for the next job and return it; return None once the worker is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            name = min(self._waiting, key=lambda name: self._waiting[name].idle_only)
            job = self._waiting.pop(name)
            self._running = job, self._make_monitor(job)
            return self._running


@contextmanager
def _displays_dropped() -> Iterator[None]:
    """Drop what libraries display from this thread: progress bars would appear below the panel."""
    publisher = getattr(get_ipython(), "display_pub", None)
    if publisher is None or not hasattr(publisher, "register_hook"):  # not in a notebook
        yield
        return

    def drop(message: object) -> None:
        return None

    publisher.register_hook(drop)  # for this thread only
    try:
        yield
    finally:
        publisher.unregister_hook(drop)


class _Notes(logging.Handler):
    """A handler that keeps the warnings of one thread."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes, self._thread = notes, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._notes.append(record.getMessage())


@contextmanager
def _warnings_kept_in(notes: list[str]) -> Iterator[None]:
    """Append the warnings that the workbench logs in this thread to `notes`."""
    log, handler = logging.getLogger("workbench"), _Notes(notes)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
