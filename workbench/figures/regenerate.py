"""figures.yaml → papermill → figures: every figure by name, in three profiles.

The list says which notebook, run with which parameters, makes which figure. Parameters are checked against the
notebook's own before any kernel starts, since papermill only warns of unknown ones.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm.auto import tqdm

from workbench.errors import RunError, SpecError
from workbench.experiment.store_location import store_for_children
from workbench.figures.records import cause_of, last_run, record_run

Profile = Literal["smoke", "default", "paper"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
LIST = "figures.yaml"
FIGURES_PARAMETER = "figures_dir"  # every notebook has it: the folder it writes to
ENDINGS = (".csv", ".png", ".svg")  # of what a notebook makes; the first always, the others for pictures


class Entry(BaseModel):
    """One run of one notebook."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    figure: str  # the name people ask for
    title: str  # one line for lists and reports
    notebook: str  # file beside the list
    makes: tuple[str, ...]  # files written, without endings
    parameters: dict[str, Any] = Field(default_factory=dict)  # in every profile
    profiles: dict[Profile, dict[str, Any]]  # what each profile adds; a profile that is not here leaves it out
    minutes: dict[Profile, float] = Field(
        default_factory=dict
    )  # how long it takes on two cores, behind those before it
    reads_store: bool = False  # whether it reads what the entries before it have left in the store
    on_request: tuple[Profile, ...] = ()  # profiles in which it is run only if it is named


class FigureList(BaseModel):
    """The content of figures.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    figures: tuple[Entry, ...]


@dataclass(frozen=True)
class Place:
    """Where an entry is read from and written to."""

    notebooks: Path
    executed: Path  # folder of executed notebooks
    figures: Path
    record: Path  # of the last run

    def executed_notebook(self, entry: Entry) -> Path:
        """Where the entry's notebook lies after its run."""
        return self.executed / f"{Path(entry.notebook).stem}-{entry.figure}.ipynb"

    def figure_files(self, entry: Entry) -> list[Path]:
        """What of the entry's files is in the folder of figures, in the list's order."""
        paths = [self.figures / f"{name}{ending}" for name in entry.makes for ending in ENDINGS]
        return [path for path in paths if path.is_file()]


@dataclass(frozen=True)
class Planned:
    """One entry that is to be run, unless it is up to date."""

    entry: Entry
    parameters: dict[str, Any]
    place: Place
    cause: str
    up_to_date: bool
    expected: float | None  # seconds, by the last run here, or by the list; None where nobody knows


@dataclass(frozen=True)
class Made:
    """One entry after its run."""

    entry: Entry
    notebook: Path  # executed
    files: tuple[Path, ...]
    seconds: float


def read_list(notebooks: Path) -> FigureList:
    """Read and check ``figures.yaml`` in a folder of notebooks.

    Parameters
    ----------
    notebooks : Path
        The folder.

    Returns
    -------
    FigureList

    Raises
    ------
    SpecError
        If the list is missing or malformed, or the name of a figure or of a file occurs twice.
    """
    path = notebooks / LIST
    try:
        figures = FigureList.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as err:
        raise SpecError(f"{path} cannot be read ({err.strerror}); run in the project's folder, or name it.") from err
    except yaml.YAMLError as err:
        raise SpecError(f"{path} is not YAML: {' '.join(str(err).split())}.") from err
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(f"{path}, {where or 'top'}: {first['msg']}; the README shows an entry.") from err
    names = [entry.figure for entry in figures.figures]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SpecError(f"{path}: the figure {repeated[0]!r} is listed twice; give each entry its own name.")
    files = [name for entry in figures.figures for name in entry.makes]
    if repeated := [name for name in files if files.count(name) > 1]:
        raise SpecError(f"{path}: the file {repeated[0]!r} is made twice; give each its own name.")
    return figures


