"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[str], object]) -> Path:
    """Let `write` make a file at a temporary path, and rename it to `path` when it has.

    Parameters
    ----------
    path : str or Path
        The file to make or replace; its folder is made if it is not there.
    write : callable
        Takes the temporary path; if it raises, the old file stays and nothing else is left.

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
        os.unlink(scratch)
        raise
    return path
