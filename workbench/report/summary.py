"""The summary of an executed notebook: title, question, reading, parameters, provenance, and how its run ended.

The project's notebooks share a form: a title, a question in italics, a cell of parameters, paragraphs that begin with
"How to read it.", and a table of provenance at the end. What a notebook does not have is empty in its summary.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bs4 import BeautifulSoup
from nbconvert.filters import markdown2html
from nbformat import NotebookNode

from workbench.figures.manifest import FIGURES_PARAMETER

TITLE = re.compile(r"^#[ \t]+(.+?)[ \t]*$", re.MULTILINE)
QUESTION = re.compile(r"^\*(?!\*)(.+?)\*[ \t]*$", re.MULTILINE)
HOW_TO_READ = "**How to read it.**"
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s+[^\sa-z0-9(]|$)", re.DOTALL)
_ERROR_TAG = "papermill-error-cell-tag"  # tag of the cells that papermill adds to a notebook that failed
_PARAMETER_TAGS = {"parameters", "injected-parameters"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook's run.

    Attributes
    ----------
    name : str
        Name of the parameter.
    value : object
        Its value in the run.
    note : str
        The notebook's comment on it.
    changed : bool
        Whether the run had another value than the notebook.
    """

    name: str
    value: object
    note: str
    changed: bool


@dataclass(frozen=True)
class Summary:
    """The parts of an executed notebook that a report shows outside its cells, as plain text.

    Attributes
    ----------
    title : str
        The title.
    question : str
        The question that the notebook asks.
    reading : str
        First sentence of the first paragraph on how to read the figure.
    parameters : tuple of Parameter
        Parameters of the run.
    provenance : dict of str to str
        The table of provenance.
    ended : str
        Date and time at which the run ended.
    seconds : float or None
        Duration of the run.
    failure : str
        Why the run did not reach its end; empty if it did.
    """

    title: str
    question: str
    reading: str
    parameters: tuple[Parameter, ...]
    provenance: dict[str, str]
    ended: str
    seconds: float | None
    failure: str


def summarize(notebook: NotebookNode) -> Summary:
    """Return the summary of an executed notebook."""
    first = next((cell.source for cell in notebook.cells if is_prose(cell)), "")
    title, question = TITLE.search(first), QUESTION.search(first)
    run = notebook.metadata.get("papermill", {})
    return Summary(
        title=plain_text(title[1]) if title else "",
        question=plain_text(question[1]) if question else "",
        reading=first_sentence(next(reading_guides(notebook.cells), "")),
        parameters=tuple(_parameters(notebook)),
        provenance=_provenance(notebook),
        ended=str(run.get("end_time") or ""),
        seconds=run.get("duration"),
        failure=_failure(notebook),
    )


def is_prose(cell: NotebookNode) -> bool:
    """Whether a cell is text of the author, not a note that papermill added."""
    return cell.cell_type == "markdown" and _ERROR_TAG not in _tags(cell)


def is_parameters(cell: NotebookNode) -> bool:
    """Whether a cell holds parameters, either those of the notebook or those of the run."""
    return bool(_PARAMETER_TAGS & _tags(cell))


def reading_guides(cells: Sequence[NotebookNode]) -> Iterator[str]:
    """Yield the text of each cell that begins with "How to read it.", as plain text without these words."""
    for cell in cells:
        if is_prose(cell) and cell.source.startswith(HOW_TO_READ):
            yield plain_text(cell.source.removeprefix(HOW_TO_READ))


def plain_text(markdown: str) -> str:
    """Return Markdown as text without markup, on one line."""
    return " ".join(BeautifulSoup(markdown2html(markdown), "html.parser").get_text().split())


def first_sentence(text: str) -> str:
    """Return the text up to the first full stop, question mark or exclamation mark that ends a sentence."""
    sentence = _SENTENCE.match(text)
    return sentence[1] if sentence else text


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _parameters(notebook: NotebookNode) -> Iterator[Parameter]:
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    for cell in notebook.cells:
        if "parameters" not in _tags(cell):
            continue
        notes = _comments(cell.source)
        for name, line, value in _literals(cell.source):
            if name != FIGURES_PARAMETER:  # a path on the machine that ran it, of no use elsewhere
                yield Parameter(name, given.get(name, value), notes.get(line, ""), given.get(name, value) != value)


def _literals(source: str) -> Iterator[tuple[str, int, object]]:
    """Yield the name, line and value of each assignment of a literal."""
    try:
        nodes = ast.parse(source).body
    except SyntaxError:
        return
    for node in nodes:
        if isinstance(node, ast.Assign):
            target: ast.expr = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and node.value is not None:
            try:
                yield target.id, node.end_lineno or node.lineno, ast.literal_eval(node.value)
            except ValueError:
                continue


def _comments(source: str) -> dict[int, str]:
    """Return the text of each comment by its line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _provenance(notebook: NotebookNode) -> dict[str, str]:
    """Return the rows of the last table that has a column named "provenance"."""
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
                return f"The run stopped at In [{cell.execution_count}]: {output.ename}: {output.evalue}"
    run = notebook.metadata.get("papermill", {})
    return "The run did not reach its end." if run.get("start_time") and not run.get("end_time") else ""
