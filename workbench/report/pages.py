"""The pages of a report: their content, and its HTML."""

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from nbformat import NotebookNode
from PIL import Image

from workbench.errors import ReportError, first_line
from workbench.html import content_policy, template_environment
from workbench.interactive import MIME, page_script, style
from workbench.report.body import TEMPLATES, render_body
from workbench.report.output import Output, picture_size
from workbench.report.sources import Source, Sources
from workbench.report.summary import Parameter, Summary, summarize
from workbench.versions import workbench_version

GENERATOR = "workbench report"
_PREVIEW_ROWS, _PREVIEW_COLUMNS = 6, 3  # part of a table that the index shows if there is no picture


@dataclass(frozen=True)
class Link:
    """A link to a figure file: its name, its kind such as "PNG", and its address."""

    name: str
    kind: str
    address: str


@dataclass(frozen=True)
class FigureFiles:
    """The files of one figure or table.

    Attributes
    ----------
    name : str
        Name of the files, without ending.
    links : tuple of Link
        Links to the files.
    picture, thumbnail : str
        Addresses of the picture and of a small copy; empty if there is none.
    width, height : int
        Size at which the picture is shown, in CSS pixels.
    alt : str
        Alternative text of the picture.
    """

    name: str
    links: tuple[Link, ...]
    picture: str = ""
    thumbnail: str = ""
    width: int = 0
    height: int = 0
    alt: str = ""


@dataclass(frozen=True)
class Page:
    """The content of a notebook's page and of its entry in the index.

    Attributes
    ----------
    name, address : str
        Name of the page, and its address.
    label, title : str
        Label such as "Figure 1", and the title without it.
    summary : Summary
        Question, reading and parameters of the notebook.
    model, seeds, date, duration, versions : str
        Facts about the run; empty where unknown.
    parameters : tuple of (Parameter, str)
        Each parameter with its value as text.
    files : tuple of FigureFiles
        Figures and tables that the notebook wrote.
    preview : tuple of tuple of str
        First rows of the first table; empty if there is a picture or verdicts.
    verdicts : tuple of (str, int)
        Each verdict of the first table with the number of its rows, the most frequent first; empty without verdicts.
    notices : tuple of str
        Sentences about a failed run, and about missing or changed files.
    body : Markup
        HTML of the notebook's cells.
    responds : bool
        Whether the body has views, which need the script.
    """

    name: str
    address: str
    label: str
    title: str
    summary: Summary
    model: str
    seeds: str
    date: str
    duration: str
    versions: str
    parameters: tuple[tuple[Parameter, str], ...]
    files: tuple[FigureFiles, ...]
    preview: tuple[tuple[str, ...], ...]
    verdicts: tuple[tuple[str, int], ...]
    notices: tuple[str, ...]
    body: Markup
    responds: bool


@dataclass(frozen=True)
class Overview:
    """Facts about the report as a whole.

    Attributes
    ----------
    profile : str
        Name of the profile.
    models, dates : str
        All models, and the first and last date of the runs.
    versions : tuple of str
        Versions of the libraries, each combination once.
    missing : tuple of str
        Titles of the figures that have not been run.
    generator : str
        Name and version of the program that wrote the report.
    """

    profile: str
    models: str
    dates: str
    versions: tuple[str, ...]
    missing: tuple[str, ...]
    generator: str


def build_overview(sources: Sources, pages: Sequence[Page]) -> Overview:
    """Return the facts about the report as a whole."""
    dates = sorted({page.date for page in pages if page.date})
    return Overview(
        profile=sources.profile,
        models=", ".join(dict.fromkeys(page.model for page in pages if page.model)),
        dates=" to ".join(dict.fromkeys([*dates[:1], *dates[-1:]])),
        versions=tuple(dict.fromkeys(page.versions for page in pages if page.versions)),
        missing=tuple(entry.title for entry in sources.missing),
        generator=f"{GENERATOR} {workbench_version()}",
    )


