"""Atomic files: written under a temporary name beside the target, then renamed, so a file is whole or absent."""

import re
from collections.abc import Callable
from pathlib import Path

from workbench.errors import OutputError
from workbench.inputs import shown
from workbench.storage.disk import disk_errors
from workbench.storage.scratch import scratch_file

_FILE_NAME = re.compile(r"\w[\w .+=-]*(?<![ .])")
_MOST_BYTES = 200  # file systems take 255, of which endings and temporary names need some
_KINDS = (
    (Path.is_dir, "a folder"),
    (Path.is_fifo, "a pipe"),
    (Path.is_socket, "a socket"),
    (Path.exists, "a device"),
)


def check_file_name(name: str) -> str:
    """Return a name that a file may have in the folder where it belongs.

    Parameters
    ----------
    name : str
        Name without folders: letters, digits, and ``_ - . + =`` and spaces after the first, at most 200 bytes in UTF-8;
        no space or dot at the end.

    Returns
    -------
    str
        `name`.

    Raises
    ------
    OutputError
        If it is anything else, such as ``"../other"``, which would be written elsewhere.
    """
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or len(name.encode()) > _MOST_BYTES:
        raise OutputError(f"{shown(name)} cannot name a file; give letters, digits and _ - . without folders.")
    return name


def kind_if_no_file(path: Path) -> str | None:
    """Return what a path leads to if that exists and is no regular file, such as "a folder" or "a pipe"."""
    if path.is_file():
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(path)), None)


def write_atomically(path: str | Path, write: Callable[[str], object]) -> Path:
    """Call `write` with a temporary path, then rename the file that it wrote to `path`.

    Parameters
    ----------
    path : str or Path
        The file to create or replace; its folder is created if it does not exist.
    write : callable
        Function that writes the file at the path it is given. If it raises, the old file stays and nothing else is
        left.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If there is a folder, a device, a pipe or a socket at `path`, which a rename would replace.
    DiskError
        If the disk is full or read-only, a quota is used up, or permission is denied.
    """
    path = Path(path)
    with disk_errors(path):
        if kind := kind_if_no_file(path):
            raise OutputError(f"{path} is {kind}; give the name of a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_file(path) as scratch:
            write(str(scratch))
            scratch.chmod(0o644)  # safetensors creates files that only their owner can read
            scratch.replace(path)
    return path
