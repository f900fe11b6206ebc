"""Versions of the workbench and of the libraries that results depend on."""

from functools import cache
from importlib.metadata import version

DISTRIBUTION = "model-editing-workbench"  # its name on the package index; the import name is `workbench`


def workbench_version() -> str:
    """Return the version of the installed workbench."""
    return version(DISTRIBUTION)


@cache
def _version_of(name: str) -> str:
    """Return the version of a distribution, which takes milliseconds to read and stays while the process lives."""
    return workbench_version() if name == "workbench" else version(name)


def library_versions(*names: str) -> dict[str, str]:
    """Return the version of each named distribution; "workbench" means the workbench itself."""
    return {name: _version_of(name) for name in names}
