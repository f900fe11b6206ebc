"""Store: edits and measurements by content, results by trajectory, in a folder or at any fsspec URL.

::

    trajectories/<trajectory>.json     the spec, the versions, the state after each checkpoint, whether it is finished
    results/<trajectory>/<n>.parquet   tidy scores after n operations, with intervals
    scores/<trajectory>/<n>.parquet    the scores behind them: one row per fact or example
    operations/<trajectory>/<n>…       one row per operation: seconds, norms, perplexity, why it failed
    edits/<key>                  update of an editor, by the state it was computed on, the method and the facts
    measures/<key>.parquet       raw scores, by the state and the request
    answers/<key>.parquet        answers to the examples of a task
    updates/<state>.safetensors  the accumulated update of a state
    guards/<key>…                what a guard decided on an operation: the update to apply, and why
    derived/<trajectory>/<name>.parquet  tables that were computed from the updates of a trajectory
    damaged/…                    files of the parts above that could not be read, under their names

``pd.read_parquet("<store>/results")`` reads all results. Files that are named by their content are the same whoever
writes them, so that stores can be merged file by file. A file is written under a temporary name and renamed.
"""

import json
import logging
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from workbench.errors import DiskError, SpecError, first_line
from workbench.experiment.stored_files import OPERATIONS, RESULTS, SCORES, is_stored_file, parse_file
from workbench.inputs import require_path, shown
from workbench.storage.checksums import dump_object, dump_table
from workbench.storage.disk import disk_errors
from workbench.storage.scratch import scratch_file
from workbench.update import WeightUpdate

log = logging.getLogger(__name__)

DAMAGED = "damaged"  # folder of the files that could not be read
PRESET = "preset"  # in the column hyperparameters, where a spec replaces none
PARTS = (
    "trajectories",
    "results",
    "scores",
    "operations",
    "edits",
    "measures",
    "answers",
    "updates",
    "guards",
    "derived",
)


def hyperparameters_label(hyperparameters: Mapping[str, Any]) -> str:
    """Return the hyperparameters of a spec as the column `hyperparameters` holds them."""
    return json.dumps(dict(hyperparameters), sort_keys=True) if hyperparameters else PRESET


