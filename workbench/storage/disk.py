"""Errors of the disk as one sentence: full, over a quota, read-only, not permitted, with what helps."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import DiskError, WorkbenchError
from workbench.storage.cache import cache_dir

FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})  # Windows has no quotas of this kind
_NEVER_OF_READING = FULL | {errno.EFBIG, errno.EROFS}
_OF_WRITING = _NEVER_OF_READING | {
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EEXIST,  # a file where a folder is to be made
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
_NUMBER = re.compile(r"os error (\d+)|\[Errno (\d+)\]")  # of libraries in Rust; of programs in Python


@contextmanager
def disk_errors(path: str | Path, *, variable: str | None = None) -> Iterator[None]:
    """Raise what goes wrong with the disk while `path` is written as `DiskError`; other errors stay as they are.

    Libraries in Rust, such as safetensors and tokenizers, report the disk by errors of their own.

    Parameters
    ----------
    path : str or Path
        The file or folder that is written, for the sentence.
    variable : str, optional
        Environment variable that names another folder; by default WORKBENCH_CACHE for files of the cache, TMPDIR for
        temporary ones.

    Raises
    ------
    DiskError
        If the disk is full, a quota is used up, or the place cannot be written to for another reason.
    """
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as err:
        number = err.errno if isinstance(err, OSError) and err.errno is not None else number_in(str(err))
        if number not in _OF_WRITING:
            raise
        raise DiskError(_sentence(path, number, variable)) from err


def number_in(message: str) -> int | None:
    """Return the number of the system's error that a message of another program or library ends with, if any."""
    found = _NUMBER.search(message)
    return None if found is None else int(found[1] or found[2])


def cannot_write(path: str | Path, number: int | None, *, variable: str | None = None) -> str | None:
    """Return the sentence for an error that only writing can end in, as in `disk_errors`; None for any other."""
    return _sentence(path, number, variable) if number in _NEVER_OF_READING else None


def _sentence(path: str | Path, number: int | None, variable: str | None) -> str:
    assert number is not None
    variable = variable or _variable_of(Path(path))
    elsewhere = f"set {variable} to a folder" if variable else "give a folder"
    cure = f"{elsewhere} that can be written"
    if number in FULL:
        cure = f"free some space, or {elsewhere} on another disk"
    elif number == errno.EFBIG:
        cure = "raise the limit on the size of files (ulimit -f)"
    return f"{path} cannot be written ({os.strerror(number)}); {cure}."


def _variable_of(path: Path) -> str | None:
    """Return the environment variable that moves a path elsewhere, if there is one."""
    path = path.absolute()
    if path.is_relative_to(cache_dir().absolute()):
        return "WORKBENCH_CACHE"
    temporary = Path(tempfile.gettempdir(), tempfile.gettempprefix())  # how the names of temporary files begin
    return "TMPDIR" if str(path).startswith(str(temporary)) else None
