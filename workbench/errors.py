"""Errors that the workbench raises on purpose: one sentence that says what is wrong, where, and what would be right."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.assessment import Assessment

_LONG_WORD = re.compile(r"\S{300,}")  # longer than the paths that people have


class WorkbenchError(Exception):
    """Base class of all errors below; the command line prints the sentence and exits with code 2.

    The middle of a long quoted value is left out, so that the sentence can be read.
    """

    longest = 640  # characters

    def __init__(self, message: str = "") -> None:
        super().__init__(_readable(message, self.longest))


class ModelError(WorkbenchError, LookupError):
    """A model, its files or its architecture row cannot be found or used."""


class WeightsChangedError(ModelError):
    """Weights of a model are not those that were loaded, although no applied update accounts for it."""


class RequestError(WorkbenchError, ValueError):
    """An edit request, or a file of them, cannot be used."""


class DataError(WorkbenchError, ValueError):
    """The data of a task, or one of its records, cannot be used."""


class EditError(WorkbenchError, ValueError):
    """An editor cannot compute an update with these hyperparameters on this model."""


class RiskError(EditError):
    """An edit would break the model, and a guard refused it; `assessment` holds what it would do."""

    def __init__(self, message: str, assessment: "Assessment") -> None:
        super().__init__(message)
        self.assessment = assessment


class ArgumentError(WorkbenchError, TypeError):
    """An argument of a function is not of the type that it takes."""


class UpdateError(WorkbenchError, ValueError):
    """A weight update does not fit the model or cannot be read."""


class SpecError(WorkbenchError, ValueError):
    """A requested figure, profile, parameter or setting does not exist."""


class OutputError(WorkbenchError, ValueError):
    """A file cannot be written under the name that was given."""


class DiskError(WorkbenchError, OSError):
    """A file cannot be written: the disk is full or read-only, a quota is used up, or permission is denied."""


class ReportError(WorkbenchError, ValueError):
    """A report cannot be made from the executed notebooks, or cannot be written to its destination."""


class RunError(WorkbenchError, RuntimeError):
    """A notebook failed during its run; what it wrote until then is kept."""

    longest = 4000  # the reasons of several trajectories


class NothingStoredError(RunError):
    """Only stored results are to be read, and the store holds none of the trajectories."""


class MissingExtraError(WorkbenchError, ImportError):
    """A package that is part of an extra is needed and not installed."""


def _readable(message: str, longest: int) -> str:
    """Return a sentence without the middle of very long words, and without its own if it is longer than `longest`."""
    text = _LONG_WORD.sub(lambda word: f"{word[0][:60]}…{word[0][-20:]}", message)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def reason_of(err: BaseException) -> str:
    """Return an error in one line: the sentence of a `WorkbenchError`; before any other message, its class."""
    line = first_line(err)
    return line if isinstance(err, WorkbenchError) else f"{type(err).__name__}: {line}"


def first_line(err: BaseException) -> str:
    """Return the first line of the message of another library's error, or the name of its class if it has none."""
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    if isinstance(err, RecursionError):
        return "it is nested too deeply"
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
