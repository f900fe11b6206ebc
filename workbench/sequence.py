"""EditSequence: edits of one model, each on top of the earlier ones.

The explorer, the experiment runner, `workbench edit --onto` and exported scripts all edit through this class. Between
calls the model is as it was loaded, bit for bit; whatever needs the edits applies their sum to the unedited weights.
Undoing an edit is therefore forgetting it, and sequences that share a model do not disturb each other.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.errors import EditError, RequestError
from workbench.inputs import require_items
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer, Unregularized, for_operation
from workbench.request import EditRequest
from workbench.sequence_parts import Guard, SavedSequence, SequenceEdit, load_sequence, require_method, save_sequence
from workbench.update import WeightUpdate

if TYPE_CHECKING:
    from workbench.editing.editor import Editor


class _State(NamedTuple):
    """The edits of a sequence and their sums, exchanged as a whole, so that an interrupt cannot part them."""

    edits: tuple[SequenceEdit, ...]
    base: WeightUpdate
    total: WeightUpdate
    accumulated: Regularizer | None  # of the total


class EditSequence:
    """Edits of one model, each computed on the sum of the earlier ones and regularized against it.

    What a method takes from a model once, such as context templates and second moments, comes from the unedited model.

    A second regularizer may treat the accumulated update W_t − W₀. Either only the model that is measured and saved has
    it, and edits are computed on the plain sum (PRUNE as published), or it is fed back: edit t + 1 is computed on, and
    added to, the regularized sum.

    Parameters
    ----------
    lm : LanguageModel
        The model; without applied updates whenever a method of this class is called.
    accumulated : Regularizer, optional
        Regularizer of the accumulated update, which compares it with the unedited weights; none by default.
    feed_back : bool
        Whether edits are computed on the accumulated update after its regularizer.
    start : WeightUpdate, optional
        Accumulated update of earlier edits, which is not regularized again where it is fed back.
    guard : Guard, optional
        Sees every edit of `edit` before it is added, and may refuse or repair it, such as `workbench.Guard()`.

    Raises
    ------
    UpdateError
        If `start` does not fit the model.
    """

    @checked
    def __init__(
        self,
        lm: LanguageModel,
        *,
        accumulated: Regularizer | None = None,
        feed_back: bool = False,
        start: WeightUpdate | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.lm = lm
        self.guard = guard
        self.feed_back = feed_back
        self._start = WeightUpdate({}) if start is None else start
        self._start.check_fits(lm)
        self._state = _State((), self._start, self._total_of(self._start, accumulated), accumulated)

    @property
    def edits(self) -> tuple[SequenceEdit, ...]:
        """The edits, first to last."""
        return self._state.edits

    @property
    def accumulated(self) -> Regularizer | None:
        """Regularizer of the accumulated update; `regularize_sum` sets it."""
        return self._state.accumulated

    @property
    def total(self) -> WeightUpdate:
        """Sum of the updates of all edits, after the regularizer of the accumulated update; empty without edits."""
        return self._state.total

    @property
    def base(self) -> WeightUpdate:
        """Accumulated update that the next edit is computed on: `total`, or the plain sum if it is not fed back."""
        return self._state.base

    def base_after(self, number: int) -> WeightUpdate:
        """Return the `base` of the first `number` edits, to which the next update was added; see `total_after`."""
        return self.base if number >= len(self.edits) else self._sums_after(number)[0]

    def total_after(self, number: int) -> WeightUpdate:
        """Return the `total` of the first edits.

        Only that of all edits is kept in memory; this one is added up again, in the same order.

        Parameters
        ----------
        number : int
            Number of edits, from 0.

        Returns
        -------
        WeightUpdate
        """
        return self.total if number >= len(self.edits) else self._sums_after(number)[1]

    @property
    def requests(self) -> tuple[EditRequest, ...]:
        """The facts of all edits, in order."""
        return tuple(request for edit in self.edits for request in edit.requests)

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

    def applied(self, upto: int | None = None) -> AbstractContextManager[LanguageModel]:
        """Apply the sum of the edits inside a ``with`` block, which binds the edited model, and undo it at the end.

        Parameters
        ----------
        upto : int, optional
            Number of edits to apply, from the first; all by default.

        Returns
        -------
        context manager

        Raises
        ------
        EditError
            If an update is applied to the model already.
        """
        return self._applied(self.total if upto is None else self.total_after(upto))

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
        require_method(method)
        requests = require_items(requests, EditRequest, "requests", RequestError)
        prepared = method.prepared(self.lm)
        with self._applied(self.base):
            update = prepared.compute_update(self.lm, list(requests))
        update.check_finite()
        return update

    @checked
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
            If the update does not fit the model, or is not finite before or after its regularizer.
        """
        computed.check_finite()
        if operation is None:
            earlier = sum(max(1, len(edit.update.records)) for edit in self.edits)
            operation = 1 + len(self._start.records) + earlier
        regularizer = for_operation(regularizer or Unregularized(), operation)
        with self._applied(self.base):
            computed.check_fits(self.lm)
            update = regularizer(computed, self.lm)
        update.check_finite()
        added = SequenceEdit(computed, regularizer, update, seconds)
        self._append(added)
        return added

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
            As in `compute`, or if the guard refuses the edit.
        """
        require_method(method)
        prepared = method.prepared(self.lm)
        start = time.perf_counter()
        computed = self.compute(requests, prepared)
        if self.guard is not None:
            with self._applied(self.base):
                computed, regularizer = self.guard.admit(computed, prepared, regularizer, self.lm)
        return self.add(computed, regularizer, seconds=time.perf_counter() - start)

    @checked
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
        edits = self.edits
        if not edits:
            raise EditError("there is no edit yet; make one first.")
        number = len(edits) if number is None else number
        if not 1 <= number <= len(edits):
            raise EditError(f"there is no edit {number}; the sequence has edits 1 to {len(edits)}.")
        base, total = self._sums_after(number - 1)
        self._state = _State(edits[: number - 1], base, total, self.accumulated)
        return edits[number - 1 :]

    @checked
    def regularize_sum(self, accumulated: Regularizer | None) -> None:
        """Set the regularizer of the accumulated update; no edit is computed again.

        Parameters
        ----------
        accumulated : Regularizer or None
            The new regularizer; None: none.

        Raises
        ------
        EditError
            If there are edits and the sum is fed back, so that they were computed under the old one.
        """
        if self.feed_back and self.edits:
            raise EditError(
                "the sum is fed back, so the edits depend on its regularizer; undo them before changing it."
            )
        total = self._total_of(self.base, accumulated)
        self._state = self._state._replace(total=total, accumulated=accumulated)

    def save(self, path: str | Path) -> None:
        """Write all edits to a safetensors file, atomically.

        Parameters
        ----------
        path : str or Path
            File to write; replaced if it exists.

        Raises
        ------
        UpdateError
            If the sum of earlier edits that the sequence starts from is not finite.
        """
        save_sequence(path, SavedSequence(self.edits, self._start, self.accumulated, self.feed_back))

    @classmethod
    @checked
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
        saved = load_sequence(path)
        sequence = cls(lm, start=saved.start, accumulated=saved.accumulated, feed_back=saved.feed_back)
        for edit in saved.edits:
            edit.update.check_fits(lm)
            sequence._append(edit)
        return sequence

    def _append(self, edit: SequenceEdit) -> None:
        base = self._base_with(self.base, edit.update)
        total = self._total_of(base, self.accumulated)
        self._state = _State((*self.edits, edit), base, total, self.accumulated)

    def _sums_after(self, number: int) -> tuple[WeightUpdate, WeightUpdate]:
        base = reduce(self._base_with, (edit.update for edit in self.edits[:number]), self._start)
        return base, self._total_of(base, self.accumulated)

    def _base_with(self, base: WeightUpdate, update: WeightUpdate) -> WeightUpdate:
        return self._regularize(base + update, self.accumulated) if self.feed_back else base + update

    def _total_of(self, base: WeightUpdate, accumulated: Regularizer | None) -> WeightUpdate:
        return base if self.feed_back else self._regularize(base, accumulated)

    def _regularize(self, total: WeightUpdate, accumulated: Regularizer | None) -> WeightUpdate:
        if accumulated is None or not len(total):
            return total
        self._check_unedited()
        return replace(total, changes=accumulated(total, self.lm).changes)  # records keep those of single edits

    def _applied(self, total: WeightUpdate) -> AbstractContextManager[LanguageModel]:
        self._check_unedited()
        # without edits nothing is applied, so that results count as those of the unedited model
        return total.applied(self.lm) if len(total) else nullcontext(self.lm)

    def _check_unedited(self) -> None:
        if self.lm.applied_updates:
            raise EditError(f"an update is applied to {self.lm.name}; undo it before editing in sequence.")
