"""The plan of a run: entries with their parameters, the paths of their files, and whether they are up to date."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from workbench.errors import OutputError, SpecError, first_line
from workbench.figures.manifest import (
    ARCHIVED,
    COMMITTED,
    FIGURES_PARAMETER,
    NAME_PARAMETER,
    Entry,
    Profile,
    check_notebook_value,
    read_manifest,
    select_for_profile,
)
from workbench.figures.notebooks import parameter_names, read_notebook
from workbench.figures.records import cause_of, last_run
from workbench.inputs import require_path, shown
from workbench.storage.files import check_file_name

ARCHIVE = "results.parquet"  # beside the figures of a profile whose results are kept
ENDINGS = (".csv", ".png", ".svg")  # every notebook writes the first; those with pictures write the others too


@dataclass(frozen=True)
class Locations:
    """The folders and files of one entry in one profile.

    Attributes
    ----------
    notebooks : Path
        Folder of the notebooks.
    executed : Path
        Folder of the executed notebooks.
    figures : Path
        Folder of the figure files.
    record : Path
        File with the record of the last run.
    store : Path
        Folder of the experiments' results, unless WORKBENCH_STORE names another store.
    archive : Path or None
        File that keeps the results of all experiments of the profile.
    """

    notebooks: Path
    executed: Path
    figures: Path
    record: Path
    store: Path
    archive: Path | None

    def executed_notebook(self, entry: Entry) -> Path:
        """Return the path of the entry's executed notebook."""
        return self.executed / f"{Path(entry.notebook).stem}-{entry.figure}.ipynb"

    def figure_files(self, entry: Entry) -> list[Path]:
        """Return the entry's figure files that exist, in the order of the manifest."""
        paths = [self.figures / f"{name}{ending}" for name in entry.makes for ending in ENDINGS]
        return [path for path in paths if path.is_file()]


@dataclass(frozen=True)
class PlannedRun:
    """A run of one entry, which is skipped if the entry is up to date.

    Attributes
    ----------
    entry : Entry
        The entry of the manifest.
    parameters : dict
        All parameters passed to the notebook.
    locations : Locations
        The paths of its files.
    cause : str
        Hash of everything that the figure depends on, from `cause_of`.
    up_to_date : bool
        Whether the figure files are those of a run with the same cause.
    expected_seconds : float or None
        Duration of the last run here, or by the manifest; None if neither is known.
    """

    entry: Entry
    parameters: dict[str, Any]
    locations: Locations
    cause: str
    up_to_date: bool
    expected_seconds: float | None


def locate(entry: Entry, profile: str, *, notebooks: Path, figures: str | Path | None, build: str | Path) -> Locations:
    """Return the paths of an entry in a profile; the other arguments are those of `plan`."""
    own = Path(build) / profile
    folder = Path(figures) if figures else Path("figures") / profile if profile in COMMITTED else own / "figures"
    archived = profile in ARCHIVED
    return Locations(
        notebooks,
        own / "notebooks",
        folder,
        own / "records" / f"{entry.figure}.json",
        store=(own if archived else Path(build)) / "store",
        archive=folder / ARCHIVE if archived else None,
    )


def _check_folder_name(name: str, folder: str | Path | None) -> None:
    """Raise `SpecError` if there can be no folder of that name."""
    if folder is None:
        return
    require_path(folder, name, SpecError)
    existing = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    if not existing.is_dir():
        raise SpecError(f"{name} {shown(str(folder))} cannot be a folder: {shown(str(existing))} is a file.")


def check_notebook_parameters(entry: Entry, notebooks: Path, parameters: dict[str, Any]) -> None:
    """Check that the entry's notebook can be read and has all these parameters; papermill only warns of unknown ones."""
    path = notebooks / entry.notebook
    if not path.is_file():
        raise SpecError(f"the notebook {path} of figure {entry.figure!r} does not exist.")
    notebook = read_notebook(path, SpecError, "give a Jupyter notebook")
    try:
        known = parameter_names(notebook)
    except (ValueError, SyntaxError) as err:
        raise SpecError(f"{path}: the parameters cannot be read ({first_line(err).rstrip('.')}); see the others.") from err
    if unknown := sorted(set(parameters) - set(known)):
        there = ", ".join(known) or "none: no cell has the tag parameters"
        raise SpecError(f"{entry.notebook} has no parameter {unknown[0]!r}; it has {there}.")
    for name, value in parameters.items():
        try:
            check_notebook_value(value)
        except ValueError as err:
            raise SpecError(f"{entry.notebook}, {name}: {err}.") from err
    if NAME_PARAMETER in parameters:
        try:
            check_file_name(parameters[NAME_PARAMETER])
        except OutputError as err:
            raise SpecError(f"{entry.notebook}, {NAME_PARAMETER}: {err}") from err


def plan(
    names: Sequence[str] = (),
    *,
    profile: str = "default",
    notebooks: str | Path = "notebooks",
    figures: str | Path | None = None,
    build: str | Path = "build",
    overrides: dict[str, Any] | None = None,
    again: bool = False,
) -> list[PlannedRun]:
    """Return the runs that `regenerate` would make, checked before any kernel starts.

    Parameters
    ----------
    names : sequence of str
        Names of the figures; empty for all of the profile.
    profile : str
        smoke (minutes; smallest sizes), default (the embedded model), study (both embedded models at the paper's
        sizes; hours) or paper (GPUs and the hub).
    notebooks : str or Path
        Folder of the notebooks and figures.yaml.
    figures : str or Path, optional
        Folder of the figure files; by default ``figures/<profile>`` for default and study, else
        ``<build>/<profile>/figures``.
    build : str or Path
        Executed notebooks go to ``<build>/<profile>/notebooks``. Results of experiments are kept in ``<build>/store``,
        those of the study in ``<build>/study/store``, unless the environment variable WORKBENCH_STORE names another.
    overrides : dict, optional
        Parameters for every notebook, which override those of the manifest.
    again : bool
        Whether figures that are up to date are made again.

    Returns
    -------
    list of PlannedRun
        In the order of the manifest.

    Raises
    ------
    SpecError
        If a name, profile, parameter or notebook is not known.
    """
    for name, folder in (("the folder of notebooks", notebooks), ("the build folder", build), ("--figures", figures)):
        _check_folder_name(name, folder)
    notebooks = Path(notebooks)
    planned: list[PlannedRun] = []
    for entry in select_for_profile(read_manifest(notebooks), names, profile):
        own = cast(Profile, profile)  # checked by `select_for_profile`
        locations = locate(entry, profile, notebooks=notebooks, figures=figures, build=build)
        parameters = {**entry.parameters, **entry.profiles[own], **(overrides or {})}
        if FIGURES_PARAMETER in parameters:
            raise SpecError(f"{FIGURES_PARAMETER} is not a parameter to set; --figures names the folder of the figures.")
        parameters[FIGURES_PARAMETER] = str(locations.figures.resolve())
        check_notebook_parameters(entry, notebooks, parameters)
        earlier = [other.cause for other in planned] if entry.reads_store else []
        cause = cause_of(notebooks / entry.notebook, parameters, earlier)
        last = last_run(locations.record)
        up_to_date = not again and last is not None and last.is_current(cause)
        minutes = entry.minutes.get(own)
        expected = last.seconds if last else 60 * minutes if minutes is not None else None
        planned.append(PlannedRun(entry, parameters, locations, cause, up_to_date, expected))
    return planned
