"""Files of records: from bytes to JSON values or table rows, and from those to facts or examples.

Facts (`workbench.data.facts`) and task data (`workbench.data.tasks.load`) are both read with a `RecordReader` and a
table of `RecordFormat`. The fields of the records identify the format, never the name of the file. A record that cannot
be used becomes a `Rejected` with its reason and the others load; a file that cannot be used raises an error.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Generic, TypeVar

from workbench.data.fields import FieldError, Record, describe_kind
from workbench.errors import DataError, RequestError

log = logging.getLogger(__name__)

BUNDLED = "bundled"  # the source that names the data in the package

_FIELDS_SHOWN = 12  # of a record in no known format

T = TypeVar("T")


@dataclass(frozen=True)
class Rejected:
    """A record that cannot be used."""

    index: int  # of the record in its file, from 0; a table's header and blank lines do not count
    reason: str  # one sentence, without the place

    def in_file(self, source: str) -> str:
        """Return the whole sentence: file, record, reason."""
        return f"{source}, {self}"

    def __str__(self) -> str:
        """Return the sentence without the file."""
        return f"record {self.index}: {self.reason}"


@dataclass(frozen=True)
class RecordFormat(Generic[T]):
    """A format of records and the function that reads one of them."""

    name: str
    fields: tuple[str, ...]  # that identify the format
    read: Callable[[Record], T]  # raises FieldError, RequestError or DataError with the reason
    recognizes: Callable[[Record], bool] | None = None  # replaces the test for `fields` where they do not suffice

    def matches(self, record: object) -> bool:
        """Return whether a record has this format."""
        if not isinstance(record, dict):
            return False
        return self.recognizes(record) if self.recognizes else set(self.fields) <= record.keys()

    def __str__(self) -> str:
        """Return the name and the fields."""
        return f"{self.name} ({', '.join(self.fields)})"


def find_format(formats: Iterable[RecordFormat[T]], record: object) -> RecordFormat[T] | None:
    """Return the first format that a record matches, or None."""
    return next((row for row in formats if row.matches(record)), None)


def read_record(record_format: RecordFormat[T], record: object) -> T:
    """Read one record.

    Parameters
    ----------
    record_format : RecordFormat
        The format of the file that holds the record.
    record : object
        The value from JSON, a table or the hub.

    Returns
    -------
    object
        What the format makes of the record: an edit request or an example of a task.

    Raises
    ------
    RequestError or DataError
        If the record cannot be used; the message is the reason.
    """
    if not isinstance(record, dict):
        raise FieldError(f"a record must be an object; it is {describe_kind(record)}.")
    return record_format.read(record)


def is_json(text: str) -> bool:
    """Return whether a text starts as a JSON array or object does."""
    return text.lstrip().startswith(("[", "{"))


@dataclass(frozen=True)
class RecordReader:
    """The steps of reading one kind of file, with the words and the error class for files that cannot be used."""

    content: str  # what such a file holds, "facts"
    item: str  # one of them, "fact"
    shapes: str  # which files can be read, as advice
    sources: str  # what may be given where a path is missing
    error: type[RequestError] | type[DataError]

    def read_path(self, path: Path) -> bytes:
        """Read a file; raise the error if it is missing or cannot be read."""
        try:
            return path.read_bytes()
        except FileNotFoundError as err:
            raise self.error(f"{path} does not exist; give {self.sources}.") from err
        except (OSError, ValueError) as err:
            cause = getattr(err, "strerror", None) or err
            raise self.error(f"{path} cannot be read ({cause}); give a file of {self.content}.") from err

    def read_bundled(self, name: str) -> bytes:
        """Read a file of ``workbench/data/bundled``; raise the error if the installation lacks it."""
        try:
            return resources.files("workbench.data").joinpath(BUNDLED, *name.split("/")).read_bytes()
        except OSError as err:
            raise self.error(f"bundled/{name} is missing from this installation; install it again.") from err

    def decode(self, source: str, content: bytes) -> str:
        """Decode UTF-8, with or without a byte order mark; raise the error if it is something else, or blank."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as err:
            raise self.error(
                f"{source} is not UTF-8 text: byte {err.start} is 0x{content[err.start]:02x}; save it as UTF-8."
            ) from err
        if not text.strip():
            raise self.error(f"{source} is empty; {self.shapes}.")
        return text

    def parse_json(self, source: str, text: str) -> list[object]:
        """Return the records of a JSON array, of one JSON value, or of JSON lines, where blank lines do not count.

        Raises
        ------
        RequestError or DataError
            If the text is none of these; the message names the line and column.
        """
        try:
            return _parse_array_or_lines(text)
        except json.JSONDecodeError as err:
            place = f"line {err.lineno}, column {err.colno}: {err.msg}"
            raise self.error(f"{source} is not JSON: {place}; {self.shapes}.") from err
        except RecursionError as err:
            raise self.error(f"{source} is nested too deeply for a file of {self.content}; {self.shapes}.") from err
        except ValueError as err:  # Python reads no number of more than 4300 digits
            raise self.error(f"{source} holds a number too long to read; write it as text.") from err

    def table_records(
        self, source: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, separator: str, cure: str
    ) -> list[object]:
        """Return one dictionary per row of a table, with the header's columns as keys.

        Parameters
        ----------
        source : str
            The file, for messages.
        header : sequence of str
            The names of the columns.
        rows : iterable of sequence of str
            The cells of each row below the header.
        separator : str
            What separates cells in the file.
        cure : str
            Advice for a row that is longer than the header.

        Returns
        -------
        list
            A dictionary per row, without the columns that the row is too short for, or `Rejected` where the row is
            longer than the header.

        Raises
        ------
        RequestError or DataError
            If two columns have the same name.
        """
        for column in header:
            if header.count(column) > 1:
                raise self.error(f"{source} has the column {column!r} {header.count(column)} times; give it once.")
        records: list[object] = []
        for index, row in enumerate(rows):
            beyond = separator.join(cell for cell in row[len(header) :] if cell)
            rejected = Rejected(index, f"{beyond!r} stands beyond the header's last column; {cure}.")
            records.append(rejected if beyond else dict(zip(header, row, strict=False)))
        return records

    def choose_format(
        self, source: str, records: Sequence[object], formats: Sequence[RecordFormat[T]], *, known: str
    ) -> RecordFormat[T]:
        """Return the format of most records: a missing field is the fault of one record, not another format.

        Parameters
        ----------
        source : str
            The file, for messages.
        records : sequence
            Values from JSON, a table or the hub.
        formats : sequence of RecordFormat
            The formats in the order in which a record is compared with them.
        known : str
            The list of known formats, for messages.

        Returns
        -------
        RecordFormat

        Raises
        ------
        RequestError or DataError
            If there is no record, or none in a known format.
        """
        if not records:
            raise self.error(f"{source} holds no {self.item}s; give at least one.")
        votes = Counter(row for record in records if (row := find_format(formats, record)))
        if not votes:
            raise self.error(f"{source} has {_describe_fields(records)}; {known}.")
        return votes.most_common(1)[0][0]

    def read_records(
        self, source: str, records: Sequence[object], record_format: RecordFormat[T]
    ) -> tuple[tuple[T, ...], tuple[Rejected, ...]]:
        """Read all records of a file.

        Parameters
        ----------
        source : str
            The file, for messages.
        records : sequence
            Values from JSON, a table or the hub; `Rejected` stands for a record that could not even be parsed.
        record_format : RecordFormat
            The format of all of them.

        Returns
        -------
        examples : tuple
            What the format makes of the usable records, in their order.
        rejected : tuple of Rejected
            The others; their number is logged as a warning.

        Raises
        ------
        RequestError or DataError
            If no record is usable.
        """
        examples: list[T] = []
        rejected: list[Rejected] = []
        for index, record in enumerate(records):
            if isinstance(record, Rejected):
                rejected.append(record)
                continue
            try:
                examples.append(read_record(record_format, record))
            except (RequestError, DataError) as err:
                rejected.append(Rejected(index, str(err)))
        if not examples:
            raise self.error(f"{source} has no usable {self.item} among {len(records)}; {rejected[0]}")
        if rejected:
            log.warning("%s: %d of %d records are left out; %s", source, len(rejected), len(records), rejected[0])
        return tuple(examples), tuple(rejected)


def _describe_fields(records: Sequence[object]) -> str:
    first = next((record for record in records if isinstance(record, dict)), records[0])
    if isinstance(first, Rejected):
        return f"no record that can be read: {first.reason.rstrip('.')}"
    if not isinstance(first, dict):
        return f"no objects: record 0 is {describe_kind(first)}"
    return f"fields of no known format: {', '.join(list(first)[:_FIELDS_SHOWN]) or 'none'}"


def _parse_array_or_lines(text: str) -> list[object]:
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError as err:
        # JSON lines are not JSON as a whole: a second object is "extra data" at the start of a later line. Any other
        # error belongs to the one value that the file holds.
        if not text.lstrip().startswith("{") or err.msg != "Extra data":
            raise
    # Only a line feed ends a line: JSON text may hold U+2028.
    lines = re.finditer(r"[^\n]+", text)
    return [_parse_line(text, line.start(), line.group()) for line in lines if line.group().strip()]


def _parse_line(text: str, start: int, line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as err:
        raise json.JSONDecodeError(err.msg, text, start + err.pos) from err
