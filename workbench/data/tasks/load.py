"""The data of the eight tasks: the bundled sets, a file, a folder of known files, or the hub.

The fields of the records identify the format (`workbench.data.tasks.formats`); the names of the files in a folder
identify the data sets (`workbench.data.tasks.sources`).
"""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.arguments import checked
from workbench.data.records import BUNDLED, RecordReader, Rejected, is_json
from workbench.data.tasks.conll import is_column_file, split_sentences
from workbench.data.tasks.examples import TaskExample
from workbench.data.tasks.formats import TASK_FORMATS
from workbench.data.tasks.hub import HUB_DATASETS, fetch_rows
from workbench.data.tasks.sources import DEPTH, KNOWN_PATHS, TaskSource, find_source, identify_file, list_dialogue_files
from workbench.errors import DataError, SpecError, first_line

HUB = "hub"  # the source that names the data sets of the hub

_SHAPES = "give a JSON array, JSON lines or a TSV with a header"
_SOURCES = f"a file or folder of data, {BUNDLED!r} or {HUB!r}"
_READER = RecordReader("data", "record", _SHAPES, _SOURCES, DataError)


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

    @checked
    def take(self, limit: int | None, *, seed: int | None = None) -> "TaskData":
        """Keep the first examples, or draw some without replacement.

        With the same seed, a smaller draw is the beginning of a larger one.

        Parameters
        ----------
        limit : int or None
            Number of examples to keep; all of them if None or if there are fewer.
        seed : int, optional
            Seed of the draw. Without it, the first examples are kept.

        Returns
        -------
        TaskData
            The examples in the order of the source, or in the order in which they were drawn.

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


@checked
def load_task(task: str, data: str | Path | None = None) -> TaskData:
    """Load the examples of a task.

    Parameters
    ----------
    task : str
        A key of `workbench.data.tasks.formats.TASK_FORMATS`.
    data : str or Path, optional
        - ``"bundled"``: the set that comes with the package.
        - ``"hub"``: the data set on the hub, as listed in `workbench.data.tasks.hub.HUB_DATASETS`.
        - A file: JSON, JSON lines, a TSV with a header or, for ner, CoNLL's columns; UTF-8.
        - A folder: it and three levels below it are searched for the paths in
          `workbench.data.tasks.sources.KNOWN_PATHS`.

        By default the value of the environment variable WORKBENCH_DATA, or else the bundled set.

    Returns
    -------
    TaskData
        The usable examples, and every other record with the reason why it is rejected.

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
        return _load_bundled(task)
    if data == HUB:
        dataset = HUB_DATASETS[task]
        return _read_task_data(task, dataset.name, dataset.split, fetch_rows(dataset))
    source = _choose_source(task, Path(os.path.abspath(os.path.expanduser(data))))  # noqa: PTH100  links keep their names
    if source.path.is_dir():
        records = [_read_dialogue_file(i, path) for i, path in enumerate(list_dialogue_files(source.path))]
    else:
        records = _parse_file(task, source.name, _READER.read_path(source.path))
    return _read_task_data(task, source.name, source.split, records)


def _load_bundled(task: str) -> TaskData:
    content = _READER.read_bundled(f"tasks/{task}.jsonl")
    data = _read_task_data(task, BUNDLED, BUNDLED, _parse_file(task, BUNDLED, content))
    if data.rejected:
        raise DataError(data.rejected[0].in_file(f"the bundled set of {task}"))
    return data


def _choose_source(task: str, path: Path) -> TaskSource:
    if not path.is_dir():
        return identify_file(task, path)
    source = find_source(task, path)
    if source is None:
        endings = ", ".join(known.ending for known in KNOWN_PATHS[task])
        raise DataError(
            f"{path} holds no data for {task}: it and {DEPTH} levels below it were searched for {endings}; give such a "
            "folder or the file itself."
        )
    return source


def _read_dialogue_file(index: int, path: Path) -> object:
    """Return the one record of a file, or `Rejected` if the file cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as err:
        return Rejected(index, f"{path.name} is not UTF-8 text: byte {err.start} is 0x{err.object[err.start]:02x}.")
    except json.JSONDecodeError as err:
        return Rejected(index, f"{path.name} is not JSON: line {err.lineno}, column {err.colno}: {err.msg}.")
    except (OSError, RecursionError, ValueError) as err:
        return Rejected(index, f"{path.name} cannot be read ({first_line(err)}).")


def _parse_file(task: str, source: str, content: bytes) -> list[object]:
    text = _READER.decode(source, content)
    if task == "ner" and is_column_file(text):
        return list(split_sentences(text))
    return _READER.parse_json(source, text) if is_json(text) else _parse_tsv(source, text)


def _parse_tsv(source: str, text: str) -> list[object]:
    """Split a TSV, in which quotes are ordinary characters: sentences of RTE and SST-2 hold unpaired ones."""
    header, *rows = (line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip(" \r"))
    if len(header) < 2:
        raise DataError(f"{source} is neither JSON nor a TSV: it starts with {header[0][:60]!r}; {_SHAPES}.")
    return _READER.table_records(source, header, rows, separator="\t", cure="a row has one cell per column")


def _read_task_data(task: str, source: str, split: str, records: Sequence[object]) -> TaskData:
    formats = TASK_FORMATS[task]
    known = f"known for {task}: {'; '.join(map(str, formats))}"
    task_format = _READER.choose_format(source, records, formats, known=known)
    return TaskData(task, source, split, *_READER.read_records(source, records, task_format))
