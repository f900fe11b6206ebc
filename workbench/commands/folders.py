"""Folders that commands make: refused before any work if they cannot be, and written whole or not at all."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.commands.printing import show
from workbench.errors import DiskError, UpdateError
from workbench.storage.folders import check_folder

if TYPE_CHECKING:
    from workbench.update import WeightUpdate


def check_folder_option(option: str, folder: Path, *, force: bool, needed: Iterable[Path] = ()) -> None:
    """Refuse a folder that cannot be made, or that is not empty and may not be replaced.

    Parameters
    ----------
    option : str
        Option that names the folder, such as ``"--out"``.
    folder : Path
        Folder to make.
    force : bool
        Whether a folder that is not empty may be replaced.
    needed : iterable of Path
        Files and folders that must not lie in it; neither may the working folder.

    Raises
    ------
    UpdateError
        If the folder cannot be made, or replacing it would delete something that is needed.
    """
    try:
        check_folder(folder, replace=True)
    except UpdateError as err:
        raise UpdateError(f"{option}: {err}") from err
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UpdateError(f"{option} {folder} is not empty; give another name, or --force to replace it.")
    for path in [Path.cwd(), *needed]:
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise UpdateError(f"{option} {folder} would replace {path}, which is needed; give another name.")


def write_option(option: str, path: Path, write: Callable[[], object]) -> None:
    """Call `write`, which makes what an option names; raise `UpdateError` or `DiskError` if it cannot be written."""
    from safetensors import SafetensorError

    try:
        write()
    except DiskError:
        raise
    except (OSError, SafetensorError, UnicodeEncodeError) as err:  # some libraries take only names in UTF-8
        raise UpdateError(f"{option} {path} could not be written ({err}); nothing is left of it.") from err


def write_peft(update: "WeightUpdate", folder: Path, *, force: bool) -> None:
    """Write the adapter that --peft asks for; raise `UpdateError` if there is none, or it cannot be written."""
    from workbench.peft_export import write_adapter

    write_option("--peft", folder, lambda: write_adapter(update.changes, update.model, folder, replace=force))


def show_saved(path: Path) -> None:
    """Show where a saved file or folder is, and its size."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    show(f"Saved to {path} ({file_size(sum(file.stat().st_size for file in files))}).")


def file_size(n_bytes: float) -> str:
    """Return a number of bytes in a unit that suits it, such as "10.4 kB"."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
