"""The folder that exports must stay in, if the environment names one, as `workbench app` does for its pages."""

import os
from pathlib import Path

from workbench.errors import EditError

EXPORTS_VARIABLE = "WORKBENCH_EXPORTS"


def export_folder(given: str | Path) -> Path:
    """Return the folder to export into.

    Parameters
    ----------
    given : str or Path
        The folder that was asked for; ``~`` is the user's home.

    Returns
    -------
    Path
        Absolute, without links.

    Raises
    ------
    EditError
        If the environment variable WORKBENCH_EXPORTS is set, and the folder lies outside the folder that it names, or
        if it can be no folder's name.
    """
    try:
        folder = Path(given).expanduser().resolve()
    except (ValueError, RuntimeError, OSError) as err:  # NUL in the name, an unknown home, a circle of links
        raise EditError(f"{str(given)!r} is no folder to export into ({err}); choose another.") from err
    root = os.environ.get(EXPORTS_VARIABLE)
    if root and not folder.is_relative_to(Path(root).resolve()):
        raise EditError(f"exports are written inside {root} only; {folder} is elsewhere.")
    return folder
