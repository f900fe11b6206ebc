"""Fact files: from a JSON array, JSON lines or a CSV to edit requests, whichever data set they come from.

`workbench.data.formats` says what the fields of each format mean.
"""

import csv
import io
import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.arguments import checked
from workbench.data.formats import CSV, CSV_COLUMN, CSV_COLUMNS, JSON_FORMATS, REQUIRED_FIELDS
from workbench.data.records import BUNDLED, RecordReader, Rejected, is_json
from workbench.errors import RequestError
from workbench.inputs import require_path
from workbench.request import PLACEHOLDER, EditRequest

_SHAPES = "give a JSON array, JSON lines or a CSV with a header"
BUNDLED_HARD = "bundled-hard"  # the source that names the package's facts of one-token subjects that open the prompt

BUNDLED_ALL = "bundled-all"  # the source that names both
_SOURCES = f"a file of facts, {BUNDLED!r}, {BUNDLED_HARD!r} or {BUNDLED_ALL!r}"
_READER = RecordReader("facts", "fact", _SHAPES, _SOURCES, RequestError)
_KNOWN = "known: " + "; ".join(map(str, (*JSON_FORMATS, CSV)))


@dataclass(frozen=True)
class FactSet:
    """The facts of one source, in its order; `len` counts the usable ones."""

    source: str  # "bundled", "bundled-hard", "bundled-all", or the file's name
    format: str  # "native", "zsre", "counterfact", "counterfact-edit", "knowedit" or "csv"
    requests: tuple[EditRequest, ...]
    rejected: tuple[Rejected, ...]

    def __len__(self) -> int:
        """Return the number of usable requests."""
        return len(self.requests)

    @checked
    def sample(self, n: int, *, seed: int) -> tuple[EditRequest, ...]:
        """Draw requests without replacement.

        With the same seed, a smaller sample is the beginning of a larger one, so a run of 5 edits and a run of 10
        share their first 5.

        Parameters
        ----------
        n : int
            Number of requests to draw.
        seed : int
            Seed of the draw.

        Returns
        -------
        tuple of EditRequest
            The requests in the order in which they were drawn.

        Raises
        ------
        RequestError
            If there are fewer than `n`: edits past the end of a data set would repeat facts.
        """
        if not 1 <= n <= len(self):
            raise RequestError(
                f"{self.source} has {len(self)} usable facts and none is drawn twice: n must lie in 1 to {len(self)}; "
                f"got {n}."
            )
        return tuple(random.Random(seed).sample(self.requests, len(self))[:n])

    def with_words_before_subject(self) -> "FactSet":
        """Leave out the requests whose prompt starts with its subject.

        The first token of a text has a key unlike all others. Where it is the last token of the subject, published
        ROME divides by almost nothing, and a single edit moves the weights more than many others together.

        Returns
        -------
        FactSet
            The remaining requests, in their order.

        Raises
        ------
        RequestError
            If none remains.
        """
        remaining = tuple(r for r in self.requests if not r.prompt.startswith(PLACEHOLDER))
        if not remaining:
            raise RequestError(
                f"every prompt of {self.source} starts with its subject; draw from another set, or do without words "
                "before the subject."
            )
        return replace(self, requests=remaining)


def load_facts(source: str | Path = BUNDLED) -> FactSet:
    """Load the bundled facts or a file of facts.

    Parameters
    ----------
    source : str or Path
        ``"bundled"``, ``"bundled-hard"``, ``"bundled-all"`` (both), or a file in any format that `read_facts` reads. A
        relative path that does not exist here is also looked for in the folder ``$WORKBENCH_DATA``.

    Returns
    -------
    FactSet

    Raises
    ------
    RequestError
        For the same reasons as in `load_bundled_facts`, `load_bundled_hard_facts` and `read_facts`.
    """
    require_path(source, "the source of facts", RequestError)
    if source == BUNDLED:
        return load_bundled_facts()
    if source == BUNDLED_HARD:
        return load_bundled_hard_facts()
    if source == BUNDLED_ALL:
        requests = load_bundled_facts().requests + load_bundled_hard_facts().requests
        return FactSet(BUNDLED_ALL, "native", requests, ())
    elsewhere = Path(os.environ.get("WORKBENCH_DATA", "."), source)
    return read_facts(elsewhere if elsewhere.is_file() and not Path(source).is_file() else source)


