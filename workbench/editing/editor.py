"""What every editing method is: hyperparameters that turn requests into an update."""

from pathlib import Path
from typing import ClassVar, Protocol, Self

from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate


class Editor(Protocol):
    """A frozen dataclass of hyperparameters; one class a method, one file each."""

    supports_batch: ClassVar[bool]  # whether several requests make one edit

    @property
    def label(self) -> str:
        """How tables and legends call it."""

    @classmethod
    def for_model(cls, lm: LanguageModel) -> Self:
        """Hyperparameters for a model: published or measured where known, else by a documented rule."""

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one of EasyEdit's hparams files."""

    def prepared(self, lm: LanguageModel) -> Self:
        """A copy with whatever is taken from the model once, before a sequence of edits."""

    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """The update that makes one edit; the model is not changed."""


def only_request(editor: Editor, requests: list[EditRequest]) -> EditRequest:
    """The request of a method that edits one fact an operation; raises `EditError` unless there is exactly one."""
    if len(requests) != 1:
        method = type(editor).__name__
        raise EditError(f"{method} edits one fact an operation; got {len(requests)} requests, apply them in sequence.")
    return requests[0]


def layers_phrase(editor: Editor) -> list[str]:
    """Where a method edits, in a list of one phrase, or none where its hyperparameters do not say."""
    if hasattr(editor, "layer"):
        return [f"layer {editor.layer}"]
    return [f"layers {', '.join(map(str, editor.layers))}"] if hasattr(editor, "layers") else []
