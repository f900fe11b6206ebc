"""How far an edit moves the weights: relative change δ, Manhattan distance, shares of δ above thresholds, σ₁."""

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.changes import Change, LowRank
from workbench.lm import LanguageModel
from workbench.selection import quantiles
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate

TABLE1_QUANTILES = (0.8, 0.9)  # Gu et al. 2024, table 1: its thresholds are these quantiles over single edits
QUANTILES = (0.5, *TABLE1_QUANTILES, 0.99)


def relative_change(dW: Tensor, W: Tensor) -> Tensor:
    """Return the relative change δ = abs(ΔW / W), elementwise (Gu et al. 2024, section 5).

    Parameters
    ----------
    dW, W : Tensor
        Update, and the weight that it is added to, of the same shape.

    Returns
    -------
    Tensor
        In float32 or wider, of the same shape; where W = 0, ∞ if ΔW ≠ 0, else 0. Never NaN.
    """
    dtype = torch.promote_types(W.dtype, torch.float32)
    delta = dW.to(W.device, dtype, copy=True)  # everything below is in place: δ is the only new matrix
    return delta.div_(W).abs_().nan_to_num_(nan=0.0, posinf=torch.inf)


def share_above(delta: Tensor, threshold: float) -> float:
    """Return the share of entries of `delta` greater than `threshold`, from 0 to 1."""
    return int(torch.count_nonzero(delta > threshold)) / delta.numel()


@checked
def weight_change(
    update: WeightUpdate,
    lm: LanguageModel,
    *,
    thresholds: tuple[float, ...] = (),
    quantile_shares: tuple[float, ...] = QUANTILES,
) -> pd.DataFrame:
    """Measure how far an update moves each matrix that it changes (Gu et al. 2024, table 1).

    W is the weight that the update is added to: where the update is applied to `lm`, the weight that it replaced.

    Parameters
    ----------
    update : WeightUpdate
        Update of a single edit, or the sum of several.
    lm : LanguageModel
        The model that the update belongs to.
    thresholds : tuple of float
        Values of δ to count entries above, one row `share_above` each.
    quantile_shares : tuple of float
        Levels of the quantiles of δ to compute, each in [0, 1].

    Returns
    -------
    DataFrame
        Columns parameter, metric, at, value. Metrics: `manhattan_distance` (Σ|ΔW|), `norm` (‖ΔW‖, Frobenius),
        `relative_norm` (‖ΔW‖ / ‖W‖), `share_changed` (share of entries with ΔW ≠ 0), `relative_change` (quantile
        `at` of δ), `share_above` (share of entries with δ > `at`); `at` is empty for the others.

    Raises
    ------
    UpdateError
        If the update does not fit the model.
    """
    update.check_fits(lm)
    rows = []
    for name in update:
        W, dW = lm.weight_before(name, update), update.delta(name)
        rows += [(name, *row) for row in _measure(dW.to(W.device), W, thresholds, quantile_shares)]
    return pd.DataFrame(rows, columns=["parameter", "metric", "at", "value"])


def _measure(
    dW: Tensor, W: Tensor, thresholds: tuple[float, ...], shares: tuple[float, ...]
) -> list[tuple[str, float | None, float]]:
    delta = relative_change(dW, W)
    norm, norm_before = (float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in (dW, W))
    relative_norm = norm / norm_before if norm_before else (math.inf if norm else 0.0)
    rows: list[tuple[str, float | None, float]] = [
        ("manhattan_distance", None, float(dW.abs().sum(dtype=torch.float64))),
        ("norm", None, norm),
        ("relative_norm", None, relative_norm),
        ("share_changed", None, int(torch.count_nonzero(dW)) / dW.numel()),
    ]
    rows += [("relative_change", q, value) for q, value in zip(shares, quantiles(delta.float(), shares), strict=True)]
    return rows + [("share_above", threshold, share_above(delta, threshold)) for threshold in thresholds]


def share_changed(update: WeightUpdate) -> float:
    """Return the share of entries of the matrices of an update that it changes (ΔW ≠ 0); 0 for an empty update."""
    deltas = [update.delta(name) for name in update]
    total = sum(dW.numel() for dW in deltas)
    return sum(int(torch.count_nonzero(dW)) for dW in deltas) / total if total else 0.0


def spectral_norm(change: Change) -> float:
    """Return the largest singular value σ₁ of a ΔW, computed in float64; from its factors where it has some."""
    return float(change_singular_values(change)[0])


def spectral_ratio(update: WeightUpdate, lm: LanguageModel) -> float:
    """Return σ₁(ΔW)/σ₁(W), the largest over the matrices of an update; W is the unedited weight.

    An update whose ratio is above 1 is longer, in its main direction, than anything that the matrix did before.

    Parameters
    ----------
    update : WeightUpdate
        Update of a single edit, or the sum of several.
    lm : LanguageModel
        The model that the update belongs to; σ₁(W) is kept in its memo.

    Returns
    -------
    float
        0 for an empty update, infinite where only σ₁(W) is 0.
    """
    ratios = [0.0]
    for name, change in update.items():
        top, norm = spectral_norm(change), unedited_spectral_norm(lm, name)
        ratios.append(top / norm if norm else (math.inf if top else 0.0))
    return max(ratios)


