"""Writing a figure: .png, .svg and the .csv of what is drawn, each whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure


def save_figure(figure: Figure, table: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write ``name.png``, ``name.svg`` and ``name.csv``.

    Parameters
    ----------
    figure : Figure
        What to draw.
    table : DataFrame
        The data drawn in it.
    folder : str or Path
        Made if it is not there.
    name : str
        File name without ending.

    Returns
    -------
    list of Path
        The three files.
    """
    folder = Path(folder)
    return [
        _write(folder / f"{name}.png", lambda path: figure.savefig(path, format="png", metadata={"Software": None})),
        _write(folder / f"{name}.svg", lambda path: figure.savefig(path, format="svg", metadata={"Date": None})),
        save_table(table, folder, name),
    ]


def save_table(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write ``name.csv`` into a folder, made if it is not there; numbers with six digits."""
    return _write(Path(folder) / f"{name}.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))


def _write(path: Path, write: Callable[[str], object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        write(scratch)
        Path(scratch).chmod(0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
    return path
