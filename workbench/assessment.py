"""Know before you apply: what an edit would do to a model, and a guard that refuses or repairs edits that break it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.editing.rome import ROME
from workbench.encoding import is_first_token
from workbench.errors import RiskError, SpecError
from workbench.evaluation.drift import divergence
from workbench.evaluation.perplexity import read_windows
from workbench.evaluation.row_updates import RowUpdates
from workbench.forward import compute_logits
from workbench.inputs import require_items
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer, Unregularized
from workbench.spectral import PRUNE
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate
from workbench.weightstats import condition_number, spectral_ratio

if TYPE_CHECKING:
    from workbench.editing.editor import Editor

LIMIT = 0.2  # nats per token; an edit that multiplies perplexity by 1.5 costs 0.41 per token
_PROBES, _WINDOW = 4, 16  # texts, and their tokens
_LONG = 2.0  # σ₁(ΔW)/σ₁(W) that is named as a reason
_SMALL = 1.0  # |uᵀk| that is named as a reason; ordinary subjects have 3 to 11 on the embedded models


@dataclass(frozen=True)
class Assessment:
    """What an update would do to the model that it is added to.

    Attributes
    ----------
    kl : float
        Mean KL(before ‖ after) per token, in nats, on 64 tokens of text that no other measure reads.
    spectral_ratio : float
        σ₁(ΔW)/σ₁(W), the largest over the matrices; W is the unedited weight.
    condition_growth : float
        Condition number of W + ΔW over that of W, for the matrix with the largest spectral ratio.
    denominator : float or None
        uᵀk of ROME, None for other methods.
    first_token : bool
        Whether a subject is one token that opens its prompt.
    limit : float
        KL above which the risk is high.
    """

    kl: float
    spectral_ratio: float
    condition_growth: float
    denominator: float | None
    first_token: bool
    limit: float = LIMIT

    @property
    def is_high(self) -> bool:
        """Whether the update moves the probe's predictions by more than the limit, or they are no numbers any more."""
        return not self.kl <= self.limit

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is unusual about the update, in a few words each; empty if nothing is."""
        found = []
        if self.first_token:
            found.append("the subject is one token that opens the prompt")
        if self.denominator is not None and abs(self.denominator) < _SMALL:
            found.append(f"uᵀk is {self.denominator:.2g}")
        if self.spectral_ratio > _LONG:
            found.append(f"σ₁(ΔW) is {self.spectral_ratio:.2g} times that of W")
        return tuple(found)

    @property
    def level(self) -> str:
        """The risk in one word, high or low."""
        return "high" if self.is_high else "low"

    @property
    def summary(self) -> str:
        """What the update does, and its reasons."""
        because = f"; {', '.join(self.reasons)}" if self.reasons else ""
        return f"predictions on other text move by {self.kl:.2g} nats a token{because}"

    def __str__(self) -> str:
        """Return the risk and its reasons as one line."""
        return f"{self.level} risk: {self.summary}"


REPAIRS: Mapping[str, str] = {
    "r-rome": "ROME with the averaged key in the denominator, too",
    "prune": "singular values above σ₁(W) restrained (PRUNE)",
}


@dataclass(frozen=True)
class Guard:
    """Refuse or repair edits whose risk is high, before they are added to an `EditSequence`.

    Attributes
    ----------
    limit : float
        KL per token, in nats, above which the risk is high.
    repairs : tuple of str
        What is tried, in this order, before an edit is refused: ``"r-rome"`` computes an edit of ROME again as R-ROME
        (Gupta et al. 2024; C-ROME of Yang et al. 2024 is the same edit), ``"prune"`` puts an update that has no
        regularizer through PRUNE (Ma et al. 2025). The first one with a low risk is taken; its record has the method
        and the regularizer.
    ask : callable, optional
        Called with the assessment where no repair helps; the edit is added as it is if it returns true.

    Raises
    ------
    SpecError
        If `limit` is not positive, or a repair is unknown.
    """

    limit: float = LIMIT
    repairs: tuple[str, ...] = ("r-rome", "prune")
    ask: Callable[[Assessment], bool] | None = None

    def __post_init__(self) -> None:
        _check_limit(self.limit)
        repairs = require_items(self.repairs, str, "repairs", SpecError)
        if unknown := [name for name in repairs if name not in REPAIRS]:
            raise SpecError(f"no repair {unknown[0]!r}; known: {', '.join(REPAIRS)}.")

    def admit(
        self, computed: WeightUpdate, editor: "Editor", regularizer: Regularizer | None, lm: LanguageModel
    ) -> tuple[WeightUpdate, Regularizer | None]:
        """Return the update to add, and its regularizer: those given, or repaired ones.

        Parameters
        ----------
        computed : WeightUpdate
            The update as the method computed it.
        editor : Editor
            The method that computed it, with its hyperparameters.
        regularizer : Regularizer or None
            Regularizer that the update is about to go through.
        lm : LanguageModel
            The model that it is about to be added to.

        Returns
        -------
        update : WeightUpdate
        regularizer : Regularizer or None

        Raises
        ------
        RiskError
            If the risk is high, no repair lowers it, and `ask` does not allow the edit.
        """
        given = assess((regularizer or Unregularized())(computed, lm), lm, limit=self.limit)
        if not given.is_high:
            return computed, regularizer
        for repair in self.repairs:
            repaired = _repaired(repair, computed, editor, regularizer, lm)
            if repaired is not None:
                update, other = repaired
                if not assess((other or Unregularized())(update, lm), lm, limit=self.limit).is_high:
                    return repaired
        if self.ask is not None and self.ask(given):
            return computed, regularizer
        subjects = ", ".join(repr(request.name) for record in computed.records for request in record.requests[:1])
        raise RiskError(f"the edit of {subjects} was not applied because of its {given}.", given)


def repairs_for(editor: "Editor", regularizer: Regularizer | None) -> tuple[str, ...]:
    """Return the repairs that an edit can have: names of `REPAIRS`, in the order in which a guard tries them.

    Parameters
    ----------
    editor : Editor
        The method that computed the edit: ``"r-rome"`` is for published ROME.
    regularizer : Regularizer or None
        The regularizer of the edit: ``"prune"`` is for an edit without one.

    Returns
    -------
    tuple of str
    """
    known = {
        "r-rome": isinstance(editor, ROME) and editor.variant != "r-rome",
        "prune": regularizer is None or regularizer == Unregularized(),
    }
    return tuple(name for name in REPAIRS if known[name])


def _repaired(
    repair: str, computed: WeightUpdate, editor: "Editor", regularizer: Regularizer | None, lm: LanguageModel
) -> tuple[WeightUpdate, Regularizer | None] | None:
    """Return the repaired update with its regularizer; None if the repair is not for this edit."""
    if repair not in repairs_for(editor, regularizer):
        return None
    if repair == "prune":
        return computed, PRUNE()
    requests = [request for record in computed.records for request in record.requests]
    return replace(cast(ROME, editor), variant="r-rome").compute_update(lm, requests), regularizer


@torch.no_grad()
@checked
def assess(update: WeightUpdate, lm: LanguageModel, *, limit: float = LIMIT) -> Assessment:
    """Measure what an update would do to the current model, for less than a twentieth of what ROME takes to compute it.

    Two forward passes over 64 tokens, from four articles that come with the package, tell whether predictions that have
    nothing to do with the fact move. The other numbers say why: published ROME divides by uᵀk, which is close to 0 for
    subjects of one token that open the prompt, and then ΔW is longer than W itself.

    Parameters
    ----------
    update : WeightUpdate
        The update of one edit, or a sum.
    lm : LanguageModel
        The model that it would be added to, with earlier edits if any are applied; not changed.
    limit : float
        KL per token, in nats, above which the risk is high.

    Returns
    -------
    Assessment

    Raises
    ------
    SpecError
        If `limit` is not positive.
    UpdateError
        If the update does not fit the model.
    """
    _check_limit(limit)
    update.check_fits(lm)
    before = _before(lm)
    with update.applied(lm):
        [after] = _probe(lm)
    return _assessment(update, lm, divergence(before, after), limit)


@torch.no_grad()
def assess_side_by_side(updates: Sequence[WeightUpdate], lm: LanguageModel) -> list[Assessment]:
    """Measure what each of several updates would do to the current model, all in one pass; no weight is written.

    Parameters
    ----------
    updates : sequence of WeightUpdate
        Updates of linear layers; see `RowUpdates.of` for the memory that they take.
    lm : LanguageModel
        The model that each of them would be added to, as for `assess`.

    Returns
    -------
    list of Assessment
        One per update; the divergence is that of `assess` up to rounding.

    Raises
    ------
    UpdateError
        If an update is of another model or not finite, or makes weights that are not.
    """
    before = _before(lm)
    afters = _probe(lm, updates)
    pairs = zip(updates, afters, strict=True)
    return [_assessment(update, lm, divergence(before, after), LIMIT) for update, after in pairs]


def _assessment(update: WeightUpdate, lm: LanguageModel, moved: Tensor, limit: float) -> Assessment:
    """Return the assessment of an update of the current model that moves the predictions at each probe by `moved`."""
    ratios = {name: spectral_ratio(WeightUpdate({name: change}), lm) for name, change in update.items()}
    requests = [request for record in update.records for request in record.requests]
    seen = [record.diagnostics for record in update.records]
    denominators = [float(diagnostics["denominator"]) for diagnostics in seen if "denominator" in diagnostics]
    return Assessment(
        kl=float(moved.mean()),
        spectral_ratio=max(ratios.values(), default=0.0),
        condition_growth=_condition_growth(update, lm, max(ratios, key=ratios.__getitem__)) if ratios else 1.0,
        denominator=min(denominators, key=abs, default=None),
        first_token=any(is_first_token(lm.tokenizer, request) for request in requests),
        limit=limit,
    )


def _check_limit(limit: float) -> None:
    if not isinstance(limit, Real) or not limit > 0:
        raise SpecError(f"limit must be a positive number; got {limit!r}.")


def _before(lm: LanguageModel) -> Tensor:
    """Return the log-probabilities (R, V) of the current model on the probe texts, kept while it is unedited."""
    return compute_missing(lm.unedited_memo("probe predictions"), ("before",), lambda _: _probe(lm))[0]


def _probe(lm: LanguageModel, updates: Sequence[WeightUpdate] = (WeightUpdate({}),)) -> list[Tensor]:
    """Return log-probabilities (R, V) of the next token on the probe texts with each of several updates."""
    known = lm.memo.section("probe texts")
    [texts] = compute_missing(known, ("rows",), lambda _: [read_windows(lm, "articles", window=_WINDOW, limit=_PROBES)])
    rows = [text for _ in updates for text in texts]
    with RowUpdates.of_each(lm, updates, len(texts)).running():
        logits = compute_logits(lm, rows, [range(len(row)) for row in rows])
    return list(logits.log_softmax(dim=-1).chunk(len(updates)))


def _condition_growth(update: WeightUpdate, lm: LanguageModel, name: str) -> float:
    known = lm.memo.section("condition numbers")
    [unedited] = compute_missing(known, (name,), lambda _: [condition_number(lm.unedited_weight(name))])
    W = lm.weight(name).double()
    before = condition_number(W) if lm.applied_updates else unedited
    after = condition_number(W + update.delta(name).to(W))
    return after / before if math.isfinite(before) else 1.0
