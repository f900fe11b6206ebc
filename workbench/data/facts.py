"""Fact files: from a JSON array, JSON lines or a CSV to edit requests, whatever data set they come from.

The format is told by the fields of the records, never by the file's name. A record that cannot be used is kept as a
`Rejected` with its reason and the others load; a file that cannot be used raises. `workbench.data.formats` says what
each format's fields mean.
"""

import csv
import io
import logging
import os
import random
from collections import Counter
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from workbench.data.formats import (
    CSV,
    CSV_COLUMN,
    CSV_COLUMNS,
    JSON_FORMATS,
    REQUIRED_FIELDS,
    FactFormat,
    format_of,
    kind_of,
)
from workbench.data.records import FileKind
from workbench.errors import RequestError
from workbench.request import PLACEHOLDER, EditRequest

log = logging.getLogger(__name__)

BUNDLED = "bundled"  # the source that names the set within the package

_SHAPES = "give a JSON array, JSON lines or a CSV with a header"
_FACTS = FileKind("facts", _SHAPES, RequestError)
_FIELDS_SHOWN = 12  # of a record in no known format


@dataclass(frozen=True)
class Rejected:
    """A record that cannot be used."""

    index: int  # of the record in its file, from 0; a CSV's header and blank lines do not count
    reason: str  # one sentence, without the place

    def in_file(self, source: str) -> str:
        """Return the whole sentence: file, record, reason."""
        return f"{source}, {self}"

    def __str__(self) -> str:
        """Return the sentence without the file."""
        return f"record {self.index}: {self.reason}"


@dataclass(frozen=True)
class FactSet:
    """The facts of one source, in its order; `len` counts the usable ones."""

    source: str  # "bundled", or the file's name
    format: str  # "native", "zsre", "counterfact", "counterfact-edit", "knowedit" or "csv"
    requests: tuple[EditRequest, ...]
    rejected: tuple[Rejected, ...]

    def __len__(self) -> int:
        """Return the number of usable requests."""
        return len(self.requests)

    def sample(self, n: int, *, seed: int) -> tuple[EditRequest, ...]:
        """Draw requests without replacement.

        With the same seed a smaller sample is the beginning of a larger one, so that a run of 5 edits and a run of
        10 share their first 5.

        Parameters
        ----------
        n : int
            How many.
        seed : int
            Of the draw.

        Returns
        -------
        tuple of EditRequest
            In the order drawn.

        Raises
        ------
        RequestError
            If there are not that many: edits past the end of a data set would repeat facts.
        """
        if not 1 <= n <= len(self):
            raise RequestError(
                f"{self.source} has {len(self)} usable facts and none is drawn twice: n must lie in 1 to {len(self)}; "
                f"got {n}."
            )
        return tuple(random.Random(seed).sample(self.requests, len(self))[:n])

    def with_words_before_subject(self) -> "FactSet":
        """Leave out the requests whose prompt opens with its subject.

        The first token of a text has a key unlike all others. Where it is the subject's last, published ROME divides
        by almost nothing, and a single edit moves the weights more than many others together.

        Returns
        -------
        FactSet
            The others, in their order.
        """
        return replace(self, requests=tuple(r for r in self.requests if not r.prompt.startswith(PLACEHOLDER)))


def load_facts(source: str | Path = BUNDLED) -> FactSet:
    """Load the bundled facts or a file of facts.

    Parameters
    ----------
    source : str or Path
        ``"bundled"``, or a file in any format that `read_facts` reads; a relative path that is not here is looked
        for in the folder ``$WORKBENCH_DATA``.

    Returns
    -------
    FactSet

    Raises
    ------
    RequestError
        As `bundled_facts` and `read_facts` do.
    """
    if source == BUNDLED:
        return bundled_facts()
    elsewhere = Path(os.environ.get("WORKBENCH_DATA", "."), source)
    return read_facts(elsewhere if elsewhere.is_file() and not Path(source).is_file() else source)


def bundled_facts() -> FactSet:
    """Load the project's own facts, written in the manner of ZsRE (Levy et al. 2017, arXiv 1706.04115).

    Returns
    -------
    FactSet
        With target_true, rephrasings and locality probes for every fact.

    Raises
    ------
    RequestError
        If the file is missing from the installation or any of its records is unusable.
    """
    file = resources.files("workbench.data").joinpath("bundled", "facts.jsonl")
    try:
        data = file.read_bytes()
    except OSError as err:
        raise RequestError("the bundled facts are missing from this installation; install it again.") from err
    facts = _fact_set(BUNDLED, data)
    if facts.rejected:
        raise RequestError(facts.rejected[0].in_file(BUNDLED))
    return facts


