"""Every error the workbench raises on purpose: one sentence that says what, where and what would be right."""


class WorkbenchError(Exception):
    """Root of all errors below; the CLI turns one into its sentence and exit code 2."""


class ModelError(WorkbenchError, LookupError):
    """A model, its files or its architecture row cannot be had."""


class RequestError(WorkbenchError, ValueError):
    """An edit request, or a file of them, cannot be used."""


class DataError(WorkbenchError, ValueError):
    """A task's data, or one record of it, cannot be used."""


class EditError(WorkbenchError, ValueError):
    """An editor cannot compute an update with these hyperparameters on this model."""


class UpdateError(WorkbenchError, ValueError):
    """A weight update does not fit the model or cannot be read."""


class SpecError(WorkbenchError, ValueError):
    """A figure, profile, parameter or setting that was asked for does not exist."""


class ReportError(WorkbenchError, ValueError):
    """A report cannot be made from what is there, or not where it should go."""


class RunError(WorkbenchError, RuntimeError):
    """A notebook failed while it ran; what it had made until then is kept."""


def first_line(err: Exception) -> str:
    """What another library's error says, in one line: its first, or its name where it says nothing."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