class Store:
    """A folder of results.

    A file that cannot be read, such as one that a full disk has cut short, is moved to the folder ``damaged``, logged
    as a warning, and treated as missing: the next run writes it again.

    Parameters
    ----------
    url : str or Path
        Folder, created when something is written, or fsspec URL, such as ``s3://bucket/folder``.

    Raises
    ------
    SpecError
        If there is no such file system, or the folder is a file.
    """

    def __init__(self, url: str | Path) -> None:
        require_path(url, "the store", SpecError)
        self.url = str(url)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
            is_file = self._fs.isfile(self._root)
        except (ValueError, ImportError, OSError) as err:
            raise SpecError(
                f"the store {shown(self.url)} cannot be opened ({first_line(err)}); give a folder or an fsspec URL."
            ) from err
        if is_file:
            raise SpecError(f"the store {self.url} is a file; give a folder.")

    @property
    def address(self) -> str:
        """Address by which another process opens this store: the URL, or the absolute path of a folder."""
        return self._root if isinstance(self._fs, LocalFileSystem) else self.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def has(self, name: str) -> bool:
        """Return whether the file `name` exists."""
        return self._fs.exists(self._path(name))

    def names(self, part: str) -> list[str]:
        """Return the sorted names of all files of a part, such as ``results/<trajectory>/00010.parquet``.

        Files with other names than the store gives, such as notes, are left out.
        """
        with self._reachable():
            paths = self._fs.find(self._path(part)) if self._fs.isdir(self._path(part)) else []
        found = (path[len(self._root) :].lstrip("/") for path in paths)
        return sorted(name for name in found if is_stored_file(name) and not Path(name).name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Return the content of the file `name`; None if it does not exist."""
        with self._reachable():
            try:
                return self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            reason = err.strerror or first_line(err)
            raise SpecError(f"the store {shown(self.url)} cannot be read ({reason}); is it there?") from err

    def write(self, name: str, content: bytes) -> None:
        """Write `content` under a temporary name, which readers of the folder skip, and rename it to `name`.

        Raises
        ------
        DiskError
            If the disk of a local store is full or read-only, a quota is used up, or permission is denied.
        """
        path = self._path(name)
        folder, _, file = path.rpartition("/")
        if isinstance(self._fs, LocalFileSystem):
            with disk_errors(path):
                self._fs.makedirs(folder, exist_ok=True)
                with scratch_file(Path(path)) as local:
                    local.write_bytes(content)
                    self._rename(str(local), path)
            return
        self._fs.makedirs(folder, exist_ok=True)
        scratch = f"{folder}/.{file}-{uuid.uuid4().hex}"
        try:
            self._fs.pipe_file(scratch, content)
            self._rename(scratch, path)
        except BaseException:
            if self._fs.exists(scratch):
                self._fs.rm_file(scratch)
            raise

    def _rename(self, scratch: str, path: str) -> None:
        if isinstance(self._fs, LocalFileSystem):
            Path(scratch).replace(path)
        else:
            self._fs.mv(scratch, path)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the object in the JSON file `name`; None if it does not exist, or is damaged and was set aside."""
        return self._parse(name)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write `content` as the JSON file `name`."""
        self.write(name, dump_object(content))

    def read_table(self, name: str) -> pd.DataFrame | None:
        """Return the parquet file `name` as a table; None if it does not exist, or is damaged and was set aside."""
        table = self._parse(name)
        return None if table is None else table.to_pandas()

    def write_table(self, name: str, table: pd.DataFrame, schema: pa.Schema | None = None) -> None:
        """Write `table` as the parquet file `name`; columns of the `schema` that it lacks are left empty."""
        if schema is not None:
            table = table.reindex(columns=schema.names)
        self.write(name, dump_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False)))

    def keep_table(self, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return the parquet file `name` as a table; if it does not exist, write what `compute` returns."""
        table = self.read_table(name)
        if table is None:
            table = compute()
            self.write_table(name, table)
        return table

    def read_update(self, name: str) -> WeightUpdate | None:
        """Return the update saved as `name`; None if it does not exist, or is damaged and was set aside."""
        return self._parse(name)

    def _parse(self, name: str) -> Any:
        """Return what a file holds; one that cannot be read is moved to the folder of damaged files."""
        content = self.read(name)
        if content is None:
            return None
        found, reason = _parse_or_reason(name, content)
        if reason is not None:
            self._set_aside(name, content, reason)
        return found

    def _set_aside(self, name: str, content: bytes, reason: str) -> None:
        if self.read(name) != content:  # another process has written it again
            return
        aside = f"{DAMAGED}/{name}"
        try:
            self.write(aside, content)
            self._fs.rm_file(self._path(name))
        except OSError as err:
            log.warning("%s is damaged (%s) and cannot be moved to %s (%s)", name, reason, aside, first_line(err))
        else:
            log.warning("%s is damaged (%s); it is now %s in the store %s", name, reason, aside, self.url)

    def write_update(self, name: str, update: WeightUpdate) -> None:
        """Write `update` as the safetensors file `name`."""
        with disk_errors(tempfile.gettempdir(), variable="TMPDIR"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "update.safetensors")
            update.save(path)
            self.write(name, path.read_bytes())

    def derive(self, trajectory: str, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return a table that is computed from a trajectory, such as from its updates; computed once and kept.

        Parameters
        ----------
        trajectory : str
            Key of the trajectory.
        name : str
            Name of the table, with whatever it depends on beside the trajectory.
        compute : callable
            Function that returns the table; called only if the store does not hold it.

        Returns
        -------
        DataFrame
        """
        return self.keep_table(f"derived/{trajectory}/{name}.parquet", compute)

    def trajectories(self) -> dict[str, dict[str, Any]]:
        """Return the record of each trajectory by its key."""
        records = ((key, self.read_record(key)) for key in (Path(name).stem for name in self.names("trajectories")))
        return {trajectory: record for trajectory, record in records if record is not None}

    def read_record(self, trajectory: str) -> dict[str, Any] | None:
        """Return the record of a trajectory; None if there is none, or it is damaged and was set aside."""
        return self.read_json(f"trajectories/{trajectory}.json")

    def reopen(self, trajectory: str) -> None:
        """Mark a trajectory as not finished, so that the next run writes the files that it lacks."""
        if self.finished(trajectory):
            record = self.read_record(trajectory)
            self.write_json(f"trajectories/{trajectory}.json", {**(record or {}), "finished": False})

    def finished(self, trajectory: str) -> bool:
        """Return whether a trajectory has been run to its end."""
        record = self.read_record(trajectory)
        return record is not None and record["finished"]

    def results(self, trajectories: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the tidy scores of some trajectories, or of all.

        Parameters
        ----------
        trajectories : sequence of str, optional
            Keys of the trajectories.

        Returns
        -------
        DataFrame
            The columns of `RESULTS`, ordered by trajectory and number of operations.
        """
        return self._tables("results", RESULTS, trajectories)

    def scores(self, trajectories: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row per score of a fact or example, of some trajectories or of all; the columns of `SCORES`."""
        return self._tables("scores", SCORES, trajectories)

    def operations(self, trajectories: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row per operation of some trajectories, or of all; the columns of `OPERATIONS`."""
        return self._tables("operations", OPERATIONS, trajectories)

    def _tables(self, part: str, schema: pa.Schema, trajectories: Sequence[str] | None) -> pd.DataFrame:
        folders = [part] if trajectories is None else [f"{part}/{trajectory}" for trajectory in trajectories]
        names = [name for folder in folders for name in self.names(folder)]
        read = {name: self._parse(name) for name in names}
        tables = [table for table in read.values() if table is not None]
        for trajectory in sorted({name.split("/")[1] for name, table in read.items() if table is None}):
            self.reopen(trajectory)
            log.warning("the trajectory %s lacks %s; run it again", trajectory, part)
        # files of earlier versions lack columns, which are left empty
        table = pa.concat_tables([schema.empty_table(), *tables], promote_options="default").to_pandas()
        return table.astype({"n": "Int64"}) if "n" in table else table  # weights have none

    def merge(self, other: "Store") -> int:
        """Copy the files of `other` that this store lacks; a finished trajectory replaces an unfinished one.

        Damaged files are left out and logged as a warning; a trajectory that lacks them is copied as unfinished.

        Parameters
        ----------
        other : Store
            The other store; not changed.

        Returns
        -------
        int
            Number of copied files.

        Raises
        ------
        SpecError
            If `other` holds nothing.
        """
        copied, incomplete = 0, set()
        if not (names := list(other._merge_order())):
            raise SpecError(f"the store {shown(other.url)} holds nothing to copy; give one with results.")
        for name in names:
            is_record = name.startswith("trajectories/")
            if self.has(name) and not (is_record and not self.finished(Path(name).stem)):
                continue
            if (content := other.read(name)) is None:
                continue
            found, reason = _parse_or_reason(name, content)
            if reason is not None:
                log.warning("%s of the store %s is damaged (%s) and is not copied", name, other.url, reason)
                incomplete.add(name.split("/")[1])
                continue
            if is_record and Path(name).stem in incomplete:
                content = dump_object({**found, "finished": False})
            self.write(name, content)
            copied += 1
        return copied

    def _merge_order(self) -> Iterator[str]:
        # the record of a trajectory says that its results exist, so it comes last
        for part in (*PARTS[1:], PARTS[0]):
            yield from self.names(part)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _parse_or_reason(name: str, content: bytes) -> tuple[Any, str | None]:
    """Return what a file holds, or why it cannot be read."""
    try:
        return parse_file(name, content), None
    except (MemoryError, DiskError):  # not the file's fault
        raise
    except Exception as err:  # damage makes pyarrow and pandas raise errors of many classes
        return None, first_line(err)
