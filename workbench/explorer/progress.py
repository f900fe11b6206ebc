"""Watching work on a model, forward pass by forward pass: how far it is, and whether it is to stop.

Whatever edits or measures a model runs it, so one hook on the model serves every method, also one written elsewhere.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.lm import LanguageModel


class Cancelled(Exception):  # noqa: N818  a signal, not an error
    """Ends work that is no longer wanted."""


@dataclass(frozen=True)
class Progress:
    """How far work is.

    Attributes
    ----------
    stage : str
        What is being done.
    done : int
        Forward passes, or steps, so far.
    expected : int or None
        How many there will be; None where nobody knows.
    exact : bool
        Whether there will be just so many, or at most.
    """

    stage: str
    done: int = 0
    expected: int | None = None
    exact: bool = False


class Watch:
    """What a piece of work reports to, and is stopped by.

    Parameters
    ----------
    report : callable, optional
        Takes a `Progress`, in the thread that works.
    """

    def __init__(self, report: Callable[[Progress], None] | None = None) -> None:
        self._report = report or (lambda progress: None)
        self._cancelled = threading.Event()
        self._progress = Progress("")
        self._by_passes = True

    def cancel(self) -> None:
        """Let the work end at its next forward pass."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether it is to end."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if the work is to end."""
        if self.cancelled:
            raise Cancelled

    def stage(self, stage: str, expected: int | None = None) -> None:
        """Begin a stage of so many forward passes."""
        self._by_passes = True
        self._tell(Progress(stage, 0, expected))

    def step(self, stage: str, done: int, expected: int) -> None:
        """Begin step `done` of `expected`, whatever its number of forward passes."""
        self._by_passes = False
        self._tell(Progress(stage, done, expected, exact=True))

    def passed(self) -> None:
        """Count a forward pass; raises `Cancelled` if the work is to end."""
        self.check()
        if self._by_passes:
            last = self._progress
            self._tell(Progress(last.stage, last.done + 1, last.expected))

    def _tell(self, progress: Progress) -> None:
        self.check()
        self._progress = progress
        self._report(progress)


@contextmanager
def watched(lm: "LanguageModel", watch: Watch) -> Iterator[None]:
    """Every forward pass of `lm` counts, and asks whether to go on, for the time of the block."""
    from workbench.editing.passes.hooks import hooked  # torch takes seconds, and the panel is there before

    def passed(module, args):
        watch.passed()

    with hooked(lm.model, passed, before=True):
        yield
