"""The editing methods and the regularizers by name: one row each.

The command line, the explorer, experiment specs and the figures read these rows and nothing else, so that a row is all
it takes to add a method or a regularizer. Rows hold names and settings; the classes behind them are imported on first
use. Other packages add rows through the entry points ``workbench.methods`` and ``workbench.regularizers``.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar, cast

from workbench.arguments import checked
from workbench.errors import SpecError
from workbench.rows import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    MethodRow,
    RegularizerRow,
    SeriesStyle,
)

if TYPE_CHECKING:
    from workbench.editing.editor import Editor
    from workbench.lm import LanguageModel

_ROME_OPTIONS = {"layer": "layer", "steps": "v_num_grad_steps", "lr": "v_lr", "mom2": "mom2_adjustment"}
_MEMIT_OPTIONS = {"steps": "v_num_grad_steps", "lr": "v_lr"}
_FT_OPTIONS = {"layer": "layers", "steps": "num_steps", "lr": "lr"}

_METHODS = {
    row.name: row
    for row in (
        MethodRow(
            "rome",
            "ROME",
            "workbench.editing.rome:ROME",
            SeriesStyle(BLACK, "o", "-"),
            fields={"variant": "rome"},
            options={**_ROME_OPTIONS, "variant": "variant"},
        ),
        MethodRow(
            "r-rome",
            "R-ROME",
            "workbench.editing.rome:ROME",
            SeriesStyle(GRAY, "p", "--"),
            fields={"variant": "r-rome"},
            options=_ROME_OPTIONS,
        ),
        MethodRow(
            "memit",
            "MEMIT",
            "workbench.editing.memit:MEMIT",
            SeriesStyle(BLUE, "D", "-"),
            options=_MEMIT_OPTIONS,
        ),
        MethodRow(
            "memit-seq",
            "MEMIT-seq",
            "workbench.editing.memit:MEMIT",
            SeriesStyle(SKY, "^", "--"),
            fields={"remember": True},
            options=_MEMIT_OPTIONS,
        ),
        MethodRow(
            "encore",
            "ENCORE",
            "workbench.editing.memit:MEMIT",
            SeriesStyle(GREEN, "<", "-"),
            fields={"remember": True},
            preset="encore_for_model",
            options=_MEMIT_OPTIONS,
        ),
        MethodRow(
            "alphaedit",
            "AlphaEdit",
            "workbench.editing.alphaedit:AlphaEdit",
            SeriesStyle(VERMILION, "h", "--"),
            options=_MEMIT_OPTIONS,
        ),
        MethodRow(
            "emmet",
            "EMMET",
            "workbench.editing.emmet:EMMET",
            SeriesStyle(PURPLE, ">", "-"),
            options=_MEMIT_OPTIONS,
        ),
        MethodRow("kn", "KN", "workbench.editing.kn:KN", SeriesStyle(VERMILION, "X", "-.")),
        MethodRow("mend", "MEND", "workbench.editing.mend.editor:MEND", SeriesStyle(GREEN, "s", "--")),
        MethodRow(
            "ft",
            "FT",
            "workbench.editing.ft:FT",
            SeriesStyle(ORANGE, "P", "-."),
            fields={"norm_constraint": None},
            preset="unconstrained_for_model",  # plain FT was published at other layers than FT-L
            options=_FT_OPTIONS,
            update="full_rank",
        ),
        MethodRow(
            "ft-l",
            "FT-L",
            "workbench.editing.ft:FT",
            SeriesStyle(PURPLE, "v", "-."),
            options=_FT_OPTIONS,
            update="full_rank",
        ),
        MethodRow(
            "locft-bf",
            "LocFT-BF",
            "workbench.editing.ft:FT",
            SeriesStyle(YELLOW, "*", "-"),
            fields={"norm_constraint": None, "end_of_text": True},
            preset="locft_for_model",
            options=_FT_OPTIONS,
            update="full_rank",
        ),
        MethodRow(
            "ultraedit",
            "UltraEdit",
            "workbench.editing.ultraedit:UltraEdit",
            SeriesStyle(SKY, "d", "-."),
            options={"lr": "lr"},
        ),
        MethodRow("lora", "LoRA", "workbench.editing.lora:LoRA", SeriesStyle(GRAY, "8", ":"), options=_FT_OPTIONS),
    )
}

_REGULARIZERS = {
    row.name: row
    for row in (
        RegularizerRow(
            "none",
            "None",
            "workbench.regularize:Unregularized",
            "The update as the method computed it",
            {"Unregularized": SeriesStyle(BLACK, "o", "-")},
            keeps_rank=True,
        ),
        RegularizerRow(
            "rect",
            "RECT",
            "workbench.regularize:RECT",
            "Keep the entries with the largest relative change δ",
            {
                "RECT 80 %": SeriesStyle(SKY, "^", "-"),
                "RECT 60 %": SeriesStyle(GREEN, "s", "--"),
                "RECT 40 %": SeriesStyle(BLUE, "D", "--"),
                "RECT 20 %": SeriesStyle(PURPLE, "v", "-."),
            },
        ),
        RegularizerRow(
            "rect-energy",
            "RECT energy",
            "workbench.energy:EnergyRECT",
            "RECT with the share that holds a part of ‖ΔW‖²",
            {
                "RECT energy 90 %": SeriesStyle(ORANGE, "*", "-"),
                "RECT energy 95 %": SeriesStyle(GRAY, ">", "--"),
                "RECT energy 80 %": SeriesStyle(YELLOW, "p", ":"),
            },
        ),
        RegularizerRow(
            "random",
            "Random",
            "workbench.regularize:RandomK",
            "Keep entries drawn at random",
            {"Random 40 %": SeriesStyle(ORANGE, "P", "--")},
        ),
        RegularizerRow(
            "pca",
            "PCA",
            "workbench.regularize:PCAK",
            "Principal components, as in the paper's code",
            {"PCA 40 %": SeriesStyle(VERMILION, "X", "-.")},
        ),
        RegularizerRow(
            "prune",
            "PRUNE",
            "workbench.spectral:PRUNE",
            "Restrain singular values above the largest one of the weight",
            {"PRUNE": SeriesStyle(VERMILION, "h", "-")},
            keeps_rank=True,
        ),
        RegularizerRow(
            "sphere",
            "SPHERE",
            "workbench.spectral:SPHERE",
            "Remove what acts on the main input directions of the weight",
            {"SPHERE": SeriesStyle(GREEN, "<", "--")},
            keeps_rank=True,
        ),
    )
}


_Row = TypeVar("_Row", MethodRow, RegularizerRow)


def methods() -> dict[str, MethodRow]:
    """Return the rows of all methods by name: built-in, from other packages, and registered in this process."""
    return {**_METHODS, **cast("dict[str, MethodRow]", _from_entry_points("workbench.methods"))}


def regularizers() -> dict[str, RegularizerRow]:
    """Return the rows of all regularizers by name, like `methods`."""
    return {**_REGULARIZERS, **cast("dict[str, RegularizerRow]", _from_entry_points("workbench.regularizers"))}


def register_method(row: MethodRow) -> None:
    """Add a method for this process.

    Parameters
    ----------
    row : MethodRow
        The row to add.

    Raises
    ------
    SpecError
        If the name is taken.
    """
    _add(row, methods(), _METHODS)


def register_regularizer(row: RegularizerRow) -> None:
    """Add a regularizer for this process.

    Parameters
    ----------
    row : RegularizerRow
        The row to add.

    Raises
    ------
    SpecError
        If the name is taken.
    """
    _add(row, regularizers(), _REGULARIZERS)


def method_row(name: str) -> MethodRow:
    """Return the row of a method.

    Parameters
    ----------
    name : str
        Name of the method, such as ``"rome"``.

    Returns
    -------
    MethodRow

    Raises
    ------
    SpecError
        If there is no such method.
    """
    return _row_of(name, methods(), "method")


def regularizer_row(name: str) -> RegularizerRow:
    """Return the row of a regularizer.

    Parameters
    ----------
    name : str
        Name of the regularizer, such as ``"rect"``.

    Returns
    -------
    RegularizerRow

    Raises
    ------
    SpecError
        If there is no such regularizer.
    """
    return _row_of(name, regularizers(), "regularizer")


@checked
def make_editor(name: str, lm: "LanguageModel", fields: Mapping[str, Any] | None = None) -> "Editor":
    """Return a method with its preset for a model.

    Parameters
    ----------
    name : str
        Name of the method, such as ``"rome"``.
    lm : LanguageModel
        The model that will be edited.
    fields : mapping, optional
        Hyperparameters that replace those of the preset.

    Returns
    -------
    Editor

    Raises
    ------
    SpecError
        If there is no such method, or it has no such hyperparameter.
    EditError
        If the value of a hyperparameter is not allowed.
    """
    row = method_row(name)
    given = {**row.fields, **(fields or {})}
    row.check_fields(given)
    preset: Editor = getattr(row.editor, row.preset)(lm)
    return dataclasses.replace(preset, **given)


def series_styles() -> dict[str, dict[str, str]]:
    """Return the style of each method and regularizer by its label, as keyword arguments of matplotlib's `plot`."""
    by_label = {label: style for row in regularizers().values() for label, style in row.styles.items()}
    by_label |= {row.title: row.style for row in methods().values()}
    return {label: style.as_dict() for label, style in by_label.items()}


def _add(row: _Row, present: dict[str, _Row], rows: dict[str, _Row]) -> None:
    if row.name in present:
        raise SpecError(f"the name {row.name!r} is taken; choose another.")
    rows[row.name] = row


def _row_of(name: str, rows: dict[str, _Row], what: str) -> _Row:
    if name not in rows:
        raise SpecError(f"no {what} {name!r}; known: {', '.join(rows)}.")
    return rows[name]


@cache
def _from_entry_points(group: str) -> dict[str, MethodRow | RegularizerRow]:
    rows = [entry.load() for entry in entry_points(group=group)]
    return {row.name: row for row in rows}