def unedited_spectral_norm(lm: LanguageModel, name: str) -> float:
    """Return σ₁(W) of an unedited weight; it is kept in the memo of `lm`."""
    known = lm.memo.section("spectral norms")
    return compute_missing(known, (name,), lambda _: [largest_singular_value(lm.unedited_weight(name))])[0]


def largest_singular_value(matrix: Tensor) -> float:
    """Return σ₁ of a matrix, by the smaller Gram matrix in float64: far faster than all singular values."""
    return extreme_singular_values(matrix)[1]


def singular_values(matrix: Tensor) -> Tensor:
    """Return all singular values of a matrix (r,), descending, by the smaller Gram matrix in float64.

    Values below about 1e-8 times the largest are rounding.
    """
    M = matrix.double()
    values = torch.linalg.eigvalsh(M @ M.T if M.shape[0] <= M.shape[1] else M.T @ M)
    return values.flip(0).clamp_min(0).sqrt()


def unedited_singular_values(lm: LanguageModel, name: str) -> Tensor:
    """Return all singular values of an unedited weight, as `singular_values`; they are kept in the memo of `lm`."""
    known = lm.memo.section("singular values")
    return compute_missing(known, (name,), lambda _: [singular_values(lm.unedited_weight(name))])[0]


def change_singular_values(change: Change) -> Tensor:
    """Return the singular values of a ΔW (r,), descending, in float64; from its factors where it has some."""
    if isinstance(change, LowRank):
        left, right = (torch.linalg.qr(factor.double(), mode="r").R for factor in (change.rows, change.cols))
        return torch.linalg.svdvals(left @ right.T)
    return singular_values(change.dense())


def extreme_singular_values(matrix: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest singular value of a matrix, by the smaller Gram matrix in float64."""
    values = singular_values(matrix)
    return float(values[-1]), float(values[0])


def condition_number(matrix: Tensor) -> float:
    """Return σ_max/σ_min of a matrix; infinite if it is singular."""
    smallest, largest = extreme_singular_values(matrix)
    return largest / smallest if smallest else math.inf


def block_means(update: WeightUpdate, name: str, *, n_blocks: int = 64) -> pd.DataFrame:
    """Return the mean |ΔW| of each block of a grid over a matrix.

    Parameters
    ----------
    update : WeightUpdate
        The update to draw.
    name : str
        Name of one of its parameters.
    n_blocks : int
        Largest number of blocks along each side.

    Returns
    -------
    DataFrame
        Columns row and column (indices of the first entry of the block in the matrix), and value.
    """
    dW = update.delta(name).abs().float().cpu().numpy()
    starts = [np.unique(np.linspace(0, size, min(n_blocks, size) + 1).astype(int))[:-1] for size in dW.shape]
    sums = np.add.reduceat(np.add.reduceat(dW, starts[0], axis=0), starts[1], axis=1)
    heights, widths = (np.diff(start, append=size) for start, size in zip(starts, dW.shape, strict=True))
    rows, columns = np.meshgrid(*starts, indexing="ij")
    means = sums / np.outer(heights, widths)
    return pd.DataFrame({"row": rows.ravel(), "column": columns.ravel(), "value": means.ravel()})


def relative_change_histogram(
    update: WeightUpdate,
    name: str,
    lm: LanguageModel,
    *,
    low: float = 1e-6,
    high: float = 1e2,
    n_bins: int = 96,
    zeros: bool = True,
    at_most: int | None = None,
) -> pd.DataFrame:
    """Return a histogram of δ = |ΔW/W| whose bins are even on a log axis.

    Parameters
    ----------
    update : WeightUpdate
        The update to measure.
    name : str
        Name of one of its parameters.
    lm : LanguageModel
        The model that the update belongs to.
    low, high : float
        Ends of the range; entries outside are counted in the first and the last bin.
    n_bins : int
        Number of bins.
    zeros : bool
        Whether entries with ΔW = 0 are counted, in the first bin; shares are of all entries in either case.
    at_most : int, optional
        Approximate number of entries to count in a larger matrix, from evenly spaced rows; all entries by default.

    Returns
    -------
    DataFrame
        Columns low and high (ends of the bin), and share; shares sum to 1, or without zeros to the share of nonzeros.
    """
    W, dW = lm.weight_before(name, update), update.delta(name)
    every = 1 if at_most is None else max(1, math.ceil(dW.numel() / at_most))
    dW, W = dW[::every], W[::every]
    delta = relative_change(dW, W).float()
    if not zeros:
        delta = delta[dW.to(delta.device) != 0]
    first, last = float(np.float32(np.log10(low))), float(np.float32(np.log10(high)))
    exponents = delta.log10_().clamp_(first, last).cpu().numpy()
    # torch.histc counts in float32, which stops at 16 million
    counts, edges = np.histogram(exponents, bins=n_bins, range=(first, last))
    return pd.DataFrame({"low": 10 ** edges[:-1], "high": 10 ** edges[1:], "share": counts / dW.numel()})
