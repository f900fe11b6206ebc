"""Files that commands write and saved updates that they read: refused in one sentence before any work."""

import os
from functools import reduce
from operator import add
from pathlib import Path

import pandas as pd

from workbench.commands.folders import show_saved
from workbench.commands.printing import tell
from workbench.errors import UpdateError, WorkbenchError
from workbench.inputs import require_path
from workbench.library_logging import quiet_libraries
from workbench.lm import LanguageModel, load
from workbench.regularize import Regularizer, make_regularizer
from workbench.storage.files import kind_if_no_file, write_atomically
from workbench.update import WeightUpdate

SavedUpdate = tuple[Path, WeightUpdate]


def check_file_option(option: str, path: Path, *, force: bool, error: type[WorkbenchError] = UpdateError) -> None:
    """Refuse a file that cannot be written, or that exists and may not be replaced.

    Parameters
    ----------
    option : str
        Option that names the file, such as ``"--save"``.
    path : Path
        File to write.
    force : bool
        Whether an existing file may be replaced.
    error : type
        Class of the error to raise.

    Raises
    ------
    WorkbenchError
        If the file cannot be written, or exists and may not be replaced.
    """
    require_path(path, option, error)
    if not path.parent.is_dir():
        raise error(f"{option} {path}: the folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise error(f"{option} {path} is a folder; give the name of a file in it.")
    if kind := kind_if_no_file(path):
        raise error(f"{option} {path} is {kind}; give the name of a file.")
    if path.exists() and not force:
        raise error(f"{option} {path} exists; give another name, or --force to replace it.")
    if not os.access(path.parent, os.W_OK):
        raise error(f"{option} {path}: the folder {path.parent} cannot be written to; choose another.")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV or, if the name ends so, as parquet; show where it is."""
    write = table.to_parquet if path.suffix == ".parquet" else table.to_csv
    write_atomically(path, lambda scratch: write(scratch, index=False))
    show_saved(path)


def load_updates(paths: list[Path]) -> list[SavedUpdate]:
    """Return saved updates with their files, in order."""
    return [(path, WeightUpdate.load(path)) for path in paths]


def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str = "float32",
    device_map: str | None = None,
    quantize: str | None = None,
) -> LanguageModel:
    """Load the model that an option names, without messages of other libraries."""
    quiet_libraries()
    tell(f"loading {name}")
    return load(name, device=device, dtype=dtype, device_map=device_map, quantize=quantize)


def regularizer_of_sum(name: str | None) -> Regularizer | None:
    """Return the regularizer that the option --accumulated names, if it names one."""
    return None if name is None else make_regularizer(name)


def apply_updates(updates: list[SavedUpdate], lm: LanguageModel, accumulated: Regularizer | None) -> None:
    """Apply updates in order, or their sum after its regularizer."""
    if accumulated is None:
        for _, update in updates:
            update.apply(lm)
    else:
        accumulated(reduce(add, (update for _, update in updates)), lm).apply(lm)


def check_updates_fit(updates: list[SavedUpdate], lm: LanguageModel) -> None:
    """Raise `UpdateError`, with the name of the file, unless every update fits the model."""
    for path, update in updates:
        try:
            update.check_fits(lm)
        except UpdateError as err:
            raise UpdateError(f"{path}: {err}") from err
