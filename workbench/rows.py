"""What a method and a regularizer are to the rest of the workbench: a row each, and how their series are drawn."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

from workbench.errors import SpecError

if TYPE_CHECKING:
    from workbench.editing.editor import Editor
    from workbench.regularize import Regularizer

# Okabe and Ito's palette: safe for color-blind readers; markers and dashes tell the series apart in gray
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
GRAY = "#777777"


@dataclass(frozen=True)
class SeriesStyle:
    """How one series is drawn in every figure."""

    color: str
    marker: str
    linestyle: str

    def as_dict(self) -> dict[str, str]:
        """Return the style as keyword arguments of matplotlib's `plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.linestyle}


@dataclass(frozen=True)
class MethodRow:
    """One editing method, or one variant of it.

    Attributes
    ----------
    name : str
        Name on the command line and in experiment specs.
    title : str
        Name in tables, lists and legends; the `label` of the editor.
    implementation : str or type
        The editor class, or where to import it from, as ``"package.module:Class"``.
    style : SeriesStyle
        How the method is drawn in figures that compare methods.
    fields : mapping
        Hyperparameters that distinguish this variant from others of the same class.
    preset : str
        Class method that returns the preset for a model.
    options : mapping of str to str
        Hyperparameter set by each short option of ``workbench edit`` (``layer``, ``variant``, ``steps``, ``lr``,
        ``mom2``).
    update : {"low_rank", "full_rank"}
        Form of the updates it computes; only low-rank updates can be exported as PEFT adapters.
    """

    name: str
    title: str
    implementation: "str | type[Editor]"
    style: SeriesStyle
    fields: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "for_model"
    options: Mapping[str, str] = field(default_factory=dict)
    update: Literal["low_rank", "full_rank"] = "low_rank"

    @property
    def editor(self) -> "type[Editor]":
        """The editor class."""
        return cast("type[Editor]", _load(self.implementation))

    @property
    def supports_batch(self) -> bool:
        """Whether several requests can make one edit."""
        return self.editor.supports_batch

    @property
    def needs_subject(self) -> bool:
        """Whether it edits only facts whose subject is marked; true unless its class says otherwise."""
        return bool(getattr(self.editor, "needs_subject", True))

    def check_fields(self, names: Iterable[str]) -> None:
        """Raise `SpecError` unless the method has hyperparameters of these names."""
        known = [f.name for f in dataclasses.fields(self.editor)]
        if unknown := [name for name in names if name not in known]:
            raise SpecError(f"{self.name} has no hyperparameter {unknown[0]!r}; known: {', '.join(known)}.")


@dataclass(frozen=True)
class RegularizerRow:
    """One regularizer.

    Attributes
    ----------
    name : str
        Name on the command line.
    title : str
        Name in lists.
    implementation : str or type
        The regularizer class, or where to import it from, as ``"package.module:Class"``.
    description : str
        What it does, in one line.
    styles : mapping of str to SeriesStyle
        How it is drawn, by its `label`.
    keeps_rank : bool
        Whether a low-rank update stays low-rank, so that it can be exported as a PEFT adapter.
    """

    name: str
    title: str
    implementation: "str | type[Regularizer]"
    description: str
    styles: Mapping[str, SeriesStyle] = field(default_factory=dict)
    keeps_rank: bool = False

    @property
    def regularizer(self) -> "type[Regularizer]":
        """The regularizer class."""
        return cast("type[Regularizer]", _load(self.implementation))

    @property
    def kind(self) -> str:
        """Name of the class, which experiment specs and saved updates hold as ``kind``."""
        return _class_name(self.implementation)


def _load(implementation: str | type) -> type:
    if isinstance(implementation, type):
        return implementation
    module, _, name = implementation.partition(":")
    return cast(type, getattr(import_module(module), name))


def _class_name(implementation: str | type) -> str:
    return implementation.__name__ if isinstance(implementation, type) else implementation.partition(":")[2]
