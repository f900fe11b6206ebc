"""What a report is made from: the executed notebooks of a profile, the files they wrote, the records of their runs."""

import logging
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.reader import NotJSONError

from workbench.errors import ReportError, first_line
from workbench.figures.records import digest, last_run
from workbench.figures.regenerate import LIST, Entry, Place, choose, place_of, read_list

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One executed notebook and what belongs to it."""

    entry: Entry
    notebook: NotebookNode
    files: tuple[Path, ...]  # its figure files that are there, in the list's order
    notices: tuple[str, ...]  # what is wrong with these files, a sentence each
    versions: dict[str, str]  # of the libraries it was run with; empty where no record says it


@dataclass(frozen=True)
class Sources:
    """What there is of a profile, and what there is not."""

    profile: str
    made: tuple[Source, ...]
    missing: tuple[Entry, ...]  # in the profile's list, but not executed


def collect(profile: str, *, notebooks: Path, figures: Path | None, build: Path) -> Sources:
    """Read what a profile's run has left; `notebooks`, `figures` and `build` as in `workbench.figures.regenerate.plan`.

    Raises
    ------
    SpecError
        If the list cannot be read or the profile is not known.
    ReportError
        If no notebook of it has been executed, one cannot be read, or the folder of figures
        has none of its files.
    """
    entries = choose(read_list(notebooks), (), profile)
    places = {e.figure: place_of(e, profile, notebooks=notebooks, figures=figures, build=build) for e in entries}
    made = [e for e in entries if places[e.figure].executed_notebook(e).is_file()]
    if not made:
        raise ReportError(
            f"{build / profile / 'notebooks'} holds no executed notebook that {notebooks / LIST} lists; "
            f"run `workbench regenerate --profile {profile}` first, or name another folder with --build."
        )
    _tell_of_others(build / profile / "notebooks", {places[e.figure].executed_notebook(e).name for e in entries})
    sources = [_source(entry, places[entry.figure]) for entry in made]
    if not any(source.files for source in sources):
        folder = places[made[0].figure].figures
        raise ReportError(f"{folder} holds none of the figures' files; name the folder that does with --figures.")
    return Sources(profile, tuple(sources), tuple(e for e in entries if e not in made))


def _source(entry: Entry, place: Place) -> Source:
    files, record = place.figure_files(entry), last_run(place.record)
    there = {path.stem for path in files}
    notices = [f"The files of {name} are not in the folder of figures." for name in entry.makes if name not in there]
    written = {Path(path).name: found for path, found in record.files.items()} if record else {}
    notices += [
        f"{path.name} is not the file that this run wrote; it was changed or made anew since."
        for path in files
        if path.name in written and digest(path) != written[path.name]
    ]
    notebook = _read(place.executed_notebook(entry), entry.figure)
    return Source(entry, notebook, tuple(files), tuple(notices), record.versions if record else {})


def _read(path: Path, figure: str) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (NotJSONError, nbformat.ValidationError, UnicodeDecodeError, AttributeError, KeyError) as err:
        raise ReportError(
            f"{path} is not a notebook ({first_line(err)}); `workbench regenerate {figure} --again` makes it anew."
        ) from err


def _tell_of_others(folder: Path, known: set[str]) -> None:
    for path in sorted(folder.glob("*.ipynb")):
        if path.name not in known:
            _log.warning("%s is left out: it is no run of an entry of %s.", path, LIST)