def load_bundled_facts() -> FactSet:
    """Load the project's own facts, written in the manner of ZsRE (Levy et al. 2017, arXiv 1706.04115).

    Returns
    -------
    FactSet
        Every fact has a target_true, rephrasings, locality probes and one-hop questions (Yao et al. 2023, arXiv
        2305.13172).

    Raises
    ------
    RequestError
        If the file is missing from the installation or any of its records is unusable.
    """
    return _read_bundled(BUNDLED, "facts.jsonl")


def load_bundled_hard_facts() -> FactSet:
    """Load the project's facts whose subject is one token that opens the prompt, such as "France has its capital in".

    Published ROME can ruin a model with a single fact of this kind (Yang et al. 2024, "The Fall of ROME", arXiv
    2406.11263), so they are kept apart from the other bundled facts. The subjects are one token for the tokenizers of
    SmolLM2 and Gemma 3.

    Returns
    -------
    FactSet
        With the same parts as the facts of `load_bundled_facts`; none of them is among those.

    Raises
    ------
    RequestError
        For the same reasons as in `load_bundled_facts`.
    """
    return _read_bundled(BUNDLED_HARD, "facts_hard.jsonl")


def read_facts(path: str | Path) -> FactSet:
    """Read a file of facts; its content identifies its format.

    - native (JSON array or JSON lines): `workbench.data.formats.read_native`
    - ZsRE, Levy et al. 2017 (arXiv 1706.04115), as MEND publishes it: `read_zsre`
    - CounterFact, Meng et al. 2022 (arXiv 2202.05262): `read_counterfact`
    - CounterFact in EasyEdit's form, Yao et al. 2023 (arXiv 2305.13172): `read_counterfact_edit`
    - KnowEdit, Zhang et al. 2024 (arXiv 2401.01286): `read_knowedit`
    - CSV with a header. The columns subject, prompt (with ``{}``) and target_new are required; target_true, relation,
      rephrase, locality_prompt, locality_target, portability_prompt and portability_target are optional. The last five
      may also be numbered: rephrase_1, rephrase_2, locality_prompt_1, locality_target_1 and so on. Commas separate the
      columns; an empty cell is a missing value; blanks around a cell are removed.

    Files are UTF-8, with or without a byte order mark. Where records differ in format, that of most records is used.

    Parameters
    ----------
    path : str or Path
        The file; ``~`` is the home folder.

    Returns
    -------
    FactSet
        The usable requests, and every other record with the reason why it is rejected.

    Raises
    ------
    RequestError
        If the file is missing, empty, not UTF-8, neither JSON nor CSV, of no known format, or without one usable
        record.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        raise RequestError(f"{path} is a folder; give one file of facts.")
    return _read_fact_set(path.name, _READER.read_path(path))


def _read_bundled(source: str, name: str) -> FactSet:
    facts = _read_fact_set(source, _READER.read_bundled(name))
    if facts.rejected:
        raise RequestError(facts.rejected[0].in_file(source))
    return facts


def _read_fact_set(source: str, content: bytes) -> FactSet:
    text = _READER.decode(source, content)
    if is_json(text):
        records = _READER.parse_json(source, text)
        fact_format = _READER.choose_format(source, records, JSON_FORMATS, known=_KNOWN)
    else:
        records = _parse_csv(source, text)
        fact_format = CSV
    return FactSet(source, fact_format.name, *_READER.read_records(source, records, fact_format))


def _parse_csv(source: str, text: str) -> list[object]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    filled = (cells for row in reader if any(cells := [cell.strip() for cell in row]))
    try:
        header = next(filled, [])
        _check_header(source, header)
        rows = list(filled)
    except csv.Error as err:
        raise RequestError(f"{source} is not CSV: line {reader.line_num}: {err}; {_SHAPES}.") from err
    records = _READER.table_records(source, header, rows, separator=",", cure="quote cells that hold commas")
    if not records:
        raise RequestError(f"{source} holds a header and no records; give at least one fact.")
    return records


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
