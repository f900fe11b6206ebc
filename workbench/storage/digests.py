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
    return hashlib.sha256(json.dumps(value, default=default, sort_keys=True).encode()).hexdigest()
