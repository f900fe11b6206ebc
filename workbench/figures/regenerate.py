"""Execution of a plan by papermill: notebooks run with their parameters, are kept executed, and write their figures."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm
from traitlets.config import Config

from workbench.errors import NothingStoredError, RunError, SpecError
from workbench.experiment.archive import read_archive, write_archive
from workbench.experiment.store import Store
from workbench.experiment.store_location import experiments_of_children, own_store
from workbench.figures.at_once import run_at_once
from workbench.figures.manifest import ARCHIVED, MANIFEST, Entry
from workbench.figures.plan import ENDINGS, Locations, PlannedRun
from workbench.figures.records import record_run
from workbench.kernels import KERNEL_SETTINGS
from workbench.storage.disk import disk_errors
from workbench.storage.scratch import scratch_folder

log = logging.getLogger(__name__)

_FileStamp = tuple[int, int, int]  # modification time in nanoseconds, inode, size


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended without an error.

    Attributes
    ----------
    entry : Entry
        The entry of the manifest.
    notebook : Path
        The executed notebook.
    files : tuple of Path
        The figure files that it wrote.
    seconds : float
        Duration of the run.
    """

    entry: Entry
    notebook: Path
    files: tuple[Path, ...]
    seconds: float


def regenerate(
    planned: Sequence[PlannedRun], *, cluster: str | None = None, from_results: bool = False, at_once: int = 1
) -> list[FinishedRun]:
    """Run the notebooks of a plan that are not up to date, and keep them executed.

    Results that the archive of the profile holds are copied into its store first, and the archive is written again
    after every notebook.

    Parameters
    ----------
    planned : sequence of PlannedRun
        The plan, from `plan`.
    cluster : str, optional
        Cluster that the experiments run on, as for `workbench.run`.
    from_results : bool
        Whether to draw the figures from the archive alone, as far as it goes, without running any experiment. Figures
        of which it holds nothing are logged as a warning and left out.
    at_once : int
        Number of notebooks that run at the same time, each in a process that has a share of the cores; a script that
        asks for more than one needs the usual ``if __name__ == "__main__"``. Their results are those of one after
        another, up to the rounding of another number of threads.

    Returns
    -------
    list of FinishedRun
        The runs that were made, in the order of the plan.

    Raises
    ------
    SpecError
        If `from_results` is set for a profile that keeps no archive, or the archive cannot be read.
    DiskError
        If the disk is full or read-only; executed notebooks and figures that were there before stay.
    RunError
        If a notebook fails, which is kept as far as it ran, or does not write the files that the manifest lists.
    """
    runs = [run for run in planned if not run.up_to_date]
    if not runs:
        return []
    locations, finished = runs[0].locations, dict[str, FinishedRun]()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(scratch if from_results else own_store() or locations.store)
        _fill_from_archive(locations.archive, store, needed=from_results)
        children = experiments_of_children(store.address, cluster=cluster, stored_only=from_results, processes=at_once)
        with children, tqdm(total=len(runs), desc="Figures", unit="notebook") as bar:

            def tell(figures: list[str]) -> None:
                bar.set_postfix_str(", ".join(figures))

            quietly = partial(_run_if_stored, with_bar=False)  # bars of several processes overwrite one another
            ended = _one_by_one(runs, tell) if at_once == 1 else run_at_once(runs, at_once, quietly, tell)
            for run in ended:
                bar.update()
                if run is not None:
                    finished[run.entry.figure] = run
                if locations.archive and not from_results:
                    write_archive(store, locations.archive)
    return [finished[run.entry.figure] for run in runs if run.entry.figure in finished]


def _one_by_one(runs: Sequence[PlannedRun], tell: Callable[[list[str]], None]) -> Iterator[FinishedRun | None]:
    for run in runs:
        tell([run.entry.figure])
        yield _run_if_stored(run, with_bar=True)


def _fill_from_archive(archive: Path | None, store: Store, *, needed: bool) -> None:
    """Copy the archived results into the store, if there are any."""
    if archive is None and needed:
        raise SpecError(f"figures are drawn from results in the profiles {', '.join(ARCHIVED)} only.")
    if archive is not None and (needed or archive.is_file()):
        read_archive(archive, store)


def _run_if_stored(planned: PlannedRun, *, with_bar: bool) -> FinishedRun | None:
    """Run an entry; where experiments are only read, None if the store holds nothing of it."""
    try:
        return _run(planned, with_bar=with_bar)
    except NothingStoredError as err:
        log.warning("%s", err)
        return None


def _run(planned: PlannedRun, *, with_bar: bool) -> FinishedRun:
    entry, locations = planned.entry, planned.locations
    stamps_before = _stamps_of(locations.figure_files(entry))
    start = time.perf_counter()
    notebook = _execute(planned, with_bar=with_bar)
    files, seconds = _written_files(entry, locations, stamps_before), time.perf_counter() - start
    record_run(locations.record, planned.cause, files, seconds)
    return FinishedRun(entry, notebook, files, seconds)


def _execute(planned: PlannedRun, *, with_bar: bool) -> Path:
    entry, locations = planned.entry, planned.locations
    target = locations.executed_notebook(entry)
    try:
        with disk_errors(target), _kept_as(target) as scratch:
            papermill.execute_notebook(
                str(locations.notebooks / entry.notebook),
                str(scratch),
                parameters=planned.parameters,
                cwd=str(locations.notebooks),
                kernel_name="python3",
                progress_bar={"desc": entry.figure, "leave": False} if with_bar else False,
                config=Config(KERNEL_SETTINGS),
            )
    except PapermillExecutionError as err:
        if err.ename == NothingStoredError.__name__:
            raise NothingStoredError(f"figure {entry.figure!r} is left out: {err.evalue}") from err
        raise RunError(
            f"figure {entry.figure!r} failed at In [{err.exec_count}] of {entry.notebook}: {err.ename}: {err.evalue} "
            f"(the notebook as far as it ran: {target})."
        ) from err
    except DeadKernelError as err:
        raise RunError(
            f"figure {entry.figure!r}: the kernel of {entry.notebook} died, often for lack of memory "
            f"(the notebook as far as it ran: {target})."
        ) from err
    return target


@contextmanager
def _kept_as(target: Path) -> Iterator[Path]:
    """Give a temporary path for a notebook; what is there at the end becomes `target`, unless the disk was full."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target) as folder:
        scratch, whole = folder / target.name, True
        try:
            yield scratch
        except OSError:
            whole = False  # what is there may be half a notebook
            raise
        finally:
            if whole and scratch.exists():
                scratch.replace(target)


def _stamps_of(paths: Sequence[Path]) -> dict[Path, _FileStamp]:
    """Return what changes of each file when it is written, whatever the clock says."""
    stats = {path: path.stat() for path in paths}
    return {path: (stat.st_mtime_ns, stat.st_ino, stat.st_size) for path, stat in stats.items()}


def _written_files(entry: Entry, locations: Locations, before: dict[Path, _FileStamp]) -> tuple[Path, ...]:
    """Return the files that a run wrote; a listed file that is missing, or older than the run, is an error."""
    after = _stamps_of(locations.figure_files(entry))
    old = [path for path in after if after[path] == before.get(path)]
    for name in entry.makes:
        path = locations.figures / f"{name}{ENDINGS[0]}"
        if path not in after or path in old:
            raise RunError(f"{entry.notebook} ran but did not write {path.name}, which {MANIFEST} says it makes.")
    if old:
        raise RunError(
            f"{entry.notebook} wrote {old[0].stem}{ENDINGS[0]} but left an old {old[0].name} beside it; delete it if "
            "it is no longer made."
        )
    return tuple(after)
