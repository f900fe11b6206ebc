"""Temporary files and folders beside what they will become: locked by their writer, removed when it was killed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where an open file cannot be renamed, leftovers stay
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".workbench-tmp"

_searched: set[Path] = set()  # folders in which this process has looked for leftovers


@contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """Give a new empty file in the folder of `path`; delete it at the end, unless it was renamed.

    Parameters
    ----------
    path : Path
        File that it will become; its folder exists.
    """
    remove_leftovers(path.parent)
    with _locked(lambda: _make_file(path)) as scratch:
        try:
            scratch.chmod(0o644)  # once it is locked: before, another process may take it for a leftover
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give a new empty folder beside `path`; delete it at the end with what it holds.

    Parameters
    ----------
    path : Path
        Folder that a part of it will become; its parent exists.
    """
    remove_leftovers(path.parent)
    with _locked(lambda: Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-", suffix=SUFFIX))) as scratch:
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left in a folder, the first time that this process asks.

    Whatever is locked is being written, here or by another process, and stays.

    Parameters
    ----------
    folder : Path
        The folder, not searched below.
    """
    if fcntl is None or (folder := folder.resolve()) in _searched:
        return
    _searched.add(folder)
    for leftover in folder.glob(f".*{SUFFIX}"):
        with contextlib.suppress(OSError), _lock(leftover, wait=False):  # of another user, or being written
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()


def _make_file(path: Path) -> Path:
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=SUFFIX)
    os.close(handle)
    return Path(scratch)


@contextmanager
def _locked(make: Callable[[], Path]) -> Iterator[Path]:
    """Give what `make` makes, locked; make another if somebody took it for a leftover before it was locked."""
    while True:
        scratch = make()
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks
                stack.enter_context(_lock(scratch, wait=True))
            if scratch.exists():
                yield scratch
                return


@contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a file or folder; raise `OSError` if that cannot be, or another process holds it."""
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
