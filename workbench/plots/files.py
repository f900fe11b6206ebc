"""Writing a figure: .png, .svg and the .csv of what is drawn, each whole or not at all."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from workbench.storage.files import write_atomically


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
        write_atomically(
            folder / f"{name}.png", lambda path: figure.savefig(path, format="png", metadata={"Software": None})
        ),
        write_atomically(
            folder / f"{name}.svg", lambda path: figure.savefig(path, format="svg", metadata={"Date": None})
        ),
        save_table(table, folder, name),
    ]


def save_table(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write ``name.csv`` into a folder, made if it is not there; numbers with six digits."""
    return write_atomically(
        Path(folder) / f"{name}.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g")
    )
