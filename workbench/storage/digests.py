"""SHA-256 digests of files and of JSON values."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def sha256_of_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits; the file is read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: object, *, default: Callable[[Any], object] | None = None) -> str:
    """Return the SHA-256 of a value written as JSON with sorted keys, 64 hexadecimal digits.

    Parameters
    ----------
    value : object
        Anything that `json.dumps` writes.
    default : callable, optional
        Function that turns a value that JSON does not know into one that it does.

    Returns
    -------
    str
    """
    return sha256_of_text(json_text(value, default=default))


def json_text(value: object, *, default: Callable[[Any], object] | None = None) -> str:
    """Return a value as the JSON that `sha256_of_json` hashes; the arguments are the same."""
    return json.dumps(value, default=default, sort_keys=True)


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