def named(figures: FigureList, names: Sequence[str]) -> list[Entry]:
    """The entries named, or all.

    Parameters
    ----------
    figures : FigureList
        What there is.
    names : sequence of str
        Figure names, or names of files that they make; none for all.

    Returns
    -------
    list of Entry
        In the list's order.

    Raises
    ------
    SpecError
        If a name is not known.
    """
    for name in names:
        if not any(name in (e.figure, *e.makes) for e in figures.figures):
            known = ", ".join(e.figure for e in figures.figures)
            raise SpecError(f"figure {name!r} is not known; known: {known}.")
    return [e for e in figures.figures if not names or {*names} & {e.figure, *e.makes}]


def choose(figures: FigureList, names: Sequence[str], profile: str) -> list[Entry]:
    """The entries to run: those named, or all of the profile but those that are run on request.

    Parameters
    ----------
    figures : FigureList
        What there is.
    names : sequence of str
        Figure names, or names of files that they make; none for all.
    profile : str
        One of `PROFILES`.

    Returns
    -------
    list of Entry
        In the list's order.

    Raises
    ------
    SpecError
        If a name or the profile is not known, or the profile leaves a named figure out.
    """
    if profile not in PROFILES:
        raise SpecError(f"profile {profile!r} is not known; known: {', '.join(PROFILES)}.")
    entries = named(figures, names)
    for entry in entries:
        if names and profile not in entry.profiles:
            raise SpecError(
                f"figure {entry.figure!r} is not made in the profile {profile!r}, only in {', '.join(entry.profiles)}."
            )
    return [e for e in entries if profile in e.profiles and (names or profile not in e.on_request)]


def place_of(entry: Entry, profile: str, *, notebooks: Path, figures: str | Path | None, build: str | Path) -> Place:
    """Where an entry is read from and written to in a profile; the settings are those of `plan`."""
    build = Path(build) / profile
    folder = Path(figures) if figures else Path("figures") if profile == "default" else build / "figures"
    return Place(notebooks, build / "notebooks", folder, build / "made" / f"{entry.figure}.json")


def check_parameters(entry: Entry, notebooks: Path, parameters: dict[str, Any]) -> None:
    """Raise `SpecError` if the entry's notebook is missing or lacks one of these parameters."""
    path = notebooks / entry.notebook
    if not path.is_file():
        raise SpecError(f"the notebook {path} of figure {entry.figure!r} does not exist.")
    known = set(papermill.inspect_notebook(str(path)))
    if unknown := sorted(set(parameters) - known):
        raise SpecError(f"{entry.notebook} has no parameter {unknown[0]!r}; it has {', '.join(sorted(known))}.")


def plan(
    names: Sequence[str] = (),
    *,
    profile: str = "default",
    notebooks: str | Path = "notebooks",
    figures: str | Path | None = None,
    build: str | Path = "build",
    overrides: dict[str, Any] | None = None,
    again: bool = False,
) -> list[Planned]:
    """What `regenerate` would run, checked.

    Parameters
    ----------
    names : sequence of str
        Which figures; all of the profile if none is named.
    profile : str
        smoke (minutes; smallest sizes), default (the embedded model) or paper (GPUs and the hub).
    notebooks : str or Path
        Folder of the notebooks and figures.yaml.
    figures : str or Path, optional
        Where figures go; by default ``figures`` for the default profile, else ``<build>/<profile>/figures``.
    build : str or Path
        Executed notebooks go to ``<build>/<profile>/notebooks``; results of experiments are kept in ``<build>/store``,
        unless the environment variable WORKBENCH_STORE names another place.
    overrides : dict, optional
        Parameters that win over the list's, for every notebook run.
    again : bool
        Whether figures are made again that are as they would be.

    Returns
    -------
    list of Planned
        In the list's order.

    Raises
    ------
    SpecError
        If a name, profile, parameter or notebook is not known.
    """
    notebooks = Path(notebooks)
    entries = choose(read_list(notebooks), names, profile)
    planned: list[Planned] = []
    for entry in entries:
        parameters = {**entry.parameters, **entry.profiles[profile], **(overrides or {})}
        place = place_of(entry, profile, notebooks=notebooks, figures=figures, build=build)
        parameters[FIGURES_PARAMETER] = str(place.figures.resolve())
        check_parameters(entry, notebooks, parameters)
        earlier = [other.cause for other in planned] if entry.reads_store else []
        cause = cause_of(notebooks / entry.notebook, parameters, earlier)
        last = last_run(place.record)
        up_to_date = not again and last is not None and last.holds(cause)
        minutes = entry.minutes.get(profile)
        expected = last.seconds if last else 60 * minutes if minutes is not None else None
        planned.append(Planned(entry, parameters, place, cause, up_to_date, expected))
    return planned


