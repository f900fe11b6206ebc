"""Atomic files: written under a temporary name beside the target, then renamed, so a file is whole or absent."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        write(scratch)
        Path(scratch).chmod(0o644)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return path
