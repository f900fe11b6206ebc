"""Files that commands write and saved updates that they read: refused in one sentence before any work."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.commands.printing import quiet_libraries, tell
from workbench.errors import UpdateError, WorkbenchError

if TYPE_CHECKING:
    from workbench.lm import LanguageModel
    from workbench.update import WeightUpdate

SavedUpdate = tuple[Path, "WeightUpdate"]


def check_file_option(option: str, path: Path, *, force: bool, error: type[WorkbenchError] = UpdateError) -> None:
    """Refuse a file that cannot be written, or that is to be kept.

    Parameters
    ----------
    option : str
        Which names the file, such as "--save".
    path : Path
        To be written.
    force : bool
        Whether a file that is there may be replaced.
    error : type
        What is raised.

    Raises
    ------
    WorkbenchError
        If it cannot be written, or is there and may not be replaced.
    """
    if not path.parent.is_dir():
        raise error(f"{option} {path}: the folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise error(f"{option} {path} is a folder; give the name of a file in it.")
    if path.exists() and not force:
        raise error(f"{option} {path} exists; give another name, or --force to replace it.")
    if not os.access(path.parent, os.W_OK):
        raise error(f"{option} {path}: the folder {path.parent} cannot be written to; choose another.")


def load_updates(paths: list[Path]) -> list[SavedUpdate]:
    """Saved updates with their files, in order."""
    from workbench.update import WeightUpdate

    return [(path, WeightUpdate.load(path)) for path in paths]


def load_model(name: str, **where: str | None) -> "LanguageModel":
    """The model that an option names, loaded without other libraries' chatter."""
    from workbench.lm import load

    quiet_libraries()
    tell(f"loading {name}")
    return load(name, **where)


def check_updates_fit(updates: list[SavedUpdate], lm: "LanguageModel") -> None:
    """Raise `UpdateError`, with the file's name, unless every update fits the model."""
    for path, update in updates:
        try:
            update.check_fits(lm)
        except UpdateError as err:
            raise UpdateError(f"{path}: {err}") from err
