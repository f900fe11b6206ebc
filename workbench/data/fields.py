"""Typed access to the fields of a record.

A record is a JSON object, a row of a table, or a row of a data set on the hub. Each function returns a value of the
type it is named after, or raises a `FieldError` that names the field, what it must be, and what it is.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

from workbench.errors import DataError, RequestError

Record = dict[str, object]

_T = TypeVar("_T")
_MISSING = object()
_KINDS: dict[object, str] = {_MISSING: "missing", None: "null", True: "true", False: "false"}
_TYPE_KINDS: dict[type, str] = {str: "text", int: "a number", float: "a number", list: "an array", dict: "an object"}


class FieldError(RequestError, DataError):
    """A field of a record cannot be used, whether the record is a fact or a task's example."""


def get_text(record: Record, field: str, label: str | None = None) -> str:
    """Return the text in a field; `label` replaces the field's name in messages."""
    return check_text(record.get(field, _MISSING), label or field)


def get_array(record: Record, field: str) -> list[object]:
    """Return the array in a field."""
    return _check_type(record.get(field, _MISSING), list, field)


def get_object(record: Record, field: str) -> Record:
    """Return the object in a field."""
    return _check_type(record.get(field, _MISSING), dict, field)


def check_text(value: object, label: str) -> str:
    """Return a value that must be text, without half a surrogate pair (which UTF-8 cannot encode)."""
    text = _check_type(value, str, label)
    if re.search("[\ud800-\udfff]", text):
        raise FieldError(f"{label} {text!r} holds half a surrogate pair; write the whole character.")
    return text


def check_texts(values: Iterable[object], field: str) -> tuple[str, ...]:
    """Return the items of the array in `field`, which must be texts."""
    return tuple(check_text(value, f"{field}[{i}]") for i, value in enumerate(values))


def check_objects(values: Iterable[object], field: str) -> list[Record]:
    """Return the items of the array in `field`, which must be objects."""
    return [_check_type(value, dict, f"{field}[{i}]") for i, value in enumerate(values)]


def describe_kind(value: object) -> str:
    """Return the kind of a JSON value for a message, such as "an array"."""
    if value is _MISSING or value is None or isinstance(value, bool):
        return _KINDS[value]
    return _TYPE_KINDS.get(type(value), type(value).__name__)


def describe_value(record: Record, field: str) -> str:
    """Return the value of a field for a message: a text or number itself, the kind of any other."""
    value = record.get(field, _MISSING)
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return repr(value) if is_plain else describe_kind(value)


def _check_type(value: object, required: type[_T], label: str) -> _T:
    if not isinstance(value, required):
        raise FieldError(f"{label} must be {_TYPE_KINDS[required]}; it is {describe_kind(value)}.")
    return value
