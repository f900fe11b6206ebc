"""The card that chooses a method and its hyperparameters, starting from its preset for the model."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.explorer.widgets import LABEL, WIDE
from workbench.parameters import Parameter, parameters_of
from workbench.registry import method_row, methods
from workbench.rows import MethodRow

if TYPE_CHECKING:
    from workbench.explorer.session import Session

# by short option of the method's row, or by name of the field
_LABELS = {
    "layer": "Layer",
    "layers": "Layers",
    "steps": "Steps",
    "lr": "Learning rate",
    "mom2": "Second moment",
    "lr_scale": "Rate scale",
    "clamp_norm_factor": "Norm clamp",
    "mom2_update_weight": "λ of C",
    "norm_constraint": "Largest |ΔW|",
    "lambda_old": "λ old answer",
    "lambda_new": "λ new answer",
}
_OF_BATCHES = {"batch_size", "facts_at_once"}  # without effect on an edit of one fact


class MethodForm(widgets.VBox):
    """The card with the method: disabled until there is a model."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._fields: dict[str, tuple[Parameter, widgets.Widget]] = {}
        names = [(row.title, row.name) for row in methods().values()]
        self._method = widgets.Dropdown(options=names, description="Method", layout=WIDE, style=LABEL, disabled=True)
        self._preset = widgets.Button(description="Back to the preset", layout=WIDE, disabled=True)
        self._main = widgets.VBox()
        self._more = widgets.Accordion([widgets.VBox()], titles=("More hyperparameters",), selected_index=None)
        super().__init__([widgets.HTML("<h2>Method</h2>"), self._method, self._main, self._more, self._preset])
        self.add_class("wb-card")
        self._method.observe(lambda change: self._show_preset(), "value")
        self._preset.on_click(lambda button: self._show_preset())

    def attach(self, session: "Session") -> None:
        """Use the presets for the model of `session`."""
        self._session = session
        self._method.disabled = self._preset.disabled = False
        self._show_preset()

    def read_choice(self) -> tuple[str, dict[str, Any]]:
        """Return the name of the method and its hyperparameters.

        Raises
        ------
        EditError
            If the text of a field is not a value that its hyperparameter allows.
        """
        values = {}
        for name, (parameter, widget) in self._fields.items():
            values[name] = _parse(parameter, widget.value)
            parameter.check(values[name])
        return self._method.value, values

    def set_layer(self, layer: int) -> None:
        """Put a layer into the field for one or several layers; without such a field, nothing changes."""
        for name in {"layer", "layers"} & self._fields.keys():
            self._fields[name][1].value = str(layer)

    def _show_preset(self) -> None:
        if self._session is None:
            return
        row = method_row(self._method.value)
        editor = self._session.editor(row.name)
        main: list[widgets.Widget] = []
        more: list[widgets.Widget] = []
        self._fields = {}
        for parameter in _shown(row):
            label = _label(row, parameter.name)
            shown = label or parameter.name.replace("_", " ")
            widget = _widget(parameter, shown, getattr(editor, parameter.name))
            self._fields[parameter.name] = (replace(parameter, name=shown), widget)
            (main if label else more).append(widget)
        if not main:  # a method whose hyperparameters have no labels
            main, more = more, []
        self._main.children = main
        self._more.children[0].children = more
        self._more.layout.display = "" if more else "none"


def _shown(row: MethodRow) -> Iterator[Parameter]:
    """Yield the hyperparameters that a line of text, a checkbox or a choice can show."""
    for parameter in parameters_of(row.editor).values():
        is_simple = parameter.kind in (int, float, bool, str) or (parameter.item and parameter.item.kind is int)
        if is_simple and parameter.name not in row.fields.keys() | _OF_BATCHES:
            yield parameter


def _label(row: MethodRow, name: str) -> str | None:
    """Return the label of a hyperparameter; None for those that are shown by their names."""
    option = next((option for option, field in row.options.items() if field == name), name)
    return _LABELS.get(name, _LABELS.get(option))


def _widget(parameter: Parameter, label: str, value: Any) -> widgets.Widget:
    about = f"{parameter.name}: {parameter.description}; " if parameter.description else f"{parameter.name} "
    traits = {"description": label, "tooltip": f"{about}must {parameter.phrase}", "layout": WIDE, "style": LABEL}
    if parameter.choices:
        return widgets.Dropdown(options=[*parameter.choices, *[None] * parameter.optional], value=value, **traits)
    if parameter.kind is bool:
        return widgets.Checkbox(value=value, indent=False, **traits | {"style": {}})
    return widgets.Text(value=_format(value), **traits)


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "" if value is None else str(value)


def _parse(parameter: Parameter, given: Any) -> Any:
    """Return the value that a text stands for; the text itself if it stands for none."""
    if parameter.choices or parameter.kind is bool:
        return given
    text = given.strip()
    if not text and parameter.optional:
        return None
    try:
        if parameter.item:
            return tuple(parameter.item.kind(part) for part in text.split(","))
        return parameter.kind(text)
    except ValueError:
        return text
