"""EditSequence: edits of one model, each on top of the earlier ones.

The explorer, the experiment runner, `workbench edit --onto` and exported scripts all edit through this class. Between
calls the model is as it was loaded, bit for bit; whatever needs the edits applies their sum to the unedited weights.
Undoing an edit is therefore forgetting it, and sequences that share a model do not disturb each other.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.errors import EditError, UpdateError
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer, Unregularized, for_operation, from_settings, settings_of
from workbench.request import EditRequest
from workbench.update import PackedUpdate, WeightUpdate, load_tensors, pack_update, save_tensors, unpack_update

if TYPE_CHECKING:
    from workbench.editing.editor import Editor

FORMAT = "workbench-sequence-1"


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


class EditSequence:
    """Edits of one model, each computed on the sum of the earlier ones and regularized against it.

    What a method takes from a model once, such as context templates and second moments, comes from the unedited model.

    Parameters
    ----------
    lm : LanguageModel
        The model; without applied updates whenever a method of this class is called.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._edits: list[SequenceEdit] = []
        self._total = WeightUpdate({})

    @property
    def edits(self) -> tuple[SequenceEdit, ...]:
        """The edits, first to last."""
        return tuple(self._edits)

    @property
    def total(self) -> WeightUpdate:
        """Sum of the updates of all edits; empty without edits."""
        return self._total

    def total_after(self, number: int) -> WeightUpdate:
        """Return the sum of the updates of the first edits.

        Only the sum of all edits is kept in memory; this one is added up again, in the same order.

        Parameters
        ----------
        number : int
            Number of edits, from 0.

        Returns
        -------
        WeightUpdate
        """
        if number >= len(self._edits):
            return self._total
        return reduce(add, (edit.update for edit in self._edits[:number]), WeightUpdate({}))

    @property
    def requests(self) -> tuple[EditRequest, ...]:
        """The facts of all edits, in order."""
        return tuple(request for edit in self._edits for request in edit.requests)

    def keys(self, name: str) -> Tensor | None:
        """Return the keys that the edits write to in one parameter.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        Tensor (N, d_in) or None
            Keys of all edits in order; None if no edit has keys in that parameter.
        """
        keys = [record.keys[name] for record in self.total.records if name in record.keys]
        return torch.cat(keys) if keys else None

    @contextmanager
    def applied(self, upto: int | None = None) -> Iterator[LanguageModel]:
        """Apply the sum of the edits inside the ``with`` block, and undo it at the end.

        Parameters
        ----------
        upto : int, optional
            Number of edits to apply, from the first; all by default.

        Yields
        ------
        LanguageModel
            The edited model.

        Raises
        ------
        EditError
            If an update is applied to the model already.
        """
        self._check_unedited()
        if not self._edits[:upto]:  # nothing is applied, so that results count as those of the unedited model
            yield self.lm
        else:
            total = self._total if upto is None else self.total_after(upto)
            with total.applied(self.lm):
                yield self.lm

    def compute(self, requests: Sequence[EditRequest], method: "Editor") -> WeightUpdate:
        """Compute the update of one edit on the model with all earlier edits, without adding it.

        Parameters
        ----------
        requests : sequence of EditRequest
            The facts: one, or several for a method that edits batches.
        method : Editor
            The editing method.

        Returns
        -------
        WeightUpdate
            The update as the method computed it.

        Raises
        ------
        EditError
            If an update is applied to the model, or the edit cannot be computed.
        RequestError
            If a target has no tokens.
        UpdateError
            If the update is not finite.
        """
        self._check_unedited()
        prepared = method.prepared(self.lm)
        with self.applied():
            update = prepared.compute_update(self.lm, list(requests))
        update.check_finite()
        return update

    def add(
        self,
        computed: WeightUpdate,
        regularizer: Regularizer | None = None,
        *,
        seconds: float = 0.0,
        operation: int | None = None,
    ) -> SequenceEdit:
        """Add an update that was computed on the model with all earlier edits.

        Parameters
        ----------
        computed : WeightUpdate
            The update as the method computed it, or as it was saved.
        regularizer : Regularizer, optional
            Regularizer of the update; none by default. A random one draws other entries for every edit.
        seconds : float
            Time that it took to compute the update.
        operation : int, optional
            Number of the edit, from 1, for a regularizer that draws at random; by default that after the earlier edits,
            of which an update that was added as a sum counts as many as it has records.

        Returns
        -------
        SequenceEdit
            The new last edit.

        Raises
        ------
        UpdateError
            If the update does not fit the model.
        """
        if operation is None:
            operation = 1 + sum(max(1, len(edit.update.records)) for edit in self._edits)
        regularizer = for_operation(regularizer or Unregularized(), operation)
        with self.applied():
            computed.check_fits(self.lm)
            update = regularizer(computed, self.lm)
        self._append(SequenceEdit(computed, regularizer, update, seconds))
        return self._edits[-1]

    def edit(
        self, requests: Sequence[EditRequest], method: "Editor", regularizer: Regularizer | None = None
    ) -> SequenceEdit:
        """Compute and add one edit; if it fails, the sequence stays as it was.

        Parameters
        ----------
        requests : sequence of EditRequest
            The facts: one, or several for a method that edits batches.
        method : Editor
            The editing method.
        regularizer : Regularizer, optional
            Regularizer of the update; none by default.

        Returns
        -------
        SequenceEdit
            The new last edit.

        Raises
        ------
        EditError, RequestError, UpdateError
            As in `compute`.
        """
        prepared = method.prepared(self.lm)
        start = time.perf_counter()
        computed = self.compute(requests, prepared)
        return self.add(computed, regularizer, seconds=time.perf_counter() - start)

    def undo(self, number: int | None = None) -> tuple[SequenceEdit, ...]:
        """Remove an edit and all later ones, which were computed on top of it.

        Parameters
        ----------
        number : int, optional
            Number of the edit, from 1; the last edit by default.

        Returns
        -------
        tuple of SequenceEdit
            The removed edits, first to last.

        Raises
        ------
        EditError
            If there is no such edit.
        """
        if not self._edits:
            raise EditError("there is no edit yet; make one first.")
        number = len(self._edits) if number is None else number
        if not 1 <= number <= len(self._edits):
            raise EditError(f"there is no edit {number}; the sequence has edits 1 to {len(self._edits)}.")
        total = self.total_after(number - 1)
        removed = tuple(self._edits[number - 1 :])
        del self._edits[number - 1 :]
        self._total = total
        return removed

    def save(self, path: str | Path) -> None:
        """Write all edits to a safetensors file, atomically.

        Parameters
        ----------
        path : str or Path
            File to write; replaced if it exists.
        """
        tensors: dict[str, Tensor] = {}
        records: list[dict[str, Any]] = []
        for number, edit in enumerate(self._edits):
            parts = {}
            for part in ("computed", "update"):
                packed = pack_update(getattr(edit, part))
                tensors |= {f"{number} {part} {name}": tensor for name, tensor in packed.tensors.items()}
                parts[part] = packed.metadata
            records.append({**parts, "regularizer": settings_of(edit.regularizer), "seconds": edit.seconds})
        save_tensors(path, tensors, {"format": FORMAT, "edits": json.dumps(records)})

    @classmethod
    def load(cls, path: str | Path, lm: LanguageModel) -> "EditSequence":
        """Read a sequence that `save` wrote.

        Parameters
        ----------
        path : str or Path
            A file that `save` wrote.
        lm : LanguageModel
            The model that the edits were computed on.

        Returns
        -------
        EditSequence
            With the same edits; its total is the same, bit for bit.

        Raises
        ------
        UpdateError
            If the file is missing, damaged, not a saved sequence, or of another model.
        """
        metadata, tensors = load_tensors(path, FORMAT, "sequence")
        sequence = cls(lm)
        try:
            for number, record in enumerate(json.loads(metadata.get("edits", ""))):
                computed, update = (
                    unpack_update(PackedUpdate(_with_prefix(f"{number} {part} ", tensors), record[part]))
                    for part in ("computed", "update")
                )
                update.check_fits(lm)
                regularizer, seconds = from_settings(record["regularizer"]), float(record["seconds"])
                sequence._append(SequenceEdit(computed, regularizer, update, seconds))
        except (ValueError, TypeError, KeyError, RecursionError) as err:
            if isinstance(err, UpdateError):
                raise
            raise UpdateError(f"{path} is a damaged sequence ({err}); save it again.") from err
        return sequence

    def _append(self, edit: SequenceEdit) -> None:
        self._total = self._total + edit.update
        self._edits.append(edit)

    def _check_unedited(self) -> None:
        if self.lm.applied_updates:
            raise EditError(f"an update is applied to {self.lm.name}; undo it before editing in sequence.")


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
