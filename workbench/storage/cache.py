"""The cache folder, and values that are computed only where they are missing."""

import os
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

import platformdirs

from workbench.errors import DiskError

Key = TypeVar("Key")
Value = TypeVar("Value")


def cache_dir() -> Path:
    """Return the folder for downloaded and computed files: ``$WORKBENCH_CACHE``, else the user's cache folder.

    Raises
    ------
    DiskError
        If neither is known, as in a container whose user has no home.
    """
    if given := os.environ.get("WORKBENCH_CACHE"):
        return Path(given)
    try:
        return Path(platformdirs.user_cache_dir("workbench"))
    except RuntimeError as err:
        raise DiskError("no home folder is known, so there is no cache; set WORKBENCH_CACHE to a folder.") from err


def compute_missing(
    known: MutableMapping[Key, Value], keys: Sequence[Key], compute: Callable[[list[Key]], Iterable[Value]]
) -> list[Value]:
    """Return the value of each key; those that are missing in `known` are computed in one call and kept there.

    Parameters
    ----------
    known : mutable mapping
        Values that have been computed before. It may drop entries, as a bounded cache does.
    keys : sequence
        Keys whose values are wanted, in any order and with repetitions.
    compute : callable
        Function that takes the missing keys, each once and in order, and returns their values; not called if none
        is missing.

    Returns
    -------
    list
        The values, in the order of `keys`.
    """
    found = {key: known[key] for key in keys if key in known}
    if missing := [key for key in dict.fromkeys(keys) if key not in found]:
        computed = dict(zip(missing, compute(missing), strict=True))
        known.update(computed)
        found |= computed
    return [found[key] for key in keys]
