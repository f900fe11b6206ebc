"""The parts of a sequence of edits: what may refuse an edit, the edits, and the file that holds them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from workbench.errors import ArgumentError, UpdateError
from workbench.inputs import shown
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer, from_settings, settings_of
from workbench.request import EditRequest
from workbench.storage.saved_tensors import load_tensors, save_tensors, with_prefix
from workbench.update import PackedUpdate, WeightUpdate, pack_update, unpack_update

if TYPE_CHECKING:
    from workbench.editing.editor import Editor

FORMAT = "workbench-sequence-1"
_PARTS = ("computed", "update")  # of an edit


class Guard(Protocol):
    """What may refuse or repair an edit before it is added; see `workbench.assessment.Guard`."""

    def admit(
        self, computed: WeightUpdate, editor: "Editor", regularizer: Regularizer | None, lm: LanguageModel
    ) -> tuple[WeightUpdate, Regularizer | None]:
        """Return the update to add and its regularizer, or raise `EditError`; `lm` has the earlier edits applied."""


def require_method(method: object) -> None:
    """Raise `ArgumentError` unless something is an editing method."""
    if not hasattr(method, "compute_update"):
        raise ArgumentError(f"method must be an editing method, such as ROME.for_model(lm); got {shown(method)}.")


@dataclass(frozen=True, eq=False)
class SequenceEdit:
    """One edit of a sequence.

    Attributes
    ----------
    computed : WeightUpdate
        The update as the method computed it, on the model with all earlier edits.
    regularizer : Regularizer
        The regularizer that it went through.
    update : WeightUpdate
        The regularized update.
    seconds : float
        Time to compute the update.
    """

    computed: WeightUpdate
    regularizer: Regularizer
    update: WeightUpdate
    seconds: float

    @property
    def requests(self) -> tuple[EditRequest, ...]:
        """The facts of the edit."""
        return tuple(request for record in self.computed.records for request in record.requests)


class SavedSequence(NamedTuple):
    """The edits of a sequence, the sum it starts from, the regularizer of its sum, and whether that is fed back."""

    edits: tuple[SequenceEdit, ...]
    start: WeightUpdate | None = None
    accumulated: Regularizer | None = None
    feed_back: bool = False


def save_sequence(path: str | Path, sequence: SavedSequence) -> None:
    """Write a sequence to a safetensors file, atomically; raise `UpdateError` if an update is not finite."""
    start, records = pack_update(sequence.start or WeightUpdate({})), []
    tensors = {f"start {name}": tensor for name, tensor in start.tensors.items()}
    for number, edit in enumerate(sequence.edits):
        parts = {}
        for part in _PARTS:
            packed = pack_update(getattr(edit, part))
            tensors |= {f"{number} {part} {name}": tensor for name, tensor in packed.tensors.items()}
            parts[part] = packed.metadata
        records.append({**parts, "regularizer": settings_of(edit.regularizer), "seconds": edit.seconds})
    sums = {
        "start": start.metadata,
        "accumulated": None if sequence.accumulated is None else settings_of(sequence.accumulated),
        "feed_back": sequence.feed_back,
    }
    save_tensors(path, tensors, {"format": FORMAT, "edits": json.dumps(records), "sums": json.dumps(sums)})


def load_sequence(path: str | Path) -> SavedSequence:
    """Read what `save_sequence` wrote; raise `UpdateError` if the file is missing, damaged, or of something else."""
    metadata, tensors = load_tensors(path, FORMAT, "sequence")
    try:
        records = json.loads(metadata.get("edits", ""))
        edits = tuple(_edit_of(number, record, tensors) for number, record in enumerate(records))
        sums = json.loads(metadata.get("sums", "null"))
        if sums is None:  # a file from before there were any
            return SavedSequence(edits)
        accumulated = sums["accumulated"]
        return SavedSequence(
            edits,
            unpack_update(PackedUpdate(with_prefix("start ", tensors), sums["start"])),
            None if accumulated is None else from_settings(accumulated),
            bool(sums["feed_back"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise UpdateError(f"{path} is a damaged sequence ({err}); save it again.") from err


def _edit_of(number: int, record: dict[str, Any], tensors: dict[str, Tensor]) -> SequenceEdit:
    computed, update = (
        unpack_update(PackedUpdate(with_prefix(f"{number} {part} ", tensors), record[part])) for part in _PARTS
    )
    return SequenceEdit(computed, from_settings(record["regularizer"]), update, float(record["seconds"]))
