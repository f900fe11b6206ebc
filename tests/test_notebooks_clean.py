"""Notebooks are committed without outputs, thin, with one explained parameters cell, and all in figures.yaml."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from workbench.figures.manifest import FIGURES_PARAMETER, read_manifest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
NOT_FIGURES = {"00_explorer.ipynb"}
MOST_LINES, MOST_PARAMETERS = 10, 13

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def parameters_cells(path):
    return [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]


def parameters_of(path):
    """Name to value of the notebook's parameters, which are literals."""
    [cell] = parameters_cells(path)
    return {node.target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


def test_there_are_notebooks_to_look_at():
    assert len(PATHS) >= 4


@every_notebook
def test_a_notebook_holds_no_outputs(path):
    cells = code_cells(path)
    assert cells
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert [cell.execution_count for cell in cells] == [None] * len(cells)


@every_notebook
def test_parameters_are_literals_annotated_and_explained_one_a_line(path):
    [cell] = parameters_cells(path)
    lines = cell.source.splitlines()
    nodes = ast.parse(cell.source).body
    assert len(lines) == len(nodes) >= 1
    for line, node in zip(lines, nodes, strict=True):
        assert isinstance(node, ast.AnnAssign), line
        ast.literal_eval(node.value)
        comment = line[node.end_col_offset :].strip()
        assert comment.startswith("# "), f"{line}: say what it is"
        assert len(comment) > 5, line


@every_notebook
def test_cells_are_thin(path):
    for cell in code_cells(path):
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        most = MOST_PARAMETERS if "parameters" in cell.metadata.get("tags", []) else MOST_LINES
        assert 1 <= len(lines) <= most, cell.source


@every_notebook
def test_cells_hold_neither_functions_nor_magics(path):
    for cell in code_cells(path):
        tree = ast.parse(cell.source)  # no magics: they are no Python
        defined = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
        assert defined == [], cell.source


@every_notebook
def test_a_notebook_opens_with_its_title_and_question(path):
    first = nbformat.read(path, 4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert path.name in NOT_FIGURES or "?*" in first.source


def test_every_notebook_is_in_the_list_and_the_other_way_round():
    listed = {entry.notebook for entry in read_manifest(NOTEBOOKS).figures}
    assert listed == {path.name for path in PATHS} - NOT_FIGURES


def test_every_parameter_of_the_list_exists_and_has_the_type_of_its_default():
    checked = 0
    for entry in read_manifest(NOTEBOOKS).figures:
        known = parameters_of(NOTEBOOKS / entry.notebook)
        assert FIGURES_PARAMETER in known
        for given in (entry.parameters, *entry.profiles.values()):
            for name, value in given.items():
                assert type(value) is type(known[name]), f"{entry.figure}: {name}"
                checked += 1
    assert checked >= 4


def test_every_file_is_made_once_and_every_notebook_runs_in_ci_and_in_the_default_profile_or_the_study():
    entries = read_manifest(NOTEBOOKS).figures
    made = [name for entry in entries for name in entry.makes]
    assert len(made) == len(set(made)) >= 4
    # a counterpart on another of the paper's models is left to those who have the model, and hours to the study
    here = [entry for entry in entries if set(entry.profiles) - {"paper", "study"}]
    assert all({"default", "study"} & set(entry.profiles) for entry in here)
    assert {entry.notebook for entry in here if "smoke" in entry.profiles} == {entry.notebook for entry in here}
    assert {entry.notebook for entry in here} == {path.name for path in PATHS} - NOT_FIGURES


def strip(path):
    """Do what pre-commit does."""
    config = yaml.safe_load((NOTEBOOKS.parent / ".pre-commit-config.yaml").read_text())
    [command] = [h["entry"] for repo in config["repos"] for h in repo["hooks"] if h["id"] == "nbstripout"]
    subprocess.run([sys.executable, "-m", *command.split(), str(path)], check=True)


@every_notebook
def test_nbstripout_finds_nothing_to_do(path, tmp_path):
    copy = Path(shutil.copy(path, tmp_path))
    strip(copy)
    assert copy.read_bytes() == path.read_bytes()


def test_nbstripout_takes_the_outputs_and_leaves_the_parameters_tag(tmp_path):
    copy = Path(shutil.copy(PATHS[0], tmp_path))
    notebook = nbformat.read(copy, 4)
    for count, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="printed")], count + 1
    nbformat.write(notebook, copy)
    assert code_cells(copy)[0].outputs
    strip(copy)
    cells = code_cells(copy)
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)
    assert parameters_of(copy) == parameters_of(PATHS[0])
