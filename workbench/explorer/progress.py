"""Progress and cancellation of work on a model, by its forward passes.

Whatever edits or measures a model runs it, so one hook on the model serves every method, including those of other
packages.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.editing.passes.hooks import Hooks
    from workbench.lm import LanguageModel


class Cancelled(Exception):  # noqa: N818  a signal, not an error
    """Raised in work that was cancelled."""


@dataclass(frozen=True)
class Progress:
    """How far work has come.

    Attributes
    ----------
    stage : str
        Name of the current stage.
    done : int
        Number of forward passes, or of steps, so far.
    expected : int or None
        Total number; None if it is unknown.
    exact : bool
        Whether the total is exact; otherwise it is an upper limit.
    """

    stage: str
    done: int = 0
    expected: int | None = None
    exact: bool = False

    @property
    def line(self) -> str:
        """The progress in a few words."""
        if self.expected:
            return f"{self.stage}: {self.done} of {'' if self.exact else 'at most '}{self.expected}"
        return self.stage + (f": {self.done} passes" if self.done else "")


class ProgressMonitor:
    """Receives the progress of a piece of work and cancels it on request.

    Parameters
    ----------
    report : callable, optional
        Called with each new `Progress`, in the thread that works.
    """

    def __init__(self, report: Callable[[Progress], None] | None = None) -> None:
        self._report = report or (lambda progress: None)
        self._cancelled = threading.Event()
        self._progress = Progress("")
        self._counts_passes = True

    def cancel(self) -> None:
        """Cancel the work at its next forward pass."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise `Cancelled` if the work was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled

    def stage(self, name: str, expected: int | None = None) -> None:
        """Begin a stage that takes `expected` forward passes."""
        self._counts_passes = True
        self._set(Progress(name, 0, expected))

    def step(self, name: str, done: int, expected: int) -> None:
        """Begin the step after `done` of `expected`, whatever number of forward passes it takes."""
        self._counts_passes = False
        self._set(Progress(name, done, expected, exact=True))

    def count_pass(self) -> None:
        """Count a forward pass; raise `Cancelled` if the work was cancelled."""
        self.check()
        if self._counts_passes:
            last = self._progress
            self._set(Progress(last.stage, last.done + 1, last.expected))

    def _set(self, progress: Progress) -> None:
        self.check()
        self._progress = progress
        self._report(progress)


def passes_counted(lm: "LanguageModel", monitor: ProgressMonitor) -> "Hooks":
    """Count every forward pass of `lm` inside a ``with`` block, and cancel it when `monitor` says so."""
    from workbench.editing.passes.hooks import hooked  # torch takes seconds to import, and the panel shows before

    return hooked(lm.model, lambda module, args: monitor.count_pass(), before=True)
