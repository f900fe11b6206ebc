"""The sources of a report: the executed notebooks of a profile, their figure files and the records of their runs."""

import logging
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from workbench.errors import ReportError
from workbench.figures.manifest import MANIFEST, Entry, read_manifest, select_for_profile
from workbench.figures.notebooks import read_notebook
from workbench.figures.plan import Locations, locate
from workbench.figures.records import is_unchanged, last_run

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One executed notebook with its files.

    Attributes
    ----------
    entry : Entry
        The entry of figures.yaml.
    notebook : NotebookNode
        The executed notebook.
    files : tuple of Path
        The figure files that exist, in the order of the entry.
    notices : tuple of str
        Sentences about files that are missing or changed.
    versions : dict of str to str
        Versions of the libraries it was run with; empty without a record of the run.
    """

    entry: Entry
    notebook: NotebookNode
    files: tuple[Path, ...]
    notices: tuple[str, ...]
    versions: dict[str, str]


@dataclass(frozen=True)
class Sources:
    """All notebooks of a profile.

    Attributes
    ----------
    profile : str
        Name of the profile.
    executed : tuple of Source
        The notebooks that have been executed.
    missing : tuple of Entry
        Entries of the profile that have not been executed.
    """

    profile: str
    executed: tuple[Source, ...]
    missing: tuple[Entry, ...]


def collect_sources(profile: str, *, notebooks: Path, figures: Path | None, build: Path) -> Sources:
    """Read the executed notebooks of a profile and their files; the arguments are those of `figures.plan.plan`.

    Raises
    ------
    SpecError
        If figures.yaml cannot be read or the profile is not known.
    ReportError
        If no notebook of the profile has been executed, one cannot be read, or the folder of figures has none of its
        files.
    """
    entries = select_for_profile(read_manifest(notebooks), (), profile)
    locations = {e.figure: locate(e, profile, notebooks=notebooks, figures=figures, build=build) for e in entries}
    paths = {e.figure: locations[e.figure].executed_notebook(e) for e in entries}
    executed = [e for e in entries if paths[e.figure].is_file()]
    if not executed:
        raise ReportError(
            f"{build / profile / 'notebooks'} holds no executed notebook that {notebooks / MANIFEST} lists; "
            f"run `workbench regenerate --profile {profile}` first, or name another folder with --build."
        )
    _warn_of_unlisted(build / profile / "notebooks", {path.name for path in paths.values()})
    sources = [_read_source(entry, locations[entry.figure]) for entry in executed]
    if not any(source.files for source in sources):
        folder = locations[executed[0].figure].figures
        raise ReportError(f"{folder} holds none of the figures' files; name the folder that does with --figures.")
    return Sources(profile, tuple(sources), tuple(e for e in entries if e not in executed))


def _read_source(entry: Entry, locations: Locations) -> Source:
    files, record = locations.figure_files(entry), last_run(locations.record)
    present = {path.stem for path in files}
    notices = [f"The files of {name} are not in the folder of figures." for name in entry.makes if name not in present]
    written = {Path(path).name: digest for path, digest in record.files.items()} if record else {}
    notices += [
        f"{path.name} is not the file that this run wrote; it has been changed or rewritten since."
        for path in files
        if path.name in written and not is_unchanged(path, written[path.name])
    ]
    cure = f"`workbench regenerate {entry.figure} --again` makes it again"
    notebook = read_notebook(locations.executed_notebook(entry), ReportError, cure)
    return Source(entry, notebook, tuple(files), tuple(notices), record.versions if record else {})


def _warn_of_unlisted(folder: Path, known: set[str]) -> None:
    for path in sorted(folder.glob("*.ipynb")):
        if path.name not in known:
            _log.warning("%s is left out: %s has no entry for it.", path, MANIFEST)
