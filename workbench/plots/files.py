"""The files of a figure: .png, .svg and the .csv of its data, each written whole or not at all."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from workbench.plots.style import styled
from workbench.storage.files import check_file_name, write_atomically


def draw_and_save(
    draw: Callable[..., object],
    tables: pd.DataFrame | Sequence[pd.DataFrame],
    folder: str | Path,
    name: str,
    *,
    figsize: tuple[float, float],
    saved: pd.DataFrame | None = None,
    title: str = "",
) -> Figure:
    """Draw a figure in the workbench's style and write its files.

    Parameters
    ----------
    draw : callable
        Function that takes the tables and a Figure to draw on, such as `workbench.plots.curves.ability_curves`.
    tables : DataFrame or sequence of DataFrame
        The data to draw.
    folder : str or Path
        Folder of the files; created if it does not exist.
    name : str
        File name without ending.
    figsize : tuple of float
        Width and height in inches.
    saved : DataFrame, optional
        The table to write; by default the first that is drawn.
    title : str
        Title above all panels.

    Returns
    -------
    Figure
    """
    drawn = [tables] if isinstance(tables, pd.DataFrame) else list(tables)
    with styled():
        figure = Figure(figsize=figsize, layout="constrained")
        draw(*drawn, figure)
        if title:
            figure.suptitle(title)
        save_figure(figure, drawn[0] if saved is None else saved, folder, name)
    return figure


def on_one_axes(draw: Callable[..., object]) -> Callable[..., object]:
    """Return a function that draws on a Figure's only Axes, from one that takes tables and an Axes."""

    @wraps(draw)
    def draw_on_figure(*tables_and_figure: pd.DataFrame | Figure) -> object:
        *tables, figure = tables_and_figure
        assert isinstance(figure, Figure)
        return draw(*tables, figure.subplots())

    return draw_on_figure


def save_figure(figure: Figure, table: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write ``name.png``, ``name.svg`` and ``name.csv``.

    Parameters
    ----------
    figure : Figure
        The figure.
    table : DataFrame
        The data that the figure shows.
    folder : str or Path
        Folder of the files; created if it does not exist.
    name : str
        File name without ending.

    Returns
    -------
    list of Path
        The three files.

    Raises
    ------
    OutputError
        If the name holds a folder, or cannot name a file for another reason.
    """
    check_file_name(name)
    png, svg = Path(folder) / f"{name}.png", Path(folder) / f"{name}.svg"
    return [
        write_atomically(png, lambda path: figure.savefig(path, format="png", metadata={"Software": None})),
        write_atomically(svg, lambda path: figure.savefig(path, format="svg", metadata={"Date": None})),
        save_table(table, folder, name),
    ]


def save_table(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write ``name.csv``, numbers with six digits, to a folder, which is created if it does not exist.

    Parameters
    ----------
    table : DataFrame
        The table.
    folder : str or Path
        Folder of the file.
    name : str
        File name without ending.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If the name holds a folder, or cannot name a file for another reason.
    """
    return write_atomically(
        Path(folder) / f"{check_file_name(name)}.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g")
    )
