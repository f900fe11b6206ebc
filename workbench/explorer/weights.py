"""Tables of what edits do to the weights, behind the explorer's figures and its history."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from workbench.explorer.edits import Edit
from workbench.lm import LanguageModel
from workbench.regularize import RECT
from workbench.selection import kth_largest, quantiles
from workbench.update import WeightUpdate
from workbench.weightstats import (
    TABLE1_QUANTILES,
    block_means,
    relative_change,
    relative_change_histogram,
    share_above,
)

MAX_ENTRIES = 1 << 20  # entries that the histogram of a larger matrix is computed from


@dataclass(frozen=True)
class KeptShare:
    """What a regularizer leaves of an update, over all its matrices.

    Attributes
    ----------
    entries, total : int
        Number of entries with ΔW ≠ 0 after regularization, and of all entries.
    norm_share : float
        ‖ΔW‖² after regularization over ‖ΔW‖² before it.
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
    means : DataFrame
        `block_means` of the regularized update.
    limits : tuple of float
        Limits of the color scale, from the update before regularization.
    histogram : DataFrame
        Columns kind ("all" before regularization, "kept" after), low, high, share (of all entries; those with ΔW = 0
        are in no bin).
    threshold : float or None
        The smallest δ that RECT keeps; None for other regularizers.
    """

    name: str
    means: pd.DataFrame
    limits: tuple[float, float]
    histogram: pd.DataFrame
    threshold: float | None


def measure_kept(computed: WeightUpdate, update: WeightUpdate) -> KeptShare:
    """Return what is left of the `computed` update in the regularized `update`."""
    after = [update.delta(name) for name in computed]
    entries = sum(int(torch.count_nonzero(dW)) for dW in after)
    norm = computed.norm()
    return KeptShare(entries, sum(dW.numel() for dW in after), update.norm() ** 2 / norm**2 if norm else 0.0)


def weight_view(lm: LanguageModel, edit: Edit, name: str) -> WeightView:
    """Return one matrix of an edit as the figures show it.

    Parameters
    ----------
    lm : LanguageModel
        The model with all earlier edits applied.
    edit : Edit
        The edit.
    name : str
        Name of the parameter.

    Returns
    -------
    WeightView
    """
    computed, update = edit.computed, edit.update
    positive = (means := block_means(computed, name))["value"]
    positive = positive[positive > 0]
    limits = (float(positive.quantile(0.01)), float(positive.max())) if len(positive) else (1e-9, 1e-8)
    if limits[0] == limits[1]:
        limits = (limits[1] / 10, limits[1])
    before = relative_change_histogram(computed, name, lm, zeros=False, at_most=MAX_ENTRIES).assign(kind="all")
    same = update is computed
    after = before if same else relative_change_histogram(update, name, lm, zeros=False, at_most=MAX_ENTRIES)
    return WeightView(
        name,
        means if same else block_means(update, name),
        limits,
        pd.concat([before, after.assign(kind="kept")], ignore_index=True),
        _kept_from(lm, edit, name),
    )


def _kept_from(lm: LanguageModel, edit: Edit, name: str) -> float | None:
    """Return the smallest δ that RECT keeps; None for other regularizers."""
    if not isinstance(edit.regularizer, RECT):
        return None
    dW = edit.computed.delta(name)
    count = round(edit.regularizer.keep * dW.numel())
    return float(kth_largest(relative_change(dW, lm.weight(name)).float(), count)) if count else None


def thresholds_of(update: WeightUpdate, lm: LanguageModel) -> tuple[float, ...]:
    """Return the thresholds of δ that Table 1 of Gu et al. 2024 uses: quantiles of an edit, over all its matrices.

    Quantiles of 0, as after an edit of single neurons, are left out, since nothing is counted above them.
    """
    values = quantiles(_pooled([(update.delta(name), lm.weight(name)) for name in update]), TABLE1_QUANTILES)
    return tuple(value for value in values if value > 0)


def growth_row(total: WeightUpdate, lm: LanguageModel, thresholds: Sequence[float]) -> dict[str, float]:
    """Return the distance from the unedited weights, over all matrices that were edited so far.

    Parameters
    ----------
    total : WeightUpdate
        Sum of the edits.
    lm : LanguageModel
        The unedited model.
    thresholds : sequence of float
        Thresholds of δ, from `thresholds_of`.

    Returns
    -------
    dict of str to float
        Number of matrices (matrices), Σ|ΔW| (manhattan_distance), ‖ΔW‖/‖W‖ (relative_norm), share of entries with
        ΔW ≠ 0 (share_changed) and above each threshold (share_above_1, …).
    """
    pairs = [(total.delta(name), lm.weight(name)) for name in total]
    delta = _pooled(pairs)
    row = {
        "matrices": len(pairs),
        "manhattan_distance": sum(float(dW.abs().sum(dtype=torch.float64)) for dW, _ in pairs),
        "relative_norm": total.relative_norm(lm),
        "share_changed": sum(int(torch.count_nonzero(dW)) for dW, _ in pairs) / len(delta),
    }
    return row | {f"share_above_{i}": share_above(delta, value) for i, value in enumerate(thresholds, start=1)}


def _pooled(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return δ of all entries of all matrices, given as pairs of ΔW and W, on the CPU."""
    return torch.cat([relative_change(dW, W).float().reshape(-1).cpu() for dW, W in pairs])
