"""Which figure was made from what, so that one whose causes have not changed is not made again."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from workbench.storage.files import write_atomically
from workbench.versions import library_versions

_LIBRARIES = ("workbench", "torch", "transformers", "numpy", "matplotlib")


@dataclass(frozen=True)
class Record:
    """What a run of a notebook left."""

    cause: str  # of `cause_of`
    files: dict[str, str]  # path to SHA-256
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries it was run with

    def holds(self, cause: str) -> bool:
        """Whether it was made from `cause`, and its files are there as it left them."""
        return self.cause == cause and all(digest(Path(path)) == found for path, found in self.files.items())


def cause_of(notebook: Path, parameters: dict[str, Any], earlier: Sequence[str]) -> str:
    """Hash of all that a figure hangs on: notebook, parameters, this package's source, versions, other figures.

    Parameters
    ----------
    notebook : Path
        The file.
    parameters : dict
        What it is run with.
    earlier : sequence of str
        Causes of the figures whose results it reads.

    Returns
    -------
    str
    """
    parts = [digest(notebook), parameters, list(earlier), _package(), list(_versions().values())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def record_run(path: Path, cause: str, files: Iterable[Path], seconds: float) -> None:
    """Write the record of a run.

    Parameters
    ----------
    path : Path
        Where.
    cause : str
        From `cause_of`.
    files : iterable of Path
        What it made.
    seconds : float
        How long it took.
    """
    record = Record(cause, {str(file): digest(file) for file in files}, round(seconds, 1), _versions())
    write_atomically(path, lambda scratch: Path(scratch).write_text(json.dumps(asdict(record), indent=1)))


def last_run(path: Path) -> Record | None:
    """The record at `path`; None if there is none that can be read."""
    try:
        return Record(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def digest(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _versions() -> dict[str, str]:
    return library_versions(*_LIBRARIES)


@cache
def _package() -> str:
    folder, content = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return content.hexdigest()
