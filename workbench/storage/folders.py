"""Atomic folders: filled under a temporary name beside the target, then renamed, so a folder is whole or absent."""

import os
from collections.abc import Callable
from pathlib import Path

from workbench.errors import UpdateError
from workbench.inputs import require_path
from workbench.storage.disk import disk_errors
from workbench.storage.files import kind_if_no_file
from workbench.storage.scratch import scratch_folder


def check_folder(folder: str | Path, *, replace: bool = False) -> None:
    """Raise `UpdateError` unless `folder` can be written: it does not exist, is empty, or may be replaced.

    Parameters
    ----------
    folder : str or Path
        The folder to create.
    replace : bool
        Whether a folder that is not empty may be replaced.

    Raises
    ------
    UpdateError
        If it is a file, is not empty and may not be replaced, or its parent folder is missing or not writable.
    """
    require_path(folder, "the folder", UpdateError)
    target = Path(folder).resolve()
    if target.exists() and not target.is_dir():
        raise UpdateError(f"{folder} is {kind_if_no_file(target) or 'a file'}; give the name of a folder to make.")
    if target.is_dir() and any(target.iterdir()) and not replace:
        raise UpdateError(f"the folder {folder} exists and is not empty; give another name.")
    if not target.parent.is_dir():
        raise UpdateError(f"{folder}: the folder {target.parent} does not exist; make it first.")
    if not os.access(target.parent, os.W_OK):
        raise UpdateError(f"{folder}: the folder {target.parent} cannot be written to; choose another.")


def write_folder_atomically(folder: str | Path, write: Callable[[Path], object], *, replace: bool = False) -> Path:
    """Call `write` with a temporary folder, then rename the folder that it filled to `folder`.

    Parameters
    ----------
    folder : str or Path
        The folder to create.
    write : callable
        Function that fills the folder it is given. If it raises, the old content of `folder` stays and nothing else
        is left.
    replace : bool
        Whether a folder that is not empty may be replaced.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    UpdateError
        As in `check_folder`.
    DiskError
        As in `workbench.storage.files.write_atomically`.
    """
    check_folder(folder, replace=replace)
    target = Path(folder).resolve()  # a rename would replace a link instead of what it points to
    with disk_errors(folder), scratch_folder(target) as scratch:
        built, old = scratch / "built", scratch / "old"
        built.mkdir()
        write(built)
        for path in built.rglob("*"):  # safetensors creates files that only their owner can read
            path.chmod(0o755 if path.is_dir() else 0o644)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(built, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise
    return Path(folder)
