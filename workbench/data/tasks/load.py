"""The data of the eight tasks: the bundled sets, a file, a folder of known files, or the hub.

The format is told by the fields of the records (`workbench.data.tasks.formats`), what a folder holds by the names of
its files (`workbench.data.tasks.sources`). A record that cannot be used is kept as a `Rejected` with its reason and the
others load; data that cannot be used raise.
"""

import json
import logging
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from workbench.data.facts import BUNDLED, Rejected
from workbench.data.formats import kind_of
from workbench.data.records import FileKind
from workbench.data.tasks.conll import column_records, is_columns
from workbench.data.tasks.examples import TaskExample
from workbench.data.tasks.formats import BEYOND, TASK_FORMATS, TaskFormat, format_of, read_record
from workbench.data.tasks.hub import hub_rows
from workbench.data.tasks.sources import DEPTH, KNOWN_NAMES, Place, dialogue_files, find_place, place_of
from workbench.errors import DataError, SpecError

log = logging.getLogger(__name__)

HUB = "hub"  # the source that names the data sets of the hub

_SHAPES = "give a JSON array, JSON lines or a TSV with a header"
_DATA = FileKind("data", _SHAPES, DataError)
_FIELDS_SHOWN = 12  # of a record in no known format


@dataclass(frozen=True)
class TaskData:
    """The examples of one task from one source, in its order; `len` counts the usable ones."""

    task: str
    source: str  # "bundled", the end of the file's path, or the hub's owner/name:config@revision
    split: str  # "bundled", "train", "dev", "validation", "test", or "unknown"
    examples: tuple[TaskExample, ...]
    rejected: tuple[Rejected, ...]

    def __len__(self) -> int:
        """Return the number of usable examples."""
        return len(self.examples)

    def limited(self, limit: int | None, *, seed: int | None = None) -> "TaskData":
        """Keep the first examples, or draw some without replacement.

        With the same seed a smaller draw is the beginning of a larger one.

        Parameters
        ----------
        limit : int or None
            How many; all of them if None or if there are not more.
        seed : int, optional
            Of the draw; without it the first ones are kept.

        Returns
        -------
        TaskData
            The examples in the source's order, or in the order drawn.

        Raises
        ------
        DataError
            If `limit` is below 1.
        """
        if limit is not None and limit < 1:
            raise DataError(f"limit must be at least 1; got {limit}.")
        examples = self.examples
        if seed is not None:
            examples = tuple(random.Random(seed).sample(examples, len(examples)))
        return replace(self, examples=examples[:limit])


def load_task(task: str, data: str | Path | None = None) -> TaskData:
    """Load a task's examples.

    Parameters
    ----------
    task : str
        One of `workbench.data.tasks.formats.TASK_FORMATS`.
    data : str or Path, optional
        - ``"bundled"``: the set that comes with the package.
        - ``"hub"``: the data set on the hub, as `workbench.data.tasks.hub.HUB_TASKS` says.
        - A file: JSON, JSON lines, a TSV with a header or, for ner, CoNLL's columns; UTF-8.
        - A folder: it, and three levels below it, are searched for the names in
          `workbench.data.tasks.sources.KNOWN_NAMES`.

        By default what the environment variable WORKBENCH_DATA says, or the bundled set.

    Returns
    -------
    TaskData
        The usable examples, and every record that is not with its reason.

    Raises
    ------
    SpecError
        If there is no such task.
    DataError
        If the file or folder is missing or not readable, the folder holds no data of the task, the data are of no
        known format or without one usable record, or the hub cannot be reached.
    """
    if task not in TASK_FORMATS:
        raise SpecError(f"no task {task!r}; known: {', '.join(TASK_FORMATS)}.")
    if data is None:
        data = os.environ.get("WORKBENCH_DATA") or BUNDLED
    if data == BUNDLED:
        return _bundled(task)
    if data == HUB:
        name, split, rows = hub_rows(task)
        return _task_data(task, name, split, rows)
    place = _place(task, Path(os.path.abspath(os.path.expanduser(data))))  # noqa: PTH100  links keep their names
    if place.path.is_dir():
        return _task_data(task, place.source, place.split, _folder_records(place.path))
    return _task_data(task, place.source, place.split, _file_records(task, place.source, _bytes_of(place.path)))


def _bundled(task: str) -> TaskData:
    file = resources.files("workbench.data").joinpath("bundled", "tasks", f"{task}.jsonl")
    try:
        content = file.read_bytes()
    except OSError as err:
        raise DataError(f"the bundled set of {task} is missing from this installation; install it again.") from err
    found = _task_data(task, BUNDLED, BUNDLED, _file_records(task, BUNDLED, content))
    if found.rejected:
        raise DataError(found.rejected[0].in_file(f"the bundled set of {task}"))
    return found


