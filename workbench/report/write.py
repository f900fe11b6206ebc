"""Writing a report: whole or not at all, and over nothing but an older report."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import ReportError, UpdateError
from workbench.figures.records import digest
from workbench.report.output import InFolder, InOneFile
from workbench.report.pages import GENERATOR, index_html, one_html, overview_of, page_html, page_of
from workbench.report.sources import Sources, collect
from workbench.storage.files import write_atomically
from workbench.storage.folders import check_folder, write_folder_atomically

MANIFEST = "report.json"  # in the folder: what was written there, so that nothing else is replaced
_MARK = f'<meta name="generator" content="{GENERATOR}">'


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    path: Path  # to open: index.html, or the one file
    pages: tuple[str, ...]  # figures shown
    missing: tuple[str, ...]  # figures of the profile that have not been run


def write_report(
    *,
    profile: str = "default",
    notebooks: str | Path = "notebooks",
    figures: str | Path | None = None,
    build: str | Path = "build",
    out: str | Path | None = None,
    single_file: bool = False,
) -> Report:
    """Make HTML of the executed notebooks of a profile.

    Parameters
    ----------
    profile : str
        Whose notebooks.
    notebooks : str or Path
        Folder of figures.yaml.
    figures : str or Path, optional
        Where the figure files are; by default where `workbench.figures.regenerate.plan` puts those of the profile.
    build : str or Path
        Executed notebooks are in ``<build>/<profile>/notebooks``.
    out : str or Path, optional
        The folder or file to write; by default ``<build>/report``, or ``<build>/report.html``. An older report there
        is replaced.
    single_file : bool
        Whether to write one HTML file that holds everything, instead of a folder.

    Returns
    -------
    Report

    Raises
    ------
    SpecError
        If figures.yaml cannot be read or the profile is not known.
    ReportError
        If there is nothing to show, a notebook or picture cannot be read, or something else than a report is at `out`.
    """
    out = Path(out) if out else Path(build) / ("report.html" if single_file else "report")
    sources = collect(profile, notebooks=Path(notebooks), figures=Path(figures) if figures else None, build=Path(build))
    (_check_file if single_file else _check_folder)(out)
    path = _write_file(sources, out) if single_file else _write_folder(sources, out)
    made, missing = (
        [each.figure for each in entries] for entries in ([s.entry for s in sources.made], sources.missing)
    )
    return Report(path, tuple(made), tuple(missing))


def _write_folder(sources: Sources, out: Path) -> Path:
    place = InFolder()
    pages = [page_of(source, place) for source in sources.made]
    overview = overview_of(sources, pages)
    content = dict(place.content)
    content[place.index] = index_html(overview, pages, place).encode()
    for number, page in enumerate(pages):
        content[f"{page.name}.html"] = page_html(overview, pages, number, place).encode()
    written = {name: hashlib.sha256(content[name]).hexdigest() for name in sorted(content)}
    content[MANIFEST] = json.dumps({"profile": sources.profile, "files": written}, indent=1).encode()

    def fill(folder: Path) -> None:
        for name, each in content.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(each)

    write_folder_atomically(out, fill, replace=True)
    return out / place.index


def _write_file(sources: Sources, out: Path) -> Path:
    place = InOneFile()
    pages = [page_of(source, place) for source in sources.made]
    html = one_html(overview_of(sources, pages), pages, place)
    return write_atomically(out, lambda scratch: Path(scratch).write_text(html, encoding="utf-8"))


def _check_folder(out: Path) -> None:
    """Raise `ReportError` unless the folder can be made, or holds a report as it was written, and nothing else."""
    try:
        check_folder(out, replace=True)
    except UpdateError as err:
        raise ReportError(str(err)) from err
    files = [path for path in sorted(out.rglob("*")) if not path.is_dir() or path.is_symlink()]
    written = _written(out / MANIFEST)
    for path in files:
        name = path.relative_to(out).as_posix()
        if name != MANIFEST and name not in written:
            raise ReportError(f"{out} holds {name}, which is no part of a report; move it, or give another folder.")
        if name in written and digest(path) != written[name]:
            raise ReportError(f"{path} was changed since the report was written; move it, or give another folder.")


def _written(manifest: Path) -> dict[str, str]:
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _check_file(out: Path) -> None:
    """Raise `ReportError` if something else than a report of one file is there."""
    if out.is_dir():
        raise ReportError(f"{out} is a folder; give the name of an HTML file.")
    if out.exists():
        with out.open(encoding="utf-8", errors="replace") as file:
            if _MARK not in file.read(2000):
                raise ReportError(f"{out} is there and is no report; move it, or give another name.")
