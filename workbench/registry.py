"""The editing methods by the names that the command line and the notebooks use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbench.errors import SpecError

if TYPE_CHECKING:
    from workbench.editing.editor import Editor
    from workbench.lm import LanguageModel

# name: (module, class, fields that make this variant); imported on first use, since torch takes seconds
_METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rome": ("rome", "ROME", {"variant": "rome"}),
    "r-rome": ("rome", "ROME", {"variant": "r-rome"}),
    "memit": ("memit", "MEMIT", {}),
    "kn": ("kn", "KN", {}),
    "mend": ("mend.editor", "MEND", {}),
    "ft": ("ft", "FT", {"norm_constraint": None}),
    "ft-l": ("ft", "FT", {}),
}
_PRESETS = {"ft": "unconstrained_for_model"}  # else for_model: plain FT was published at other layers than FT-L
METHODS = tuple(_METHODS)


def editor_class(name: str) -> type["Editor"]:
    """The class of a method.

    Parameters
    ----------
    name : str
        One of `METHODS`.

    Returns
    -------
    type

    Raises
    ------
    SpecError
        If there is no such method.
    """
    if name not in _METHODS:
        raise SpecError(f"no method {name!r}; known: {', '.join(METHODS)}.")
    module, cls, _ = _METHODS[name]
    return getattr(import_module(f"workbench.editing.{module}"), cls)


def variant_fields(name: str) -> dict[str, Any]:
    """The fields that tell this name from others of the same class, such as R-ROME's variant."""
    editor_class(name)
    return dict(_METHODS[name][2])


def editor_for(name: str, lm: "LanguageModel", fields: dict[str, Any] | None = None) -> "Editor":
    """A method with its preset for a model.

    Parameters
    ----------
    name : str
        One of `METHODS`.
    lm : LanguageModel
        The model.
    fields : dict, optional
        Hyperparameters that win over the preset.

    Returns
    -------
    Editor

    Raises
    ------
    SpecError
        If there is no such method, or it has no such hyperparameter.
    EditError
        If a hyperparameter's value is not allowed.
    """
    from dataclasses import fields as fields_of
    from dataclasses import replace

    cls, given = editor_class(name), variant_fields(name) | (fields or {})
    known = [field.name for field in fields_of(cls)]
    if unknown := [field for field in given if field not in known]:
        raise SpecError(f"{name} has no hyperparameter {unknown[0]!r}; known: {', '.join(known)}.")
    return replace(getattr(cls, _PRESETS.get(name, "for_model"))(lm), **given)
