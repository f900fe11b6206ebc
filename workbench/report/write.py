"""Writing a report: whole or not at all, and only over an older report."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import ReportError, UpdateError
from workbench.figures.records import is_unchanged
from workbench.report.output import FolderOutput, SingleFileOutput
from workbench.report.pages import (
    GENERATOR,
    build_overview,
    build_page,
    render_index,
    render_page,
    render_single_file,
)
from workbench.report.sources import Sources, collect_sources
from workbench.storage.files import write_atomically
from workbench.storage.folders import check_folder, write_folder_atomically

FILE_LIST = "report.json"  # file in the folder with the digests of all others, so that only these are replaced
_GENERATOR_TAG = f'<meta name="generator" content="{GENERATOR}">'


@dataclass(frozen=True)
class Report:
    """A report that has been written.

    Attributes
    ----------
    path : Path
        The file to open: ``index.html``, or the single file.
    pages : tuple of str
        Names of the figures that the report shows.
    missing : tuple of str
        Names of the figures of the profile that have not been run.
    """

    path: Path
    pages: tuple[str, ...]
    missing: tuple[str, ...]


def write_report(
    *,
    profile: str = "default",
    notebooks: str | Path = "notebooks",
    figures: str | Path | None = None,
    build: str | Path = "build",
    out: str | Path | None = None,
    single_file: bool = False,
) -> Report:
    """Write the executed notebooks of a profile as HTML.

    Parameters
    ----------
    profile : str
        Profile of the notebooks.
    notebooks : str or Path
        Folder of figures.yaml.
    figures : str or Path, optional
        Folder of the figure files; by default that of the profile in `workbench.figures.plan.plan`.
    build : str or Path
        Executed notebooks are read from ``<build>/<profile>/notebooks``.
    out : str or Path, optional
        The folder or file to write; by default ``<build>/report``, or ``<build>/report.html``. An older report is
        replaced.
    single_file : bool
        Whether to write a single HTML file that contains everything, instead of a folder.

    Returns
    -------
    Report

    Raises
    ------
    SpecError
        If figures.yaml cannot be read or the profile is not known.
    ReportError
        If there is nothing to show, a notebook or picture cannot be read, or `out` exists and is not a report.
    """
    out = Path(out) if out else Path(build) / ("report.html" if single_file else "report")
    sources = collect_sources(
        profile, notebooks=Path(notebooks), figures=Path(figures) if figures else None, build=Path(build)
    )
    (_check_file if single_file else _check_folder)(out)
    path = _write_file(sources, out) if single_file else _write_folder(sources, out)
    pages = tuple(source.entry.figure for source in sources.executed)
    return Report(path, pages, tuple(entry.figure for entry in sources.missing))


def _write_folder(sources: Sources, out: Path) -> Path:
    output = FolderOutput()
    pages = [build_page(source, output) for source in sources.executed]
    overview = build_overview(sources, pages)
    content = dict(output.content)
    content[output.index] = render_index(overview, pages, output).encode()
    for number, page in enumerate(pages):
        content[f"{page.name}.html"] = render_page(overview, pages, number, output).encode()
    written = {name: hashlib.sha256(content[name]).hexdigest() for name in sorted(content)}
    content[FILE_LIST] = json.dumps({"profile": sources.profile, "files": written}, indent=1).encode()

    def fill(folder: Path) -> None:
        for name, data in content.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)

    write_folder_atomically(out, fill, replace=True)
    return out / output.index


def _write_file(sources: Sources, out: Path) -> Path:
    output = SingleFileOutput()
    pages = [build_page(source, output) for source in sources.executed]
    html = render_single_file(build_overview(sources, pages), pages, output)
    return write_atomically(out, lambda scratch: Path(scratch).write_text(html, encoding="utf-8"))


def _check_folder(out: Path) -> None:
    """Raise `ReportError` unless the folder can be created, or contains an unchanged report and nothing else."""
    try:
        check_folder(out, replace=True)
    except UpdateError as err:
        raise ReportError(str(err)) from err
    files = [path for path in sorted(out.rglob("*")) if not path.is_dir() or path.is_symlink()]
    written = _read_file_list(out / FILE_LIST)
    for path in files:
        name = path.relative_to(out).as_posix()
        if name != FILE_LIST and name not in written:
            raise ReportError(f"{out} holds {name}, which is not part of a report; move it, or give another folder.")
        if name in written and not is_unchanged(path, written[name]):
            raise ReportError(f"{path} was changed since the report was written; move it, or give another folder.")


def _read_file_list(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _check_file(out: Path) -> None:
    """Raise `ReportError` if `out` exists and is not a report of a single file."""
    if out.is_dir():
        raise ReportError(f"{out} is a folder; give the name of an HTML file.")
    if out.exists():
        with out.open(encoding="utf-8", errors="replace") as file:
            if _GENERATOR_TAG not in file.read(2000):
                raise ReportError(f"{out} exists and is not a report; move it, or give another name.")
