"""The cells of an executed notebook as HTML, by nbconvert with the report's own template.

Title, question and parameters are left out, since the page around the cells shows them, and so are progress bars. A
cell that saves a figure shows the saved picture, because a matplotlib Figure alone leaves no picture in a notebook.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from markupsafe import Markup
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_output
from traitlets.config import Config

from workbench.interactive import MIME, load_view
from workbench.report.sanitize import sanitize_html
from workbench.report.summary import (
    QUESTION,
    TITLE,
    first_sentence,
    is_parameters,
    is_prose,
    plain_text,
    reading_guides,
)

TEMPLATES = Path(__file__).parent / "templates"
_SAVING_FUNCTIONS = {"draw_and_save", "save_figure"}  # of workbench.plots.files; the fourth argument is the file's name
_PICTURE = "application/vnd.workbench.picture"  # HTML made by the report, which is not sanitized
_WIDGET = "application/vnd.jupyter.widget-view+json"  # progress bars
# An output is shown in the first of these forms; one that has none of them needs a running kernel or a script.
_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain")
_FIGURE_TEXT = re.compile(r"<Figure size .*>")
_BARE_HEADING = re.compile(r"Figures?( \d+)?")  # a heading that does not describe the figure
_HEADING = re.compile(r"^#{2,}[ \t]+(.+?)[ \t]*$", re.MULTILINE)

PictureHTML = Callable[[str, str], str]


def render_body(notebook: NotebookNode, *, title: str, values: Mapping[str, object], picture_html: PictureHTML) -> str:
    """Return the cells of a notebook as HTML.

    Parameters
    ----------
    notebook : NotebookNode
        The executed notebook, which is not changed.
    title : str
        Title of the figure, for alternative texts.
    values : mapping
        Parameters of the run, by which cells name the files they write.
    picture_html : callable
        Function of the name of a figure file and the alternative text of the picture that returns HTML, or "" if there
        is no such picture.

    Returns
    -------
    str
    """
    cells = [
        copy.deepcopy(c) for c in notebook.cells if is_prose(c) or (c.cell_type == "code" and not is_parameters(c))
    ]
    for i, cell in enumerate(cells):
        if cell.cell_type == "code":
            alt = _alternative_text(cells, i, title)
            pictures = [picture_html(name, alt) for name in saved_figure_names(cell.source, values)]
            cell.outputs = list(_shown_outputs(cell, alt, pictures))
    for cell in [c for c in cells if is_prose(c)][:1]:
        cell.source = QUESTION.sub("", TITLE.sub("", cell.source, count=1), count=1).strip()
    shown = NotebookNode(notebook)
    shown.metadata = NotebookNode({k: v for k, v in notebook.metadata.items() if k != "widgets"})
    shown.cells = [cell for cell in cells if cell.source.strip() or cell.get("outputs")]
    html, _ = _exporter().from_notebook_node(shown)
    return str(html)


def saved_figure_names(source: str, values: Mapping[str, object]) -> list[str]:
    """Return the names of the figures that a cell saves.

    Parameters
    ----------
    source : str
        Source of the cell.
    values : mapping
        Values of variables.

    Returns
    -------
    list of str
        The names that are literals, or variables with a known value.
    """
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return []
    names: list[object] = []
    for call in calls:
        if getattr(call.func, "attr", getattr(call.func, "id", "")) in _SAVING_FUNCTIONS:
            given = [*call.args[3:4], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
            names += [values.get(arg.id) if isinstance(arg, ast.Name) else getattr(arg, "value", None) for arg in given]
    return [name for name in names if isinstance(name, str)]


def _shown_outputs(cell: NotebookNode, alt: str, pictures: Sequence[str]) -> Iterator[NotebookNode]:
    """Yield the outputs of a cell that can be shown, each in one form, with its pictures in place of the figure."""
    picture = "".join(pictures)
    for output in cell.outputs:
        data = output.get("data")
        if data is None:
            yield output
        elif MIME in data:
            view = load_view(data[MIME])
            yield from _picture_output(replace(view, fallback=Markup(sanitize_html(view.fallback))).to_html())
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


def _alternative_text(cells: Sequence[NotebookNode], index: int, title: str) -> str:
    """Return what the picture of a cell shows: the heading above it or the title, and how to read it."""
    heading = title
    for cell in cells[:index]:
        for text in _HEADING.findall(cell.source) if is_prose(cell) else ():
            heading = title if _BARE_HEADING.fullmatch(text) else plain_text(text)
    after = []
    for cell in cells[index + 1 :]:
        if is_prose(cell) and _HEADING.match(cell.source):
            break
        after.append(cell)
    reading = first_sentence(next(reading_guides(after), ""))
    return " ".join([heading if heading.endswith(("?", ".", "!")) else f"{heading}.", reading]).strip()


@cache
def _exporter() -> HTMLExporter:
    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
        config=Config(NbConvertBase={"display_data_priority": [_PICTURE, *_SHOWN]}),
    )
    exporter.register_filter("sanitize_html", sanitize_html)
    return exporter
