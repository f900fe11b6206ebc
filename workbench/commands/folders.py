"""Folders that commands make: refused before any work if they cannot be, and written whole or not at all."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.commands.printing import show
from workbench.errors import UpdateError
from workbench.storage.folders import check_folder

if TYPE_CHECKING:
    from workbench.update import WeightUpdate


def check_folder_option(option: str, folder: Path, *, force: bool, needed: Iterable[Path] = ()) -> None:
    """Refuse a folder that cannot be made, or that holds something to be kept.

    Parameters
    ----------
    option : str
        Which names the folder, such as "--out".
    folder : Path
        To be made.
    force : bool
        Whether a folder that holds something may be replaced.
    needed : iterable of Path
        Files and folders that must not lie in it; the working folder never may.

    Raises
    ------
    UpdateError
        If the folder cannot be made, or would take something along.
    """
    try:
        check_folder(folder, replace=True)
    except UpdateError as err:
        raise UpdateError(f"{option}: {err}") from err
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UpdateError(f"{option} {folder} holds something; give another name, or --force to replace it.")
    for path in [Path.cwd(), *needed]:
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise UpdateError(f"{option} {folder} would replace {path}, which is needed; give another name.")


def write_folder_option(option: str, folder: Path, write: Callable[[], object]) -> None:
    """Let `write` make the folder; raises `UpdateError` if the disk does not take it."""
    from safetensors import SafetensorError

    try:
        write()
    except (OSError, SafetensorError) as err:
        raise UpdateError(f"{option} {folder} could not be written ({err}); nothing is left of it.") from err


def write_peft(update: "WeightUpdate", folder: Path, *, force: bool) -> None:
    """Write the adapter that --peft asks for; raises `UpdateError` if there is none, or the disk does not take it."""
    from workbench.peft_export import write_adapter

    write_folder_option("--peft", folder, lambda: write_adapter(update, folder, replace=force))


def show_saved(path: Path) -> None:
    """Say where a file or folder lies, and how large it is."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    show(f"Saved to {path} ({file_size(sum(file.stat().st_size for file in files))}).")


def file_size(n_bytes: int) -> str:
    """A number of bytes for people, such as "10.4 kB"."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
