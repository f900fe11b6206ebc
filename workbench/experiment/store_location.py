"""Default location of the store of results; imports nothing that takes long."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STORE_VARIABLE = "WORKBENCH_STORE"
DEFAULT_STORE = "build/store"


def default_store() -> str:
    """Return the value of the environment variable WORKBENCH_STORE, or ``build/store`` in the working folder."""
    return os.environ.get(STORE_VARIABLE) or DEFAULT_STORE


@contextmanager
def store_for_children(folder: Path) -> Iterator[None]:
    """Make processes started in the ``with`` block use a folder as store, unless WORKBENCH_STORE names another."""
    if os.environ.get(STORE_VARIABLE):
        yield
        return
    os.environ[STORE_VARIABLE] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ[STORE_VARIABLE]
