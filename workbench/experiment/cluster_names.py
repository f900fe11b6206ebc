"""Names of clusters, checked before anything is loaded: local, local:N, local:auto, an address, a scheduler file."""

import json
import re
from pathlib import Path

from workbench.errors import SpecError, first_line
from workbench.inputs import require_path, shown

LOCAL = "local"
AUTO = "auto"
MOST_PROCESSES = 9999
_NUMBER = re.compile("[1-9][0-9]{0,3}")
_ADDRESS = re.compile(r"[a-z]+://(\[[0-9a-fA-F:]+\]|[\w.-]+)(:(?P<port>[0-9]{1,5}))?")
_LARGEST_PORT = 65535


def check_cluster(cluster: str) -> None:
    """Raise `SpecError` unless a text names a cluster.

    Parameters
    ----------
    cluster : str
        ``local``, ``local:N``, ``local:auto``, the address of a scheduler, or its scheduler file.

    Raises
    ------
    SpecError
        If it has none of these forms, or the file is not one that a scheduler has written.
    """
    require_path(cluster, "the cluster", SpecError)
    name, colon, number = cluster.partition(":")
    if "://" in cluster:
        if not _is_address(cluster):
            raise SpecError(f"cluster {shown(cluster)} is not an address such as tcp://host:8786.")
    elif name == LOCAL:
        if colon and number != AUTO and not is_count(number):
            raise SpecError(
                f"cluster {shown(cluster)}: the number of processes must be auto or a whole number from 1 to "
                f"{MOST_PROCESSES}, as in local:2."
            )
    else:
        _check_scheduler_file(cluster)


def is_count(number: str) -> bool:
    """Return whether a text is a number of processes."""
    return _NUMBER.fullmatch(number) is not None


def _is_address(text: str) -> bool:
    found = _ADDRESS.fullmatch(text)
    return found is not None and int(found["port"] or 0) <= _LARGEST_PORT


def _check_scheduler_file(cluster: str) -> None:
    path = Path(cluster)
    if not path.is_file():
        raise SpecError(
            f"cluster {shown(cluster)} is neither local, local:N, an address such as tcp://host:8786, nor an existing "
            "scheduler file; dask scheduler --scheduler-file writes one."
        )
    try:
        address = json.loads(path.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as err:
        raise SpecError(
            f"cluster {shown(cluster)} is not a scheduler file ({first_line(err)[:100]}); dask scheduler "
            "--scheduler-file writes one."
        ) from err
    if not isinstance(address, str) or not _is_address(address):
        raise SpecError(f"the scheduler file {shown(cluster)} holds no address but {shown(address)}; write it again.")
