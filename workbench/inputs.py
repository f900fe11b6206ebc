"""Checks of texts, lists and paths that users give, in one sentence."""

import os
from collections.abc import Iterable, Mapping, Set
from typing import Any

from workbench.errors import WorkbenchError

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes that file systems take


def require_text(value: object, name: str, error: type[WorkbenchError]) -> None:
    """Check that a value is a text that can be encoded.

    Parameters
    ----------
    value : object
        The value.
    name : str
        What it is, for the sentence.
    error : type
        The error to raise.

    Raises
    ------
    WorkbenchError
        If it is no text, or holds half of a surrogate pair, which no tokenizer and no file takes.
    """
    if not isinstance(value, str):
        raise error(f"{name} must be a text; got {shown(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise error(f"{name} {shown(value)} holds half of a surrogate pair at place {err.start}; remove it.") from err


def require_items(value: object, kind: type, name: str, error: type[WorkbenchError]) -> tuple[Any, ...]:
    """Return the items of a list.

    Parameters
    ----------
    value : object
        A list, tuple or other ordered collection.
    kind : type
        What each item must be.
    name : str
        What the list is, for the sentence.
    error : type
        The error to raise.

    Returns
    -------
    tuple

    Raises
    ------
    WorkbenchError
        If it is a single text, a mapping, a set or no collection, or an item is of another kind.
    """
    what = "texts" if kind is str else kind.__name__
    if isinstance(value, str):  # tuple() would split it into letters
        raise error(f"{name} must be a list of {what}; got the text {value!r}, write it in [ ].")
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping | Set):
        raise error(f"{name} must be a list of {what}; got {shown(value)}.")
    items = tuple(value)
    for item in items:
        if kind is str:
            require_text(item, f"an entry of {name}", error)
        elif not isinstance(item, kind):
            raise error(f"{name} must be a list of {what}; got {shown(item)} in it.")
    return items


def require_path(value: object, name: str, error: type[WorkbenchError]) -> None:
    """Check that a value names a file, a folder or a model.

    Parameters
    ----------
    value : object
        A text or a path.
    name : str
        What it is, for the sentence.
    error : type
        The error to raise.

    Raises
    ------
    WorkbenchError
        If it is neither, is empty, or holds a character or a name too long for a path.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise error(f"{name} must be a name or a path; got {shown(value)}.")
    try:
        parts = os.fsencode(text).replace(b"\\", b"/").split(b"/")
    except UnicodeEncodeError as err:  # half of a surrogate pair that stands for no byte of a file name
        raise error(f"{name} {shown(text)} holds half of a surrogate pair at place {err.start}; remove it.") from err
    if not text.strip() or "\0" in text:
        raise error(f"{name} must be a name or a path; got {shown(text)}.")
    if max(map(len, parts)) > LONGEST_NAME or sum(map(len, parts)) > LONGEST_PATH:
        raise error(f"{name} {shown(text)} is too long for a path; give a shorter one.")


def shown(value: object) -> str:
    """Return a value as a sentence shows it: what cannot be printed is escaped, and what is long is cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