def build_page(source: Source, output: Output) -> Page:
    """Return the content of a notebook's page, with addresses for a form of the report."""
    summary, entry = summarize(source.notebook), source.entry
    values = {parameter.name: parameter.value for parameter in summary.parameters}
    files = {
        name: _figure_files(name, [path for path in source.files if path.stem == name], output) for name in entry.makes
    }

    def picture_html(name: str, alt: str) -> str:
        if name not in files or not files[name].picture:
            return ""
        files[name] = replace(files[name], alt=alt)
        return _render("picture.html.j2", files=files[name], output=output)

    body = render_body(source.notebook, title=entry.title, values=values, picture_html=picture_html)
    unplaced = [name for name, figure in files.items() if figure.picture and not figure.alt]
    above = "".join(picture_html(name, f"{entry.title} {summary.reading}".strip()) for name in unplaced)
    name = f"{Path(entry.notebook).stem}-{entry.figure}"
    label, _, title = entry.title.rpartition(" · ")
    tables = [path for path in source.files if path.suffix == ".csv"]
    has_picture = any(figure.picture for figure in files.values())
    verdicts = _count_verdicts(tables[0]) if tables and not has_picture else ()
    return Page(
        name=name,
        address=output.page_address(name),
        label=label,
        title=title,
        summary=summary,
        model=_text(values.get("model", "")) or ", ".join(_models_in_provenance(summary)),
        seeds=_text(values.get("seeds", values.get("seed", ""))),
        date=summary.ended[:10],
        duration=_duration(summary.seconds),
        versions=_versions(source, summary),
        parameters=tuple((parameter, _text(parameter.value)) for parameter in summary.parameters),
        files=tuple(figure for figure in files.values() if figure.links),
        preview=_preview(tables[0]) if tables and not has_picture and not verdicts else (),
        verdicts=verdicts,
        notices=(*([summary.failure] if summary.failure else []), *source.notices),
        body=Markup(above + body),
        responds=_holds_views(source.notebook),
    )


def render_index(overview: Overview, pages: Sequence[Page], output: Output) -> str:
    """Return the page that shows all figures."""
    return _render_page("index.html.j2", False, overview=overview, pages=pages, output=output)


def render_page(overview: Overview, pages: Sequence[Page], number: int, output: Output) -> str:
    """Return the page of one figure, with links to its neighbors."""
    before = pages[number - 1] if number else None
    after = next(iter(pages[number + 1 :]), None)
    page = pages[number]
    values = {"overview": overview, "page": page, "output": output, "before": before, "after": after}
    return _render_page("page.html.j2", page.responds, **values)


def render_single_file(overview: Overview, pages: Sequence[Page], output: Output) -> str:
    """Return one page that contains the index and all figures."""
    responds = any(page.responds for page in pages)
    return _render_page("single_file.html.j2", responds, overview=overview, pages=pages, output=output)


@cache
def _templates() -> Environment:
    environment = template_environment(TEMPLATES)
    environment.globals |= {"style": Markup(_style()), "generator": GENERATOR}
    return environment


@cache
def _style() -> str:
    return (TEMPLATES / "style.css").read_text(encoding="utf-8") + style()


def _render_page(template: str, responds: bool, **values: object) -> str:
    """Return a whole page; one whose views respond has their script, and all others allow none."""
    script = page_script() if responds else ""
    return _render(template, policy=content_policy(_style(), script), script=Markup(script), **values)


def _render(template: str, **values: object) -> str:
    return _templates().get_template(template).render(values)


def _figure_files(name: str, paths: Sequence[Path], output: Output) -> FigureFiles:
    addresses = {path: output.file_address(path) for path in paths}
    links = tuple(Link(path.name, path.suffix[1:].upper(), address) for path, address in addresses.items())
    picture = next((path for path in paths if path.suffix == ".png"), None)
    if picture is None:
        return FigureFiles(name, links)
    try:
        width, height = picture_size(picture)
        thumbnail = output.thumbnail_address(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:  # Pillow's, by what is damaged
        raise ReportError(f"{picture} is not a picture; `workbench regenerate {name} --again` makes it again.") from err
    return FigureFiles(name, links, addresses[picture], thumbnail, width // 2, height // 2)


def _holds_views(notebook: NotebookNode) -> bool:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return any(MIME in output.get("data", {}) for output in outputs)


def _preview(path: Path) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row[:_PREVIEW_COLUMNS]) for row in _rows(path, _PREVIEW_ROWS))


def _count_verdicts(path: Path) -> tuple[tuple[str, int], ...]:
    header, *rows = _rows(path) or [[]]
    if "verdict" not in header:
        return ()
    column = header.index("verdict")
    return tuple(Counter(row[column] for row in rows if len(row) > column and row[column]).most_common())


def _rows(path: Path, limit: int | None = None) -> list[list[str]]:
    """Return the rows of a CSV file, header included; raise `ReportError` if it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(islice(csv.reader(file), limit))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise ReportError(
            f"{path} is not a table of UTF-8 text ({first_line(err)}); `workbench regenerate {path.stem} --again` "
            "makes it again."
        ) from err


def _models_in_provenance(summary: Summary) -> list[str]:
    return [label.removeprefix("model ") for label in summary.provenance if label.startswith("model ")]


def _versions(source: Source, summary: Summary) -> str:
    """Return the versions by the record of the run, or else by the notebook's provenance."""
    python = summary.provenance.get("python") or source.notebook.metadata.get("language_info", {}).get("version")
    recorded = ", ".join(f"{name} {number}" for name, number in source.versions.items())
    libraries = recorded or summary.provenance.get("versions")
    return ", ".join(part for part in (libraries, python and f"Python {python}") if part)


def _text(value: object) -> str:
    """Return a parameter's value as readers expect it: without quotes, and lists of plain values without brackets."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(map(_text, value))
    return json.dumps(value, ensure_ascii=False)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"
