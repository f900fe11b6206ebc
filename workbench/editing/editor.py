"""Editor: the interface of an editing method, and what all methods do in the same way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, asdict, is_dataclass
from typing import Annotated, Any, ClassVar, Protocol, Self

from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import SEED, parameters_of
from workbench.regularize import Regularizer, from_settings, settings_of
from workbench.request import EditRequest
from workbench.update import WeightUpdate

Contexts = Annotated[tuple[str, ...] | None, 'context templates, "{}" first; None: sampled from the model with `seed`']
ContextSeed = Annotated[int, SEED, "seed of the context templates"]


class Editor(Protocol):
    """A frozen dataclass of hyperparameters that turns edit requests into a weight update."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    supports_batch: ClassVar[bool]  # whether several requests can make one edit

    @property
    def label(self) -> str:
        """Name in tables and legends."""

    @classmethod
    def for_model(cls, lm: LanguageModel) -> Self:
        """Return the hyperparameters for a model: published or measured ones, or by a documented rule."""

    def prepared(self, lm: LanguageModel) -> Self:
        """Return a copy that holds whatever is taken from the unedited model once, before a sequence of edits."""

    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """Return the update that makes one edit; the model is not changed."""


def hyperparameters_of(editor: Editor) -> dict[str, Any]:
    """Return the hyperparameters of a method as JSON values, from which its class makes the same editor again."""
    values = asdict(editor)
    for name, value in values.items():
        field = getattr(editor, name)
        if isinstance(field, Regularizer):
            values[name] = settings_of(field)
        elif isinstance(value, tuple):
            values[name] = list(value)
    return values


def restore_fields(editor: Editor) -> None:
    """Replace the JSON values in the fields of a new editor, as `hyperparameters_of` returns them, by what they mean.

    Lists become tuples, and dictionaries the settings that the field is for, such as a `SecondMoment`.
    """
    for name, parameter in parameters_of(type(editor)).items():
        value = getattr(editor, name)
        if parameter.kind is tuple and isinstance(value, list):
            set_field(editor, name, tuple(value))
        elif isinstance(value, Mapping) and parameter.kind is Regularizer:
            set_field(editor, name, from_settings(value))
        elif isinstance(value, Mapping) and is_dataclass(parameter.kind):
            known = parameters_of(parameter.kind)
            if unknown := [key for key in value if key not in known]:
                raise EditError(f"{name} has no field {unknown[0]!r}; known: {', '.join(known)}.")
            set_field(editor, name, parameter.kind(**value))


def set_field(editor: Editor, name: str, value: object) -> None:
    """Set a field of a frozen editor that is being made."""
    object.__setattr__(editor, name, value)


def sort_layers(layers: Iterable[int]) -> tuple[int, ...]:
    """Return blocks in ascending order, each once; raise `EditError` if there is none."""
    if not (ordered := tuple(sorted(set(layers)))):
        raise EditError("layers must hold at least one block; got none.")
    return ordered


def require_one_request(editor: Editor, requests: Sequence[EditRequest]) -> EditRequest:
    """Return the request of a method that edits one fact per operation; raise `EditError` unless there is one."""
    if len(requests) != 1:
        method = type(editor).__name__
        raise EditError(f"{method} edits one fact per operation; got {len(requests)} requests, apply them in sequence.")
    return requests[0]


def require_subjects(editor: Editor, requests: Sequence[EditRequest]) -> None:
    """Raise `EditError` if a request has no subject, for a method that writes at the subject's last token."""
    for request in requests:
        if request.subject is None:
            raise EditError(
                f"{editor.label} writes at the subject of a fact, and {request.prompt!r} has none marked; name it."
            )


def require_requests(editor: Editor, requests: Sequence[EditRequest]) -> None:
    """Raise `EditError` if there are no requests."""
    if not requests:
        raise EditError(f"{editor.label} needs at least one request; got none.")


def describe_layers(editor: Editor) -> list[str]:
    """Return the layers that a method edits, as a list of one phrase; an empty list if no hyperparameter says so."""
    if hasattr(editor, "layer"):
        return [f"layer {editor.layer}"]
    if getattr(editor, "layers", ()) is None:
        return ["all layers"]
    return [f"layers {', '.join(map(str, editor.layers))}"] if hasattr(editor, "layers") else []