def regenerate(planned: Sequence[Planned]) -> list[Made]:
    """Run the notebooks of a plan that are not up to date, and keep them executed.

    Parameters
    ----------
    planned : sequence of Planned
        From `plan`.

    Returns
    -------
    list of Made
        What was run and what it wrote, in the plan's order.

    Raises
    ------
    RunError
        If a notebook fails, and is kept as far as it ran; or if it does not write what the list promises.
    """
    runs = [each for each in planned if not each.up_to_date]
    made = []
    with tqdm(runs, desc="Figures", unit="notebook", disable=not runs) as bar:
        for each in bar:
            bar.set_postfix_str(each.entry.figure)
            with store_for_children(each.place.executed.parent.parent / "store"):
                made.append(_make(each))
    return made


def _make(planned: Planned) -> Made:
    entry, place = planned.entry, planned.place
    found = _written_when(place.figure_files(entry))
    start = time.perf_counter()
    notebook = _execute(entry, place, planned.parameters)
    files, seconds = _written(entry, place, found), time.perf_counter() - start
    record_run(place.record, planned.cause, files, seconds)
    return Made(entry, notebook, files, seconds)


def _execute(entry: Entry, place: Place, parameters: dict[str, Any]) -> Path:
    place.executed.mkdir(parents=True, exist_ok=True)
    source = place.notebooks / entry.notebook
    target = place.executed_notebook(entry)
    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=parameters,
            cwd=str(place.notebooks),
            kernel_name="python3",
            progress_bar={"desc": entry.figure, "leave": False},
        )
    except PapermillExecutionError as err:
        raise RunError(
            f"figure {entry.figure!r} failed at In [{err.exec_count}] of {entry.notebook}: {err.ename}: {err.evalue} "
            f"(the notebook as far as it ran: {target})."
        ) from err
    except DeadKernelError as err:
        raise RunError(
            f"figure {entry.figure!r}: the kernel of {entry.notebook} died, often for want of memory "
            f"(the notebook as far as it ran: {target})."
        ) from err
    return target


def _written_when(paths: Sequence[Path]) -> dict[Path, tuple[int, int, int]]:
    """What changes of each file when it is written."""
    stats = {path: path.stat() for path in paths}
    return {path: (stat.st_mtime_ns, stat.st_ino, stat.st_size) for path, stat in stats.items()}


def _written(entry: Entry, place: Place, found: dict[Path, tuple[int, int, int]]) -> tuple[Path, ...]:
    """The files that the run wrote; one that was promised and not written is an error, whatever lay there before."""
    now = _written_when(place.figure_files(entry))
    old = [path for path in now if now[path] == found.get(path)]
    for name in entry.makes:
        path = place.figures / f"{name}{ENDINGS[0]}"
        if path not in now or path in old:
            raise RunError(f"{entry.notebook} ran but did not write {path.name}, which {LIST} says it makes.")
    if old:
        raise RunError(
            f"{entry.notebook} wrote {old[0].stem}{ENDINGS[0]} but left an old {old[0].name} beside it; delete it if "
            "it is no longer made."
        )
    return tuple(now)
