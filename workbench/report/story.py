"""What an executed notebook says of itself: title, question, reading, parameters, provenance, and whether it ran whole.

The form of the notebooks is that of the project: a title and a question in italics, a cell of parameters, "How to read
it.", a table of provenance at the end. A notebook of another form loses what it does not have, and no more.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bs4 import BeautifulSoup
from nbconvert.filters import markdown2html
from nbformat import NotebookNode

from workbench.figures.regenerate import FIGURES_PARAMETER

TITLE = re.compile(r"^#[ \t]+(.+?)[ \t]*$", re.MULTILINE)
QUESTION = re.compile(r"^\*(?!\*)(.+?)\*[ \t]*$", re.MULTILINE)
READING = "**How to read it.**"
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s+[^\sa-z0-9(]|$)", re.DOTALL)
_ERROR_TAG = "papermill-error-cell-tag"  # of the cells that papermill puts into a notebook that failed
_PARAMETER_TAGS = {"parameters", "injected-parameters"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook's run."""

    name: str
    value: Any
    note: str  # what the notebook says it is
    changed: bool  # whether the run had another value than the notebook


@dataclass(frozen=True)
class Story:
    """What an executed notebook says of itself; texts are plain, and empty where it says nothing."""

    title: str
    question: str
    reading: str  # one sentence
    parameters: tuple[Parameter, ...]
    provenance: dict[str, str]
    ended: str  # date and time
    seconds: float | None
    failure: str  # what stopped it


def story_of(notebook: NotebookNode) -> Story:
    """Read an executed notebook's account of itself."""
    first = next((cell.source for cell in notebook.cells if is_text(cell)), "")
    title, question = TITLE.search(first), QUESTION.search(first)
    run = notebook.metadata.get("papermill", {})
    return Story(
        title=plain(title[1]) if title else "",
        question=plain(question[1]) if question else "",
        reading=first_sentence(next(readings(notebook.cells), "")),
        parameters=tuple(_parameters(notebook)),
        provenance=_provenance(notebook),
        ended=str(run.get("end_time") or ""),
        seconds=run.get("duration"),
        failure=_failure(notebook),
    )


def is_text(cell: NotebookNode) -> bool:
    """Whether a cell is the author's prose, not a note of papermill's."""
    return cell.cell_type == "markdown" and _ERROR_TAG not in tags_of(cell)


def is_parameters(cell: NotebookNode) -> bool:
    """Whether a cell holds the parameters, the notebook's own or those of the run."""
    return bool(_PARAMETER_TAGS & tags_of(cell))


def tags_of(cell: NotebookNode) -> set[str]:
    """The cell's tags."""
    return set(cell.metadata.get("tags", []))


def readings(cells: list[NotebookNode]) -> Iterator[str]:
    """What stands behind each "How to read it.", as plain text."""
    for cell in cells:
        if is_text(cell) and cell.source.startswith(READING):
            yield plain(cell.source.removeprefix(READING))


def plain(markdown: str) -> str:
    """Text of a piece of Markdown without its signs, on one line."""
    return " ".join(BeautifulSoup(markdown2html(markdown), "html.parser").get_text().split())


def first_sentence(text: str) -> str:
    """The text up to its first full stop, question or exclamation mark that ends a sentence."""
    found = _SENTENCE.match(text)
    return found[1] if found else text


def _parameters(notebook: NotebookNode) -> Iterator[Parameter]:
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    for cell in notebook.cells:
        if "parameters" not in tags_of(cell):
            continue
        notes = _comments(cell.source)
        for name, line, value in _literals(cell.source):
            if name != FIGURES_PARAMETER:  # a place on the machine that ran it, of no use elsewhere
                yield Parameter(name, given.get(name, value), notes.get(line, ""), given.get(name, value) != value)


def _literals(source: str) -> Iterator[tuple[str, int, Any]]:
    """Name, line and value of each assignment of a literal."""
    try:
        nodes = ast.parse(source).body
    except SyntaxError:
        return
    for node in nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            try:
                yield target.id, node.end_lineno, ast.literal_eval(value)
            except ValueError:
                continue


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _provenance(notebook: NotebookNode) -> dict[str, str]:
    """The rows of the last table whose column is named "provenance"."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            soup = BeautifulSoup(output.get("data", {}).get("text/html", ""), "html.parser")
            if "provenance" in [th.get_text().strip() for th in soup.select("thead th")]:
                rows = [[part.get_text().strip() for part in row(["th", "td"])] for row in soup.select("tbody tr")]
                return {row[0]: row[1] for row in rows if len(row) == 2}
    return {}


def _failure(notebook: NotebookNode) -> str:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"It stopped at In [{cell.execution_count}]: {output.ename}: {output.evalue}"
    run = notebook.metadata.get("papermill", {})
    return "It has not run to its end." if run.get("start_time") and not run.get("end_time") else ""
