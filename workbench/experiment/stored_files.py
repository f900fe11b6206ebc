"""The files of a store: which names they have, what each must hold, and the one reader of them all.

A file that lacks what its part of the store needs is as good as damaged, whatever its checksum says: it may come from
somewhere else.
"""

import math
import re
import tempfile
from collections.abc import Callable
from numbers import Real
from typing import Any

import pyarrow as pa

from workbench.storage.checksums import parse_object, parse_table
from workbench.storage.disk import disk_errors
from workbench.update import WeightUpdate

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_TRAJECTORY = {
    **dict.fromkeys(("trajectory", "model", "method", "hyperparameters", "regularizer", "setting"), _TEXT),
    **dict.fromkeys(("facts", "draw"), _TEXT),
    **dict.fromkeys(("batch_size", "seed", "operation"), _WHOLE),
}
RESULTS = pa.schema(
    {
        **_TRAJECTORY,
        "n_edits": _WHOLE,
        **dict.fromkeys(("task", "metric", "protocol", "source", "split", "moment", "parameter"), _TEXT),
        "at": _REAL,
        "value": _REAL,
        "n": _WHOLE,
        "low": _REAL,
        "high": _REAL,
    }
)
SCORES = pa.schema(
    {
        **_TRAJECTORY,
        "n_edits": _WHOLE,
        **dict.fromkeys(("task", "metric", "protocol", "source", "split", "moment"), _TEXT),
        "example": _WHOLE,  # index in the data of a task, or of the fact in the sequence
        "value": _REAL,
        "weight": _REAL,
    }
)
OPERATIONS = pa.schema(
    {
        **_TRAJECTORY,
        "subject": _TEXT,  # of the first fact of the operation
        "first_token": pa.bool_(),  # whether a subject of the operation is one token that opens its prompt
        **dict.fromkeys(("seconds", "norm", "relative_norm", "applied_norm", "spectral_ratio", "denominator"), _REAL),
        **dict.fromkeys(("probe_kl", "condition_growth"), _REAL),  # of `workbench.assess`
        "share_applied": _REAL,  # of the entries, after the regularizer
        "repair": _TEXT,  # by the guard: r-rome, prune, refused, or none
        **dict.fromkeys(("steps", "perplexity_unedited", "perplexity"), _REAL),
        "failed": _TEXT,
    }
)

SCHEMAS = {"results": RESULTS, "scores": SCORES, "operations": OPERATIONS}
TRAJECTORIES = "trajectories"

_NAME = re.compile(
    r"trajectories/[^/]+\.json"
    r"|(results|scores|operations|derived)/[^/]+/[^/]+\.parquet"
    r"|(measures|answers)/[^/]+\.parquet"
    r"|(edits|guards)/[^/]+\.(json|safetensors)"
    r"|updates/[^/]+\.safetensors"
)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_states(value: object) -> bool:
    return isinstance(value, dict) and all(
        re.fullmatch("[0-9]+", key) and isinstance(state, str) for key, state in value.items()
    )


_Rule = tuple[Callable[[object], bool], str]
_OBJECT: _Rule = (lambda value: isinstance(value, dict), "an object")
_A_TEXT: _Rule = (lambda value: isinstance(value, str), "a text")
_TEXT_OR_NULL: _Rule = (lambda value: value is None or isinstance(value, str), "a text or null")
_FLAG: _Rule = (lambda value: isinstance(value, bool), "true or false")
_SECONDS: _Rule = (_is_number, "a number")
_FIELDS: dict[str, dict[str, _Rule]] = {
    TRAJECTORIES: {
        **dict.fromkeys(("spec", "hyperparameters", "versions"), _OBJECT),
        **dict.fromkeys(("content", "method", "fingerprint"), _A_TEXT),
        "finished": _FLAG,
    },
    "edits": {"seconds": _SECONDS, "failed": _TEXT_OR_NULL},
    "guards": {
        **dict.fromkeys(("repair", "failed"), _TEXT_OR_NULL),
        "replaced": _FLAG,
        "regularizer": _OBJECT,
        "seconds": _SECONDS,
    },
}
_FIELDS_WHEN_FINISHED: dict[str, _Rule] = {"states": (_is_states, "a state for each checkpoint"), "seconds": _SECONDS}
_COLUMNS = {**dict.fromkeys(SCHEMAS, ("trajectory",)), "measures": ("metric", "value")}


def is_stored_file(name: str) -> bool:
    """Return whether a file has a name that the store gives; notes and files of the system have none, and are left."""
    return _NAME.fullmatch(name) is not None


def parse_file(name: str, content: bytes) -> Any:
    """Return what a file of a store holds.

    Parameters
    ----------
    name : str
        Its name in the store, which says what it must hold.
    content : bytes
        Its bytes.

    Returns
    -------
    dict, Table or WeightUpdate
        By the ending of the name: .json, .parquet or .safetensors.

    Raises
    ------
    ValueError
        If it lacks a field or a column, or one has another type, or its checksum is wrong.
    Exception
        Of many classes, by what else is wrong with it.
    """
    part, ending = name.partition("/")[0], name.rpartition(".")[2]
    if ending == "json":
        return _checked_object(part, parse_object(content))
    if ending == "parquet":
        return _checked_table(part, parse_table(content))
    return _parse_update(content)


def check_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a trajectory; raise `ValueError` unless it has all fields of one."""
    return _checked_object(TRAJECTORIES, record)


def _checked_object(part: str, content: dict[str, Any]) -> dict[str, Any]:
    fields = _FIELDS.get(part, {})
    if part == TRAJECTORIES and content.get("finished") is True:
        fields = fields | _FIELDS_WHEN_FINISHED
    for field, (is_right, phrase) in fields.items():
        if field not in content:
            raise ValueError(f"{field} is missing")
        if not is_right(content[field]):
            raise ValueError(f"{field} is not {phrase}")
    return content


def _checked_table(part: str, table: pa.Table) -> pa.Table:
    """Return a table, with the types of the schema; columns that files of earlier versions lack are left out."""
    for column in _COLUMNS.get(part, ()):
        if column not in table.column_names:
            raise ValueError(f"the column {column} is missing")
    if (schema := SCHEMAS.get(part)) is None:
        return table
    known = [field for field in schema if field.name in table.column_names]
    return table.select([field.name for field in known]).cast(pa.schema(known))


def _parse_update(content: bytes) -> WeightUpdate:
    with (
        disk_errors(tempfile.gettempdir(), variable="TMPDIR"),
        tempfile.NamedTemporaryFile(suffix=".safetensors") as file,
    ):
        file.write(content)
        file.flush()
        return WeightUpdate.load(file.name)
