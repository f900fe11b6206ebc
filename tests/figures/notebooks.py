"""Notebooks and manifests for the tests of figures."""

from pathlib import Path
from typing import Any

import nbformat
import yaml

from workbench.figures.plan import plan
from workbench.figures.regenerate import FinishedRun, regenerate

PARAMETERS = """\
n: int = 1  # rows of the table
name: str = "fig"  # stem of the file
figures_dir: str = "."  # folder of the file"""
WRITE = """\
import csv
from pathlib import Path
Path(figures_dir).mkdir(parents=True, exist_ok=True)
with open(Path(figures_dir) / f"{name}.csv", "w") as file:
    csv.writer(file).writerows([["i"], *[[i] for i in range(n)]])"""
ENTRY = {"figure": "fig", "title": "A figure", "notebook": "fig.ipynb", "makes": ["fig"], "profiles": {"smoke": {}}}


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> None:
    """Write a notebook with the parameters cell and these code cells."""
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    notebook.cells[0].metadata.tags = ["parameters"]
    nbformat.write(notebook, path)


def write_manifest(folder: Path, *entries: dict[str, Any]) -> None:
    """Write figures.yaml with these entries."""
    (folder / "figures.yaml").write_text(yaml.safe_dump({"figures": list(entries)}))


def plan_and_run(*names: str, at_once: int = 1, **given: Any) -> list[FinishedRun]:
    """Plan and run figures."""
    return regenerate(plan(names, **given), at_once=at_once)
