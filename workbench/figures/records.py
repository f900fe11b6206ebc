"""Records of notebook runs, by which a figure whose causes have not changed is not made again."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from workbench.storage.digests import sha256_of_file, sha256_of_json
from workbench.storage.files import write_atomically
from workbench.versions import library_versions

_LIBRARIES = ("workbench", "torch", "transformers", "numpy", "matplotlib", "seaborn")


@dataclass(frozen=True)
class Record:
    """The record of one run of a notebook.

    Attributes
    ----------
    cause : str
        Hash of everything that the figure depends on, from `cause_of`.
    files : dict of str to str
        SHA-256 of each file that it wrote, by path.
    seconds : float
        Duration of the run.
    versions : dict of str to str
        Versions of the libraries it was run with.
    """

    cause: str
    files: dict[str, str]
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)

    def is_current(self, cause: str) -> bool:
        """Whether the run had this cause and its files still have the content that it wrote."""
        return self.cause == cause and all(is_unchanged(Path(path), digest) for path, digest in self.files.items())


def cause_of(notebook: Path, parameters: dict[str, Any], earlier: Sequence[str]) -> str:
    """Return a hash of all that a figure depends on.

    These are the notebook, its parameters, the source of this package, the versions of libraries, and the figures whose
    results it reads.

    Parameters
    ----------
    notebook : Path
        The notebook.
    parameters : dict
        Parameters of the run.
    earlier : sequence of str
        Causes of the figures whose results it reads.

    Returns
    -------
    str
    """
    return sha256_of_json(
        [sha256_of_file(notebook), parameters, list(earlier), _package_digest(), list(_versions().values())]
    )


def record_run(path: Path, cause: str, files: Iterable[Path], seconds: float) -> None:
    """Write the record of a run.

    Parameters
    ----------
    path : Path
        File of the record.
    cause : str
        Hash from `cause_of`.
    files : iterable of Path
        Files that the run wrote.
    seconds : float
        Duration of the run.
    """
    record = Record(cause, {str(file): sha256_of_file(file) for file in files}, round(seconds, 1), _versions())
    write_atomically(path, lambda scratch: Path(scratch).write_text(json.dumps(asdict(record), indent=1)))


def last_run(path: Path) -> Record | None:
    """Return the record at `path`, or None if it is missing or cannot be read."""
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = [record.files, record.versions]
    are_texts = all(isinstance(each, dict) and all(isinstance(text, str) for text in each.values()) for each in texts)
    is_number = isinstance(record.seconds, int | float) and not isinstance(record.seconds, bool)
    is_whole = are_texts and isinstance(record.cause, str) and is_number and 0 <= record.seconds < math.inf
    return record if is_whole else None


def is_unchanged(path: Path, digest: str) -> bool:
    """Whether a file exists and has this SHA-256."""
    return path.is_file() and sha256_of_file(path) == digest


def _versions() -> dict[str, str]:
    return library_versions(*_LIBRARIES)


@cache
def _package_digest() -> str:
    folder, content = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return content.hexdigest()
