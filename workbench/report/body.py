"""The cells of an executed notebook as HTML, by nbconvert with a template of our own.

What the page around them shows is taken out: title, question and parameters. Progress bars are left out. A cell that
calls ``save_figure`` shows the file it wrote, since a bare matplotlib Figure leaves no picture in a notebook.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_output
from traitlets.config import Config

from workbench.report.safe import safe_html
from workbench.report.story import QUESTION, TITLE, first_sentence, is_parameters, is_text, plain, readings

TEMPLATES = Path(__file__).parent / "templates"
_PICTURE = "application/vnd.workbench.picture"  # ours: HTML that may go into the page as it is
_WIDGET = "application/vnd.jupyter.widget-view+json"  # progress bars
# Of a notebook's outputs, the first of these; what is none of them cannot be shown without running something
_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain")
_FIGURE_TEXT = re.compile(r"<Figure size .*>")
_BARE_HEADING = re.compile(r"Figures?( \d+)?")  # says no more than that here is a figure
_HEADING = re.compile(r"^#{2,}[ \t]+(.+?)[ \t]*$", re.MULTILINE)

Show = Callable[[str, str], str]


def body_of(notebook: NotebookNode, *, title: str, values: dict[str, Any], show: Show) -> str:
    """HTML of a notebook's cells.

    Parameters
    ----------
    notebook : NotebookNode
        Executed; stays as it is.
    title : str
        Of the figure, for alternative texts.
    values : dict
        The parameters of the run, by which cells name the files they write.
    show : callable
        Takes the name of a figure's files and the alternative text of the picture; gives HTML, or "" if there is none.

    Returns
    -------
    str
    """
    given = [copy.deepcopy(c) for c in notebook.cells if is_text(c) or (c.cell_type == "code" and not is_parameters(c))]
    for place, cell in enumerate(given):
        if cell.cell_type == "code":
            alt = _alternative_text(given, place, title)
            cell.outputs = [*_outputs(cell, alt, [show(name, alt) for name in saved_names(cell.source, values)])]
    for cell in [c for c in given if is_text(c)][:1]:
        cell.source = QUESTION.sub("", TITLE.sub("", cell.source, count=1), count=1).strip()
    shown = NotebookNode(notebook)
    shown.metadata = NotebookNode({k: v for k, v in notebook.metadata.items() if k != "widgets"})
    shown.cells = [cell for cell in given if cell.source.strip() or cell.get("outputs")]
    html, _ = _exporter().from_notebook_node(shown)
    return html


def saved_names(source: str, values: dict[str, Any]) -> list[str]:
    """Names of the files that a cell's calls of ``save_figure`` write.

    Parameters
    ----------
    source : str
        Of the cell.
    values : dict
        What variables hold.

    Returns
    -------
    list of str
        Without those that are neither written out nor a variable that is known.
    """
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return []
    names = []
    for call in calls:
        if getattr(call.func, "attr", getattr(call.func, "id", "")) == "save_figure":
            given = [*call.args[3:4], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
            names += [values.get(arg.id) if isinstance(arg, ast.Name) else getattr(arg, "value", None) for arg in given]
    return [name for name in names if isinstance(name, str)]


def _outputs(cell: NotebookNode, alt: str, pictures: list[str]) -> Iterator[NotebookNode]:
    """The outputs of a cell that can be shown, each in one form; its pictures where the figure stood."""
    picture = "".join(pictures)
    for output in cell.outputs:
        data = output.get("data")
        if data is None:
            yield output
        elif _FIGURE_TEXT.fullmatch(data.get("text/plain", "")) and (picture or "image/png" not in data):
            yield from _picture_output(picture)
            picture = ""
        elif _WIDGET not in data and (kind := next((kind for kind in _SHOWN if kind in data), None)):
            output.data = NotebookNode({kind: data[kind]})
            output.metadata = NotebookNode(alt=alt)
            yield output
    yield from _picture_output(picture)


def _picture_output(html: str) -> Iterator[NotebookNode]:
    if html:
        yield new_output("display_data", data={_PICTURE: html})


def _alternative_text(cells: list[NotebookNode], place: int, title: str) -> str:
    """What the picture of a cell shows: the heading above it, or the title, and the first sentence of its reading."""
    heading, after = title, []
    for cell in cells[:place]:
        for found in _HEADING.findall(cell.source) if is_text(cell) else ():
            heading = title if _BARE_HEADING.fullmatch(found) else plain(found)
    for cell in cells[place + 1 :]:
        if is_text(cell) and _HEADING.match(cell.source):
            break
        after.append(cell)
    reading = first_sentence(next(readings(after), ""))
    return " ".join([heading if heading.endswith(("?", ".", "!")) else f"{heading}.", reading]).strip()


@cache
def _exporter() -> HTMLExporter:
    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
        config=Config(NbConvertBase={"display_data_priority": [_PICTURE, *_SHOWN]}),
    )
    exporter.register_filter("safe_html", safe_html)
    return exporter