def read_facts(path: str | Path) -> FactSet:
    """Read a file of facts; its format is told by its content.

    - native (JSON array or JSON lines): `workbench.data.formats.read_native`
    - ZsRE, Levy et al. 2017 (arXiv 1706.04115), as MEND gives it: `read_zsre`
    - CounterFact, Meng et al. 2022 (arXiv 2202.05262): `read_counterfact`
    - CounterFact in EasyEdit's form, Yao et al. 2023 (arXiv 2305.13172): `read_counterfact_edit`
    - KnowEdit, Zhang et al. 2024 (arXiv 2401.01286): `read_knowedit`
    - CSV with a header: columns subject, prompt (with ``{}``) and target_new; if wanted target_true, relation,
      rephrase, locality_prompt and locality_target, the last three also several times as rephrase_1, rephrase_2,
      locality_prompt_1, locality_target_1 and so on. Commas part the columns; an empty cell is a missing value;
      cells lose surrounding blanks.

    Files are UTF-8, with or without a byte order mark. Where records differ in format, that of most records counts.

    Parameters
    ----------
    path : str or Path
        The file; ``~`` is the home folder.

    Returns
    -------
    FactSet
        The usable requests, and every record that is not with its reason.

    Raises
    ------
    RequestError
        If the file is missing, empty, not UTF-8, neither JSON nor CSV, of no known format, or without one usable
        record.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        raise RequestError(f"{path} is a folder; give one file of facts.")
    try:
        data = path.read_bytes()
    except FileNotFoundError as err:
        raise RequestError(f"{path} does not exist; give a file of facts or {BUNDLED!r}.") from err
    except (OSError, ValueError) as err:
        cause = getattr(err, "strerror", None) or err
        raise RequestError(f"{path} cannot be read ({cause}); give a file of facts.") from err
    return _fact_set(path.name, data)


def _fact_set(source: str, data: bytes) -> FactSet:
    text = _FACTS.decoded(source, data)
    if text.lstrip().startswith(("[", "{")):
        records = _FACTS.json_records(source, text)
        fact_format = _format_of_most(source, records)
    else:
        records = _csv_records(source, text)
        fact_format = CSV
    outcomes = [_outcome(fact_format, index, record) for index, record in enumerate(records)]
    requests = tuple(outcome for outcome in outcomes if isinstance(outcome, EditRequest))
    rejected = tuple(outcome for outcome in outcomes if isinstance(outcome, Rejected))
    if not requests:
        raise RequestError(f"{source} has no usable fact among {len(records)}; {rejected[0]}")
    if rejected:
        log.warning("%s: %d of %d records are left out; %s", source, len(rejected), len(records), rejected[0])
    return FactSet(source, fact_format.name, requests, rejected)


def _outcome(fact_format: FactFormat, index: int, record: object) -> EditRequest | Rejected:
    if not isinstance(record, dict):
        return Rejected(index, f"a record must be an object; it is {kind_of(record)}.")
    try:
        return fact_format.read(record)
    except RequestError as err:
        return Rejected(index, str(err))


def _format_of_most(source: str, records: list) -> FactFormat:
    objects = [record for record in records if isinstance(record, dict)]
    if not records:
        raise RequestError(f"{source} holds no records; give at least one fact.")
    if not objects:
        raise RequestError(f"{source} is not an array of objects: record 0 is {kind_of(records[0])}; {_SHAPES}.")
    votes = Counter(found.name for record in objects if (found := format_of(record)))
    if not votes:
        known = "; ".join(f"{row.name} ({row.fields})" for row in (*JSON_FORMATS, CSV))
        seen = ", ".join(list(objects[0])[:_FIELDS_SHOWN]) or "none"
        raise RequestError(f"{source} has fields of no known format: {seen}; known: {known}.")
    [(name, _)] = votes.most_common(1)
    return next(row for row in JSON_FORMATS if row.name == name)


def _csv_records(source: str, text: str) -> list[dict]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    rows = ([cell.strip() for cell in row] for row in reader)
    filled = (row for row in rows if any(row))
    try:
        header = next(filled, [])
        _check_header(source, header)
        records = [_row_record(header, row) for row in filled]
    except csv.Error as err:
        raise RequestError(f"{source} is not CSV: line {reader.line_num}: {err}; {_SHAPES}.") from err
    if not records:
        raise RequestError(f"{source} holds a header and no records; give at least one fact.")
    return records


def _row_record(header: list[str], row: list[str]) -> dict:
    beyond = ",".join(cell for cell in row[len(header) :] if cell)
    return {**dict(zip(header, row, strict=False)), "": beyond}


def _check_header(source: str, header: list[str]) -> None:
    missing = [column for column in REQUIRED_FIELDS if column not in header]
    if len(missing) == len(REQUIRED_FIELDS):
        start = ",".join(header)[:60]
        raise RequestError(
            f"{source} is neither JSON nor a CSV of facts: it starts with {start!r}; {_SHAPES} that names "
            f"{', '.join(REQUIRED_FIELDS)}."
        )
    if missing:
        raise RequestError(
            f"{source} lacks the column {missing[0]!r}: its header names {', '.join(header)}; a CSV of facts needs "
            f"{', '.join(REQUIRED_FIELDS)}."
        )
    for column in header:
        if not CSV_COLUMN.fullmatch(column):
            raise RequestError(f"{source} has the unknown column {column!r}; known: {', '.join(CSV_COLUMNS)}.")
        if header.count(column) > 1:
            raise RequestError(f"{source} has the column {column!r} {header.count(column)} times; give it once.")
