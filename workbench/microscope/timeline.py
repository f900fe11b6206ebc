"""A timeline: a model after each of its edits, whichever of them one looks at.

A timeline is made from the edits of an `EditSequence`, or read from a store, where it holds what the trajectory has
measured before. Moving to another edit adds up updates; nothing is computed again.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch

from workbench.analysis.units import change_of_likelihood
from workbench.arguments import checked
from workbench.errors import EditError
from workbench.evaluation.decoding import decode_text
from workbench.evaluation.edits import Probe
from workbench.evaluation.predictions import predict_probes
from workbench.experiment.replay import replay_trajectory
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.memo import BoundedCache
from workbench.microscope.held_out import HeldOut, measure_held_out
from workbench.regularize import Regularizer
from workbench.request import EditRequest
from workbench.sequence import EditSequence
from workbench.update import WeightUpdate
from workbench.weightstats import spectral_ratio

_SUMS_KEPT = 32  # a dense sum of the embedded model has 3.5 MB


@dataclass(frozen=True)
class EditSummary:
    """One edit of a timeline.

    Attributes
    ----------
    requests : tuple of EditRequest
        Its facts.
    norm : float
        ‖ΔW‖ of the edit as it was added; 0 if it failed.
    spectral_ratio : float
        σ₁(ΔW)/σ₁(W₀) of the edit.
    denominator : float or None
        uᵀk of ROME; None for other methods.
    """

    requests: tuple[EditRequest, ...]
    norm: float
    spectral_ratio: float
    denominator: float | None


@dataclass(frozen=True)
class Measured:
    """A model after `edits` edits.

    Attributes
    ----------
    edits : int
        Number of edits.
    held_out : HeldOut
        Perplexity, and KL from the unedited model, on held-out text.
    norm, relative_norm, spectral_ratio : float
        ‖W_t − W₀‖, the same over ‖W₀‖, and σ₁(W_t − W₀)/σ₁(W₀).
    reliability : tuple of float
        Teacher-forced reliability of each fact so far.
    answers : tuple of str
        What the model answers to the prompt of each: the most probable tokens in the places of those of the new answer,
        given the tokens of the new answer before.
    """

    edits: int
    held_out: HeldOut
    norm: float
    relative_norm: float
    spectral_ratio: float
    reliability: tuple[float, ...]
    answers: tuple[str, ...]


class Timeline:
    """The states of a model after 0, 1, …, n edits.

    Parameters
    ----------
    lm : LanguageModel
        The model, without applied updates whenever a method is called.
    updates : sequence of WeightUpdate
        Update of each edit as it was added; an empty one for an edit that failed.
    requests : sequence of tuple of EditRequest
        The facts of each edit.
    start : WeightUpdate, optional
        Accumulated update before the first edit.
    accumulated : Regularizer, optional
        Regularizer of the accumulated update.
    feed_back : bool
        Whether each update is added to the accumulated update after its regularizer.
    abilities : mapping of int to float, optional
        Change of the log-likelihood of reference answers of tasks, in nats per token, by number of edits, where a store
        has it.
    """

    def __init__(
        self,
        lm: LanguageModel,
        updates: Sequence[WeightUpdate],
        requests: Sequence[tuple[EditRequest, ...]],
        *,
        start: WeightUpdate | None = None,
        accumulated: Regularizer | None = None,
        feed_back: bool = False,
        abilities: Mapping[int, float] | None = None,
    ) -> None:
        self.lm = lm
        self.abilities = dict(abilities or {})
        self.requests = tuple(requests)
        self._updates, self._start = tuple(updates), WeightUpdate({}) if start is None else start
        self._accumulated, self._feed_back = accumulated, feed_back
        self._bases: BoundedCache[int, WeightUpdate] = BoundedCache(_SUMS_KEPT)
        self._totals: BoundedCache[int, WeightUpdate] = BoundedCache(_SUMS_KEPT)
        self._measured: dict[int, Measured] = {}

    def __len__(self) -> int:
        """Return the number of edits."""
        return len(self._updates)

    @property
    def measured(self) -> Mapping[int, Measured]:
        """What has been measured so far, by number of edits."""
        return dict(self._measured)

    def requests_until(self, edits: int) -> tuple[EditRequest, ...]:
        """Return the facts of the first edits, in order."""
        return tuple(request for each in self.requests[: self._check(edits)] for request in each)

    def total(self, edits: int) -> WeightUpdate:
        """Return W_t − W₀ after the first edits; with the same bits as the sequence that the timeline is made from.

        Parameters
        ----------
        edits : int
            Number of edits, from 0.

        Returns
        -------
        WeightUpdate

        Raises
        ------
        EditError
            If there are fewer edits, or an update is applied to the model.
        """
        if self.lm.applied_updates:
            raise EditError(f"an update is applied to {self.lm.name}; undo it before looking at the timeline.")
        base = self._base(self._check(edits))
        if self._accumulated is None or self._feed_back or not len(base):
            return base
        if edits not in self._totals:
            self._totals[edits] = self._regularize(base)
        return self._totals[edits]

    def state(self, edits: int) -> AbstractContextManager[LanguageModel]:
        """Apply the first edits inside a ``with`` block, and undo them at its end; raise `EditError` as `total`."""
        total = self.total(edits)
        # with nothing applied, results count as those of the unedited model
        return total.applied(self.lm) if len(total) else nullcontext(self.lm)

    def describe(self, edit: int) -> EditSummary:
        """Return what is known about one edit, from 1, without running the model."""
        update = self._updates[self._check(edit) - 1]
        denominators = [record.diagnostics.get("denominator") for record in update.records]
        return EditSummary(
            self.requests[edit - 1],
            update.norm(),
            spectral_ratio(update, self.lm),
            min((float(d) for d in denominators if d is not None), key=abs, default=None),
        )

    @torch.no_grad()
    def measure(self, edits: int) -> Measured:
        """Measure the model after the first edits, once.

        Parameters
        ----------
        edits : int
            Number of edits, from 0.

        Returns
        -------
        Measured

        Raises
        ------
        EditError
            If there are fewer edits, or an update is applied to the model.
        """
        if edits not in self._measured:
            total, requests = self.total(edits), self.requests_until(edits)
            with self.state(edits):
                facts = _ask_facts(self.lm, requests)
                held_out = measure_held_out(self.lm)
            sizes = total.norm(), total.relative_norm(self.lm), spectral_ratio(total, self.lm)
            self._measured[edits] = Measured(edits, held_out, *sizes, *facts)
        return self._measured[edits]

    def through(self, regularizer: Regularizer | None) -> "Timeline":
        """Return the timeline of the same edits whose sum goes through another regularizer, or through none."""
        return Timeline(self.lm, self._updates, self.requests, start=self._start, accumulated=regularizer)

    def _base(self, edits: int) -> WeightUpdate:
        nearest = max((n for n in self._bases if n <= edits), default=0)
        base = self._bases[nearest] if nearest else self._start
        for number in range(nearest, edits):
            base = base + self._updates[number]
            if self._feed_back:
                base = self._regularize(base)
            self._bases[number + 1] = base
        return base

    def _regularize(self, total: WeightUpdate) -> WeightUpdate:
        if self._accumulated is None or not len(total):
            return total
        return replace(total, changes=self._accumulated(total, self.lm).changes)

    def _check(self, edits: int) -> int:
        if not 0 <= edits <= len(self):
            raise EditError(f"there are {len(self)} edits; the timeline has no state after {edits}.")
        return edits


def _ask_facts(lm: LanguageModel, requests: Sequence[EditRequest]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return the teacher-forced reliability of each fact, and the answer in place of the new one."""
    probes = [Probe(i, "reliability", r.filled_prompt, r.target_new, None) for i, r in enumerate(requests)]
    found = predict_probes(lm, probes)
    hits = tuple(sum(a == b for a, b in zip(p.argmax, p.target_ids, strict=True)) / len(p.argmax) for p in found)
    return hits, tuple(decode_text(lm, p.argmax).strip() for p in found)