def _place(task: str, path: Path) -> Place:
    if path.is_file():
        return place_of(task, path)
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a file or folder of data, {BUNDLED!r} or {HUB!r}.")
    place = find_place(task, path)
    if place is None:
        names = ", ".join(name.tail for name in KNOWN_NAMES[task])
        raise DataError(
            f"{path} holds no data for {task}: it and {DEPTH} levels below it were searched for {names}; give such a "
            "folder or the file itself."
        )
    return place


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise DataError(f"{path} cannot be read ({err.strerror or err}); give a file of data.") from err


def _folder_records(folder: Path) -> list:
    """One record a file; what cannot be read becomes a Rejected in its place."""
    return [_only_record(index, path) for index, path in enumerate(dialogue_files(folder))]


def _only_record(index: int, path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as err:
        return Rejected(index, f"{path.name} is not UTF-8 text: byte {err.start} is 0x{err.object[err.start]:02x}.")
    except json.JSONDecodeError as err:
        return Rejected(index, f"{path.name} is not JSON: line {err.lineno}, column {err.colno}: {err.msg}.")
    except (OSError, RecursionError, ValueError) as err:
        return Rejected(index, f"{path.name} cannot be read ({getattr(err, 'strerror', None) or err}).")


def _file_records(task: str, source: str, content: bytes) -> list:
    text = _DATA.decoded(source, content)
    if task == "ner" and is_columns(text):
        return column_records(text)
    if text.lstrip().startswith(("[", "{")):
        return _DATA.json_records(source, text)
    return _tsv_records(source, text)


def _tsv_records(source: str, text: str) -> list[dict]:
    """Rows as dicts. Quotes are characters like others: RTE and SST-2 have unpaired ones in their sentences."""
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip(" \r")]
    header = rows[0]
    if len(header) < 2:
        raise DataError(f"{source} is neither JSON nor a TSV: it starts with {header[0][:60]!r}; {_SHAPES}.")
    for column in header:
        if header.count(column) > 1:
            raise DataError(f"{source} has the column {column!r} {header.count(column)} times; give it once.")
    return [{**dict(zip(header, row, strict=False)), BEYOND: "\t".join(row[len(header) :])} for row in rows[1:]]


def _task_data(task: str, source: str, split: str, records: Sequence[object]) -> TaskData:
    task_format = _format_of_most(task, source, records)
    outcomes = [_outcome(task_format, index, record) for index, record in enumerate(records)]
    examples = tuple(outcome for outcome in outcomes if not isinstance(outcome, Rejected))
    rejected = tuple(outcome for outcome in outcomes if isinstance(outcome, Rejected))
    if not examples:
        raise DataError(f"{source} has no usable record among {len(records)}; {rejected[0]}")
    if rejected:
        log.warning("%s: %d of %d records are left out; %s", source, len(rejected), len(records), rejected[0])
    return TaskData(task, source, split, examples, rejected)


def _outcome(task_format: TaskFormat, index: int, record: object) -> TaskExample | Rejected:
    if isinstance(record, Rejected):
        return record
    try:
        return read_record(task_format, record)
    except DataError as err:
        return Rejected(index, str(err))


def _format_of_most(task: str, source: str, records: Sequence[object]) -> TaskFormat:
    """Where records differ in format, that of most counts: a field that one lacks is its fault, not another format."""
    if not records:
        raise DataError(f"{source} holds no records; give at least one.")
    votes = Counter(found.name for record in records if (found := format_of(task, record)))
    if not votes:
        known = "; ".join(f"{row.name} ({', '.join(row.fields)})" for row in TASK_FORMATS[task])
        raise DataError(f"{source} has {_seen(records)}; known for {task}: {known}.")
    [(name, _)] = votes.most_common(1)
    return next(row for row in TASK_FORMATS[task] if row.name == name)


def _seen(records: Sequence[object]) -> str:
    first = next((record for record in records if isinstance(record, dict)), records[0])
    if isinstance(first, Rejected):
        return f"no record that can be read: {first.reason.rstrip('.')}"
    if not isinstance(first, dict):
        return f"no objects: record 0 is {kind_of(first)}"
    fields = [field for field in first if field != BEYOND]
    return f"fields of no known format: {', '.join(fields[:_FIELDS_SHOWN]) or 'none'}"
