"""Where the results of experiments are kept, unless somebody says otherwise; imports nothing that takes its time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STORE_VARIABLE = "WORKBENCH_STORE"
DEFAULT_STORE = "build/store"


def default_store() -> str:
    """Return what the environment variable WORKBENCH_STORE says, or ``build/store`` in the working folder."""
    return os.environ.get(STORE_VARIABLE) or DEFAULT_STORE


@contextmanager
def store_for_children(folder: Path) -> Iterator[None]:
    """Let processes started in the block keep results in a folder, unless WORKBENCH_STORE names another place."""
    if os.environ.get(STORE_VARIABLE):
        yield
        return
    os.environ[STORE_VARIABLE] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ[STORE_VARIABLE]
