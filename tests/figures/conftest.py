"""A folder of notebooks with its manifest, and stand-ins for the kernel."""

from collections.abc import Callable
from pathlib import Path

import papermill
import pytest

from tests.figures.notebooks import ENTRY, WRITE, write_manifest, write_notebook


@pytest.fixture
def notebooks(tmp_path, monkeypatch) -> Path:
    """Give a folder with a manifest and one notebook, which writes one table; the working folder is beside it."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "fig.ipynb", WRITE)
    write_manifest(folder, ENTRY)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def stand_in(notebooks, monkeypatch) -> Callable[..., Path]:
    """Give a function that sets which files in the figures folder each run writes, without a kernel."""
    folder = notebooks.parent / "figures"
    folder.mkdir()

    def writes(*names):
        def run(source, target, **kwargs):
            for name in names:
                (folder / name).write_text("new")

        monkeypatch.setattr(papermill, "execute_notebook", run)
        return folder

    return writes
