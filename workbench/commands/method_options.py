"""From the options of a command to the editor that they describe."""

from collections.abc import Callable
from dataclasses import MISSING, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from workbench.commands.settings import parse_setting
from workbench.editing.editor import Editor
from workbench.errors import EditError, SpecError
from workbench.lm import LanguageModel
from workbench.parameters import Parameter, from_plain, parameters_of
from workbench.registry import make_editor, method_row


def fields_from(method: str, options: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Return the hyperparameters that short options and ``--set FIELD=VALUE`` give.

    Parameters
    ----------
    method : str
        Name of the method.
    options : dict
        Values of the short options by name; None where an option was not given.
    settings : list of str
        Texts after ``--set``, each ``FIELD=VALUE``.

    Returns
    -------
    dict
        Values by field; `settings` take precedence over `options`.

    Raises
    ------
    SpecError
        If the method has no such option or field, or a value is not of the field's type.
    """
    row = method_row(method)
    types = get_type_hints(row.editor, include_extras=True)
    known = parameters_of(row.editor)
    found: dict[str, Any] = {}
    for option, value in options.items():
        if value is None:
            continue
        if option not in row.options:
            raise SpecError(f"--{option} is not for {method}; its hyperparameters, for --set: {', '.join(known)}.")
        field = row.options[option]
        found[field] = (value,) if field == "layers" else value
    for text in settings:
        field, value = parse_setting(text)
        if field not in known:
            raise SpecError(f"{method} has no hyperparameter {field!r}; known: {', '.join(known)}.")
        _check_no_switch(known[field], value)
        found[field] = _typed(types[field], value, text)
    return found


def _check_no_switch(parameter: Parameter, value: Any) -> None:
    """Raise `EditError` for true and false where numbers are meant, which Python takes for 1 and 0."""
    kind = parameter.item.kind if parameter.item else parameter.kind
    values = value if isinstance(value, list) else [value]
    if kind in (int, float) and any(isinstance(each, bool) for each in values):
        parameter.check(from_plain(value))


def _typed(hint: Any, value: Any, text: str) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as err:
        raise SpecError(f"--set {text!r}: {err.errors()[0]['msg'].lower()}; got {value!r}.") from err
    except PydanticSchemaGenerationError as err:
        raise SpecError(f"--set {text!r}: this field cannot be set here; see --when and --regularizer.") from err


def choose_editor(
    method: str, hparams: Path | None, fields: dict[str, Any], seed: int
) -> Callable[[LanguageModel], Editor]:
    """Return a function from model to editor; whatever can be checked without the model is checked now.

    Parameters
    ----------
    method : str
        Name of the method.
    hparams : Path or None
        Hyperparameter file of EasyEdit; the preset for the model if None.
    fields : dict
        Hyperparameters that take precedence over both.
    seed : int
        Seed of methods that draw something.

    Returns
    -------
    callable

    Raises
    ------
    EditError
        If the file or a value cannot be used.
    SpecError
        If the method reads no such files.
    """
    row, cls = method_row(method), method_row(method).editor
    known = parameters_of(cls)
    fields = ({"seed": seed} if "seed" in known else {}) | fields
    if hparams is not None:
        if not hasattr(cls, "from_yaml"):
            raise SpecError(f"--hparams is not for {method}, which reads no hparams files of EasyEdit.")
        editor = replace(cls.from_yaml(hparams), **{**row.fields, **fields})
        _check_constraint(method, editor, str(hparams))
        return lambda lm: editor
    for name, value in fields.items():
        known[name].check(value)
    placeholders = {"layer": 0, "layers": (0,), "mom2_update_weight": 1.0}
    given = {name: value for name, value in placeholders.items() if name in known} | fields
    if all(field.name in given or field.default is not MISSING for field in dataclass_fields(cls)):
        _check_constraint(method, cls(**given), "--set")
    return lambda lm: make_editor(method, lm, fields)


def _check_constraint(method: str, editor: Editor, source: str) -> None:
    """Raise `EditError` if FT-L was asked for without a constraint, which is plain FT."""
    if method == "ft-l" and getattr(editor, "norm_constraint", None) is None:
        raise EditError(
            f"ft-l needs a norm_constraint, and {source} gives none; add --set norm_constraint=5e-4 or "
            "choose --method ft."
        )


def layers_from(text: str, *, example: str) -> tuple[int, ...]:
    """Return the blocks that ``--layers`` names, separated by commas; raise `EditError` if they are not numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as err:
        raise EditError(f"--layers must be numbers with commas between them, such as {example}; got {text!r}.") from err
