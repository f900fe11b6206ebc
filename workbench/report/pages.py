"""Pages of a report: what stands on each, and its HTML."""

import base64
import csv
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workbench.errors import ReportError
from workbench.report.body import TEMPLATES, body_of
from workbench.report.output import Place, size_of
from workbench.report.sources import Source, Sources
from workbench.report.story import Parameter, Story, story_of
from workbench.versions import workbench_version

GENERATOR = "workbench report"
_PREVIEW = (6, 3)  # rows and columns of a table that stand for a picture


@dataclass(frozen=True)
class Link:
    """A link to a figure file."""

    name: str
    kind: str  # "PNG"
    address: str


@dataclass(frozen=True)
class Files:
    """The files of one name, and the picture among them."""

    name: str
    links: tuple[Link, ...]
    picture: str = ""  # its address
    thumbnail: str = ""
    width: int = 0  # as shown
    height: int = 0
    alt: str = ""


@dataclass(frozen=True)
class Page:
    """What is shown of one executed notebook, in the index and on its page."""

    name: str
    address: str
    label: str  # "Figure 1"
    title: str  # without it
    story: Story
    model: str
    seeds: str
    date: str
    took: str
    versions: str
    parameters: tuple[tuple[Parameter, str], ...]  # each with its value as text
    files: tuple[Files, ...]
    preview: tuple[tuple[str, ...], ...]  # the first rows of its first table
    notices: tuple[str, ...]
    body: Markup


@dataclass(frozen=True)
class Overview:
    """What is said of the report as a whole."""

    profile: str
    models: str
    dates: str
    versions: tuple[str, ...]
    missing: tuple[str, ...]  # titles of what has not been run
    generator: str


def overview_of(sources: Sources, pages: Sequence[Page]) -> Overview:
    """Sum up the pages of a report."""
    dates = sorted({page.date for page in pages if page.date})
    return Overview(
        profile=sources.profile,
        models=", ".join(dict.fromkeys(page.model for page in pages if page.model)),
        dates=" to ".join(dict.fromkeys([*dates[:1], *dates[-1:]])),
        versions=tuple(dict.fromkeys(page.versions for page in pages if page.versions)),
        missing=tuple(entry.title for entry in sources.missing),
        generator=f"{GENERATOR} {workbench_version()}",
    )


def page_of(source: Source, place: Place) -> Page:
    """What is shown of a source, with addresses for a place."""
    story, entry = story_of(source.notebook), source.entry
    values = {parameter.name: parameter.value for parameter in story.parameters}
    files = {name: _files(name, [path for path in source.files if path.stem == name], place) for name in entry.makes}

    def show(name: str, alt: str) -> str:
        if name not in files or not files[name].picture:
            return ""
        files[name] = replace(files[name], alt=alt)
        return _render("picture.html.j2", {"files": files[name], "place": place})

    body = body_of(source.notebook, title=entry.title, values=values, show=show)
    unplaced = [name for name, each in files.items() if each.picture and not each.alt]
    alone = "".join(show(name, f"{entry.title} {story.reading}".strip()) for name in unplaced)
    name = f"{Path(entry.notebook).stem}-{entry.figure}"
    label, _, title = entry.title.rpartition(" · ")
    tables = [path for path in source.files if path.suffix == ".csv"]
    return Page(
        name=name,
        address=place.page(name),
        label=label,
        title=title,
        story=story,
        model=_text(values.get("model", "")) or ", ".join(_labels(story, "model ")),
        seeds=_text(values.get("seeds", values.get("seed", ""))),
        date=story.ended[:10],
        took=_duration(story.seconds),
        versions=_versions(source, story),
        parameters=tuple((parameter, _text(parameter.value)) for parameter in story.parameters),
        files=tuple(each for each in files.values() if each.links),
        preview=_preview(tables[0]) if tables and not any(each.picture for each in files.values()) else (),
        notices=(*([story.failure] if story.failure else []), *source.notices),
        body=Markup(alone + body),
    )


def index_html(overview: Overview, pages: Sequence[Page], place: Place) -> str:
    """The page that shows all figures."""
    return _render("index.html.j2", {"overview": overview, "pages": pages, "place": place})


def page_html(overview: Overview, pages: Sequence[Page], number: int, place: Place) -> str:
    """The page of one figure, with links to its neighbors."""
    around = {"before": pages[number - 1] if number else None, "after": next(iter(pages[number + 1 :]), None)}
    return _render("page.html.j2", {"overview": overview, "page": pages[number], "place": place, **around})


def one_html(overview: Overview, pages: Sequence[Page], place: Place) -> str:
    """All pages behind one another."""
    return _render("one.html.j2", {"overview": overview, "pages": pages, "place": place})


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    environment.globals |= {"style": Markup(style), "policy": _policy(style), "generator": GENERATOR}
    return environment


def _policy(style: str) -> str:
    """No script, font or frame; pictures of the report alone; the style sheet that is in the page, and no other."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = ["default-src 'none'", "img-src 'self' file: data:", f"style-src 'sha256-{digest}'"]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _render(template: str, shown: dict[str, object]) -> str:
    return _templates().get_template(template).render(shown)


def _files(name: str, paths: Sequence[Path], place: Place) -> Files:
    addresses = {path: place.file(path) for path in paths}
    links = tuple(Link(path.name, path.suffix[1:].upper(), address) for path, address in addresses.items())
    picture = next((path for path in paths if path.suffix == ".png"), None)
    if picture is None:
        return Files(name, links)
    try:
        width, height = size_of(picture)
        return Files(name, links, addresses[picture], place.thumbnail(picture), width // 2, height // 2)
    except OSError as err:
        raise ReportError(f"{picture} is not a picture; `workbench regenerate {name} --again` makes it anew.") from err


def _preview(path: Path) -> tuple[tuple[str, ...], ...]:
    rows, columns = _PREVIEW
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return tuple(tuple(row[:columns]) for row in islice(csv.reader(file), rows))


def _labels(story: Story, start: str) -> list[str]:
    return [label.removeprefix(start) for label in story.provenance if label.startswith(start)]


def _versions(source: Source, story: Story) -> str:
    """Of the record of the run if there is one, else of the notebook's provenance."""
    python = story.provenance.get("python") or source.notebook.metadata.get("language_info", {}).get("version")
    recorded = ", ".join(f"{name} {number}" for name, number in source.versions.items())
    libraries = recorded or story.provenance.get("versions")
    return ", ".join(part for part in (libraries, python and f"Python {python}") if part)


def _text(value: object) -> str:
    """A parameter's value for people: no quotes, and lists of plain values without brackets."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(map(_text, value))
    return json.dumps(value, ensure_ascii=False)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"
