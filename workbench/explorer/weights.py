"""What an edit does to the weights: the tables behind the explorer's figures, and the one that grows with its edits."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from workbench.lm import LanguageModel
from workbench.regularize import RECT, Regularizer
from workbench.selection import kth_largest, quantiles
from workbench.update import WeightUpdate
from workbench.weightstats import (
    TABLE1_QUANTILES,
    block_maxima,
    relative_change,
    relative_change_histogram,
    share_above,
)

AT_MOST = 1 << 20  # entries that the histogram of a larger matrix looks at


@dataclass(frozen=True)
class Kept:
    """What a regularizer leaves of an update, over all its matrices.

    Attributes
    ----------
    entries, total : int
        Entries with ΔW ≠ 0, and all.
    norm_share : float
        ‖ΔW‖² after over before.
    """

    entries: int
    total: int
    norm_share: float

    @property
    def share(self) -> float:
        """Share of all entries, from 0 to 1."""
        return self.entries / self.total


@dataclass(frozen=True)
class WeightView:
    """One matrix of an update, as the figures show it.

    Attributes
    ----------
    name : str
        The parameter.
    maxima : DataFrame
        From `block_maxima`, of the update that is applied.
    limits : tuple of float
        Of the color scale: those of the update before it was regularized.
    histogram : DataFrame
        Columns kind ("all" before regularization, "kept" after), low, high, share (of all entries; those with ΔW = 0
        are in no bin).
    threshold : float or None
        The smallest δ that RECT keeps; None for other regularizers.
    """

    name: str
    maxima: pd.DataFrame
    limits: tuple[float, float]
    histogram: pd.DataFrame
    threshold: float | None


def kept_of(raw: WeightUpdate, update: WeightUpdate) -> Kept:
    """How much of `raw` is left in `update`."""
    before = [raw.delta(name) for name in raw]
    after = [update.delta(name) for name in raw]
    norms = [
        sum(float(torch.linalg.vector_norm(dW, dtype=torch.float64)) ** 2 for dW in part) for part in (before, after)
    ]
    entries = sum(int(torch.count_nonzero(dW)) for dW in after)
    return Kept(entries, sum(dW.numel() for dW in after), norms[1] / norms[0] if norms[0] else 0.0)


def weight_view(
    lm: LanguageModel, raw: WeightUpdate, update: WeightUpdate, regularizer: Regularizer, name: str
) -> WeightView:
    """One matrix of an update, as the figures show it.

    Parameters
    ----------
    lm : LanguageModel
        With the weights that the update is added to.
    raw, update : WeightUpdate
        Before and after regularization.
    regularizer : Regularizer
        What made the one of the other.
    name : str
        The parameter.

    Returns
    -------
    WeightView
    """
    positive = (maxima := block_maxima(raw, name))["value"]
    positive = positive[positive > 0]
    limits = (float(positive.quantile(0.01)), float(positive.max())) if len(positive) else (1e-9, 1e-8)
    if limits[0] == limits[1]:
        limits = (limits[1] / 10, limits[1])
    before = relative_change_histogram(raw, name, lm, zeros=False, at_most=AT_MOST).assign(kind="all")
    same = update is raw
    after = before if same else relative_change_histogram(update, name, lm, zeros=False, at_most=AT_MOST)
    return WeightView(
        name,
        maxima if same else block_maxima(update, name),
        limits,
        pd.concat([before, after.assign(kind="kept")], ignore_index=True),
        _threshold(lm, raw, regularizer, name),
    )


def _threshold(lm: LanguageModel, raw: WeightUpdate, regularizer: Regularizer, name: str) -> float | None:
    if not isinstance(regularizer, RECT):
        return None
    dW = raw.delta(name)
    count = round(regularizer.keep * dW.numel())
    return float(kth_largest(relative_change(dW, lm.weight(name)).float(), count)) if count else None


def thresholds_of(raw: WeightUpdate, lm: LanguageModel) -> tuple[float, ...]:
    """The δ that Table 1 of Gu et al. 2024 counts from, of one edit: its 80 % and 90 % quantiles, over all matrices.

    Where they are 0, as after an edit of single neurons, nothing is to be counted, and they are left out.
    """
    values = quantiles(_pooled([(raw.delta(name), lm.weight(name)) for name in raw]), TABLE1_QUANTILES)
    return tuple(value for value in values if value > 0)


def growth_row(total: WeightUpdate, lm: LanguageModel, thresholds: Sequence[float]) -> dict[str, float]:
    """How far the weights are from the unedited ones, over all matrices that were edited so far.

    Parameters
    ----------
    total : WeightUpdate
        The sum of the edits.
    lm : LanguageModel
        The unedited model.
    thresholds : sequence of float
        From `thresholds_of`.

    Returns
    -------
    dict
        matrices (their number), manhattan_distance (Σ|ΔW|), relative_norm (‖ΔW‖/‖W‖), share_changed, and share_above
        each threshold, numbered from 1.
    """
    pairs = [(total.delta(name), lm.weight(name)) for name in total]
    norm, norm_before = (
        sum(float(torch.linalg.vector_norm(pair[i], dtype=torch.float64)) ** 2 for pair in pairs) ** 0.5 for i in (0, 1)
    )
    delta = _pooled(pairs)
    row = {
        "matrices": len(pairs),
        "manhattan_distance": sum(float(dW.abs().sum(dtype=torch.float64)) for dW, _ in pairs),
        "relative_norm": norm / norm_before if norm_before else 0.0,
        "share_changed": sum(int(torch.count_nonzero(dW)) for dW, _ in pairs) / len(delta),
    }
    return row | {f"share_above_{i}": share_above(delta, value) for i, value in enumerate(thresholds, start=1)}


def _pooled(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """δ of all entries of all matrices, each given with the weight it is added to; on the CPU."""
    return torch.cat([relative_change(dW, W).float().reshape(-1).cpu() for dW, W in pairs])
