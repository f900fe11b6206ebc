"""Notebooks as they are read from disk: whole, of format 4 and valid, so that nothing that follows has to doubt them."""

import ast
import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4.rwbase import rejoin_lines
from papermill.utils import nb_language

from workbench.errors import WorkbenchError, first_line

PARAMETERS = "parameters"  # tag of the cell that papermill replaces the values of
_FORMAT = 4


def read_notebook(path: Path, error: type[WorkbenchError], cure: str) -> NotebookNode:
    """Return a notebook.

    Parameters
    ----------
    path : Path
        The file.
    error : type
        The error to raise.
    cure : str
        What the user can do about it, as the end of the sentence.

    Returns
    -------
    NotebookNode
        Of format 4, with everything that its schema asks for.

    Raises
    ------
    WorkbenchError
        If the file cannot be read, or is no such notebook.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _check_format(content)
        _, notebook = nbformat.validator.normalize(content)  # gives cells of older notebooks their ids
        nbformat.validate(notebook)
        _check_metadata(notebook.get("metadata", {}))
        return rejoin_lines(nbformat.from_dict(notebook))  # JSON holds the lines of a cell as a list
    except RecursionError as err:
        raise error(f"{path} is not a notebook (it is nested too deeply); {cure}.") from err
    except (TypeError, KeyError, AttributeError, AssertionError) as err:  # nbformat's, where it meets other types
        raise error(f"{path} is not a notebook (its parts are not those of one); {cure}.") from err
    except (OSError, ValueError, nbformat.ValidationError) as err:
        reason = getattr(err, "strerror", None) or first_line(err).rstrip(".:")
        where = ".".join(map(str, getattr(err, "relative_path", ())))
        raise error(f"{path} is not a notebook ({where}{': ' * bool(where)}{reason[:200]}); {cure}.") from err


def parameter_names(notebook: NotebookNode) -> list[str]:
    """Return the names that the parameters cell assigns; raise `ValueError` if papermill cannot set them."""
    cell = next((cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])), None)
    if cell is None:
        return []
    nb_language(notebook)  # raises ValueError if the notebook names no language
    names = []
    for node in ast.parse(cell.source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if _declares(node) else []
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return sorted(set(names))


def _declares(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and node.value is not None


def _check_format(content: Any) -> None:
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    if "nbformat" not in content or "cells" not in content:
        raise ValueError("it has no nbformat and cells")
    cells = content["cells"]
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("its cells are not a list of objects")
    if content["nbformat"] != _FORMAT:
        raise ValueError(f"its nbformat is {str(content['nbformat'])[:20]} instead of {_FORMAT}")
    text = json.dumps(content, ensure_ascii=False)
    text.encode()  # half a surrogate pair can be written nowhere
    if "\0" in text or "\\u0000" in text:
        raise ValueError("it holds a NUL character")


def _check_metadata(metadata: Any) -> None:
    """Raise `ValueError` unless what papermill and Jupyter have written is as they write it; the schema leaves it open."""
    for name in ("kernelspec", "language_info", "papermill"):
        if not isinstance(metadata.get(name, {}), dict):
            raise ValueError(f"its metadata {name} is not an object")
    run = metadata.get("papermill", {})
    if not isinstance(run.get("parameters", {}), dict):
        raise ValueError("its papermill parameters are not an object")
    if not isinstance(run.get("duration"), int | float | None) or isinstance(run.get("duration"), bool):
        raise ValueError("its papermill duration is not a number")
    if not all(isinstance(run.get(time), str | None) for time in ("start_time", "end_time")):
        raise ValueError("its papermill times are not texts")