@checked
def timeline_of(sequence: EditSequence) -> Timeline:
    """Return the timeline of the current edits of a sequence; edits that are made or undone later are not in it.

    Parameters
    ----------
    sequence : EditSequence
        The edits.

    Returns
    -------
    Timeline
    """
    return Timeline(
        sequence.lm,
        [edit.update for edit in sequence.edits],
        [edit.requests for edit in sequence.edits],
        start=sequence.base_after(0),
        accumulated=sequence.accumulated,
        feed_back=sequence.feed_back,
    )


@checked
def unregularized_timeline_of(sequence: EditSequence) -> Timeline:
    """Return the sums of the updates of a sequence as the method computed them.

    They were computed on the model with the regularized ones, so this is not the sequence that would have been made
    without a regularizer.

    Parameters
    ----------
    sequence : EditSequence
        The edits.

    Returns
    -------
    Timeline
    """
    edits = sequence.edits
    return Timeline(
        sequence.lm,
        [edit.computed for edit in edits],
        [edit.requests for edit in edits],
        start=sequence.base_after(0),
    )


@checked
def read_timeline(store: Store, trajectory: str, lm: LanguageModel | None = None) -> Timeline:
    """Return the timeline of a stored trajectory, from its edits in the store.

    Parameters
    ----------
    store : Store
        The store.
    trajectory : str
        Key of a finished trajectory of sequential edits.
    lm : LanguageModel, optional
        Its model; by default it is loaded.

    Returns
    -------
    Timeline
        An edit that failed leaves the model as it was.

    Raises
    ------
    RunError
        If the store has no such trajectory, it is not finished or not sequential, or an edit is missing, as where the
        store was read from an archive, or `lm` is another model.
    ModelError
        If the model cannot be loaded.
    """
    replayed = replay_trajectory(store, trajectory, lm)
    changes = change_of_likelihood(store.scores([trajectory]))
    return Timeline(
        replayed.sequence.lm,
        [WeightUpdate({}) if each.edit is None else each.edit.update for each in replayed.operations],
        [each.requests for each in replayed.operations],
        accumulated=replayed.sequence.accumulated,
        feed_back=replayed.sequence.feed_back,
        abilities=dict(zip(changes.index.get_level_values("operation").tolist(), changes.tolist(), strict=True)),
    )
