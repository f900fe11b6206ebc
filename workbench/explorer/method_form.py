"""Choosing a method and its hyperparameters, from its preset for the model."""

from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import ipywidgets as widgets

from workbench.errors import EditError
from workbench.explorer.widgets import LABEL, WIDE
from workbench.registry import METHODS, editor_class, variant_fields

if TYPE_CHECKING:
    from workbench.explorer.session import Session

LABELS = {
    "layer": "Layer",
    "layers": "Layers",
    "v_num_grad_steps": "Steps",
    "num_steps": "Steps",
    "steps": "Steps",
    "v_lr": "Learning rate",
    "lr": "Learning rate",
    "lr_scale": "Rate scale",
    "clamp_norm_factor": "Norm clamp",
    "mom2_adjustment": "Second moment",
    "mom2_update_weight": "λ of C",
    "norm_constraint": "Largest |ΔW|",
    "lambda_old": "λ old answer",
    "lambda_new": "λ new answer",
}
_ONE_FACT = {"batch_size", "facts_at_once"}  # which one fact has no use for
_NAMES = {"rome": "ROME", "r-rome": "R-ROME", "memit": "MEMIT", "kn": "KN", "mend": "MEND", "ft": "FT", "ft-l": "FT-L"}


class MethodForm(widgets.VBox):
    """The card with the method: disabled until there is a model."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._fields: dict[str, tuple[Any, widgets.Widget]] = {}  # name to type and widget
        names = [(_NAMES.get(name, name), name) for name in METHODS]
        self._method = widgets.Dropdown(options=names, description="Method", layout=WIDE, style=LABEL, disabled=True)
        self._preset = widgets.Button(description="Back to the preset", layout=WIDE, disabled=True)
        self._main = widgets.VBox()
        self._more = widgets.Accordion([widgets.VBox()], titles=("More hyperparameters",), selected_index=None)
        super().__init__([widgets.HTML("<h2>Method</h2>"), self._method, self._main, self._more, self._preset])
        self.add_class("wb-card")
        self._method.observe(lambda change: self._show_preset(), "value")
        self._preset.on_click(lambda button: self._show_preset())

    def attach(self, session: "Session") -> None:
        """Take the presets of a session's model."""
        self._session = session
        self._method.disabled = self._preset.disabled = False
        self._show_preset()

    def chosen(self) -> tuple[str, dict[str, Any]]:
        """The method and its hyperparameters, as the fields say.

        Raises
        ------
        EditError
            If a field's text is not of its type.
        """
        values = {name: _value(name, hint, widget.value) for name, (hint, widget) in self._fields.items()}
        return self._method.value, values

    def _show_preset(self) -> None:
        name = self._method.value
        editor = self._session.editor(name)
        hints = get_type_hints(editor_class(name))
        hidden = variant_fields(name).keys() | _ONE_FACT
        shown = [f.name for f in fields(editor) if f.name not in hidden and _is_simple(hints[f.name])]
        self._fields = {name: (hints[name], _widget(name, hints[name], getattr(editor, name))) for name in shown}
        self._main.children = [widget for name, (_, widget) in self._fields.items() if name in LABELS]
        rest = [widget for name, (_, widget) in self._fields.items() if name not in LABELS]
        self._more.children[0].children = rest
        self._more.layout.display = "" if rest else "none"


def _is_simple(hint: Any) -> bool:
    """Whether a line of text, a tick or a choice can say it."""
    kinds = {part for part in (get_args(hint) or (hint,)) if part is not NoneType}
    return (
        get_origin(hint) is Literal or hint == tuple[int, ...] or (len(kinds) == 1 and kinds <= {int, float, bool, str})
    )


def _widget(name: str, hint: Any, value: Any) -> widgets.Widget:
    label = LABELS.get(name, name.replace("_", " "))
    given = {"description": label, "tooltip": name, "layout": WIDE, "style": LABEL}
    if get_origin(hint) is Literal:
        return widgets.Dropdown(options=get_args(hint), value=value, **given)
    if hint is bool:
        return widgets.Checkbox(value=value, indent=False, description=f"{label} ({name})", layout=WIDE)
    return widgets.Text(value=_shown(value), **given)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "" if value is None else str(value)


def _value(name: str, hint: Any, given: Any) -> Any:
    """What a field's text stands for."""
    if hint is bool or get_origin(hint) is Literal:
        return given
    text, label = given.strip(), LABELS.get(name, name)
    if hint == tuple[int, ...]:
        return tuple(
            _number(label, int, part.strip(), "whole numbers with commas between them") for part in text.split(",")
        )
    if not text and NoneType in get_args(hint):
        return None
    [kind] = {part for part in (get_args(hint) or (hint,)) if part is not NoneType}
    return text if kind is str else _number(label, kind, text, "a whole number" if kind is int else "a number")


def _number(label: str, kind: type, text: str, wanted: str) -> Any:
    try:
        return kind(text)
    except ValueError as err:
        raise EditError(f"{label} must be {wanted}; got {text!r}.") from err
