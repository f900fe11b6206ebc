"""Optional packages: each extra of the distribution adds some, and a missing one is named with its cure."""

from importlib.util import find_spec

from workbench.errors import MissingExtraError
from workbench.versions import DISTRIBUTION


def require_extra(module: str, extra: str) -> None:
    """Check that an optional package is installed, without importing it.

    Parameters
    ----------
    module : str
        The name by which the package is imported.
    extra : str
        The extra of the distribution that contains it.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if find_spec(module) is None:
        raise MissingExtraError(f"{module} is not installed; pip install '{DISTRIBUTION}[{extra}]' installs it.")
