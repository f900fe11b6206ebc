"""From the options of a command to the editor and the regularizer they describe."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from workbench.errors import EditError, SpecError

if TYPE_CHECKING:
    from workbench.editing.editor import Editor
    from workbench.lm import LanguageModel
    from workbench.regularize import Regularizer

# what an option is called among each method's hyperparameters
_OPTION_FIELDS = {
    "layer": {"rome": "layer", "r-rome": "layer", "ft": "layers", "ft-l": "layers"},
    "variant": {"rome": "variant"},
    "steps": dict.fromkeys(("rome", "r-rome", "memit"), "v_num_grad_steps")
    | dict.fromkeys(("ft", "ft-l"), "num_steps"),
    "lr": dict.fromkeys(("rome", "r-rome", "memit"), "v_lr") | dict.fromkeys(("ft", "ft-l"), "lr"),
    "mom2": {"rome": "mom2_adjustment", "r-rome": "mom2_adjustment"},
}


def fields_from(method: str, options: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Hyperparameters of a method, as options and ``--set FIELD=VALUE`` give them.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    options : dict
        By the names of the options; None where one was not given.
    settings : list of str
        Each ``FIELD=VALUE``.

    Returns
    -------
    dict
        Field to value; those of `settings` win.

    Raises
    ------
    SpecError
        If an option or a field is not the method's, or a value is not of its field's type.
    """
    from workbench.commands.regenerate import setting_from
    from workbench.registry import editor_class

    cls = editor_class(method)
    types = {name: hint for name, hint in get_type_hints(cls).items() if name in cls.__dataclass_fields__}
    found = {}
    for option, value in options.items():
        if value is None:
            continue
        if method not in _OPTION_FIELDS[option]:
            raise SpecError(f"--{option} is not for {method}; its hyperparameters, for --set: {', '.join(types)}.")
        field = _OPTION_FIELDS[option][method]
        found[field] = (value,) if field == "layers" else value
    for text in settings:
        field, value = setting_from(text)
        if field not in types:
            raise SpecError(f"{method} has no hyperparameter {field!r}; known: {', '.join(types)}.")
        found[field] = _typed(types[field], value, text)
    return found


def _typed(hint: Any, value: Any, text: str) -> Any:
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as err:
        raise SpecError(f"--set {text!r}: {err.errors()[0]['msg'].lower()}; got {value!r}.") from err
    except PydanticSchemaGenerationError as err:
        raise SpecError(f"--set {text!r}: this field cannot be set here; see --when and --regularizer.") from err


def choose_editor(
    method: str, hparams: Path | None, fields: dict[str, Any], seed: int
) -> Callable[["LanguageModel"], "Editor"]:
    """A function from model to editor; what can be checked without the model is checked now.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    hparams : Path or None
        EasyEdit's file; the model's preset otherwise.
    fields : dict
        Hyperparameters that win over both.
    seed : int
        For methods that draw something.

    Returns
    -------
    callable

    Raises
    ------
    EditError
        If the file or a value cannot be used.
    """
    from workbench.registry import editor_class, editor_for, variant_fields

    cls = editor_class(method)
    fields = ({"seed": seed} if "seed" in cls.__dataclass_fields__ else {}) | fields
    if hparams is not None:
        variant = variant_fields(method) if method in ("r-rome", "ft") else {}
        editor = replace(cls.from_yaml(hparams), **(variant | fields))
        _check_constraint(method, editor, str(hparams))
        return lambda lm: editor
    placeholders = {"layer": 0, "layers": (0,), "mom2_update_weight": 1.0}
    given = {name: value for name, value in placeholders.items() if name in cls.__dataclass_fields__} | fields
    _check_constraint(method, cls(**given), "--set")
    return lambda lm: editor_for(method, lm, fields)


def _check_constraint(method: str, editor: "Editor", source: str) -> None:
    """Raise `EditError` if FT-L was asked for and would be plain FT."""
    if method == "ft-l" and editor.norm_constraint is None:
        raise EditError(
            f"ft-l needs a norm_constraint, and {source} gives none; add --set norm_constraint=5e-4 or "
            "choose --method ft."
        )


def layers_from(text: str, *, example: str) -> tuple[int, ...]:
    """The blocks that ``--layers`` names, with commas between; raises `EditError` if they are no numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as err:
        raise EditError(f"--layers must be numbers with commas between them, such as {example}; got {text!r}.") from err


def choose_regularizer(name: str, keep: float | None, seed: int) -> "Regularizer":
    """The regularizer that ``--regularizer`` and ``--keep`` describe; raises `EditError` if they describe none."""
    if name == "none" and keep is not None:
        raise EditError(f"--keep {keep} has nothing to work on; choose --regularizer rect, random or pca.")
    from workbench.regularize import PCAK, RECT, RandomK, Unregularized

    settings = {} if keep is None else {"keep": keep}
    match name:
        case "rect":
            return RECT(**settings)
        case "random":
            return RandomK(**settings, seed=seed)
        case "pca":
            return PCAK(**settings)
    return Unregularized()
