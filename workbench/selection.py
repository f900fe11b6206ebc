"""Exact selection among tens of millions of entries: the k largest, quantiles, the entries under a mask.

`torch.quantile` stops at 16 million elements, `torch.kthvalue` and indexing by a mask need 8 bytes of indices an entry;
histograms of bit patterns need neither, and give the exact order statistic. On the CPU numpy does the counting and
the picking: it is several times as fast at both as torch is, and numbers a GPU holds stay there.
"""

import math

import numpy as np
import torch
from torch import Tensor

_HALF_BITS = 16
_N_UPPER, _N_LOWER = 1 << 15, 1 << 16  # bins of the upper half (its sign bit is 0) and the lower half
_CHUNK = 1 << 20  # entries looked at together: small enough to stay in memory caches and scratch space
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes, for types unknown to numpy


def kth_largest(scores: Tensor, count: int) -> Tensor:
    """The `count`-th largest of nonnegative scores, exactly.

    The bit patterns of nonnegative floats sort like the floats themselves: a histogram of the upper half of the
    bits finds the bin that holds the wanted score, and one of the lower half, of that bin alone, finds the score.

    Parameters
    ----------
    scores : Tensor
        float32, any shape, nonnegative, no NaN; infinities are allowed.
    count : int
        1 for the largest, up to the number of scores.

    Returns
    -------
    Tensor
        Scalar, one of the scores.
    """
    bits = _bits(scores)
    return torch.tensor(_select(bits, _upper_histogram(bits), count)[0], dtype=scores.dtype, device=scores.device)


def top_mask(scores: Tensor, count: int) -> Tensor:
    """True at the `count` largest scores; among equal ones the first in row-major order win.

    Parameters
    ----------
    scores : Tensor
        float32, any shape, nonnegative, no NaN.
    count : int
        How many to mark, from 0 to the number of scores.

    Returns
    -------
    Tensor
        Boolean, of the shape of `scores`, with exactly `count` true entries.
    """
    if count == 0:
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    bits = _bits(scores)
    threshold, wanted, ties = _select(bits, _upper_histogram(bits), count)
    flat = scores.reshape(-1)
    mask = flat >= threshold
    if wanted < ties:
        for flags, chunk in zip(mask.split(_CHUNK), flat.split(_CHUNK), strict=True):
            equal = (chunk == threshold).nonzero()[:, 0]
            flags[equal[wanted:]] = False
            wanted = max(wanted - len(equal), 0)
    return mask.reshape(scores.shape)


def quantiles(scores: Tensor, shares: tuple[float, ...]) -> list[float]:
    """Quantiles of nonnegative scores: the smallest score that at least a share q of all scores do not exceed.

    Parameters
    ----------
    scores : Tensor
        float32, any shape, nonnegative, no NaN.
    shares : tuple of float
        Each in [0, 1].

    Returns
    -------
    list of float
        One score for each share.
    """
    bits = _bits(scores)
    upper = _upper_histogram(bits)
    total = scores.numel()
    ranks = [max(1, math.ceil(q * total)) for q in shares]  # from the smallest, 1-based
    return [_select(bits, upper, total - rank + 1)[0] for rank in ranks]


def entries_where(matrix: Tensor, mask: Tensor) -> Tensor:
    """The entries of a matrix where a mask is true, in row-major order.

    Parameters
    ----------
    matrix : Tensor
        Any type and shape.
    mask : Tensor
        Boolean, of the same shape and on the same device.

    Returns
    -------
    Tensor (number of true entries,)
    """
    if _by_numpy(matrix):
        words = matrix.detach().view(_INTEGERS[matrix.element_size()])
        return torch.from_numpy(words.numpy()[mask.numpy()]).view(matrix.dtype)
    pieces = zip(matrix.reshape(-1).split(_CHUNK), mask.reshape(-1).split(_CHUNK), strict=True)
    return torch.cat([entries[kept] for entries, kept in pieces])


def _by_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _bits(scores: Tensor) -> list[np.ndarray] | list[Tensor]:
    """Bit patterns as int32, in chunks: of numpy on the CPU, else of torch where the scores are."""
    chunks = scores.reshape(-1).view(torch.int32).split(_CHUNK)
    return [chunk.numpy() for chunk in chunks] if _by_numpy(scores) else list(chunks)


def _histogram(codes: np.ndarray | Tensor, n_bins: int) -> np.ndarray:
    if isinstance(codes, np.ndarray):
        return np.bincount(codes, minlength=n_bins)
    return torch.bincount(codes, minlength=n_bins).cpu().numpy()


def _upper_histogram(bits: list) -> np.ndarray:
    return sum(_histogram(chunk >> _HALF_BITS, _N_UPPER) for chunk in bits)


def _select(bits: list, upper_histogram: np.ndarray, count: int) -> tuple[float, int, int]:
    """The `count`-th largest score; how many of its equals are among the `count` largest; how many there are."""
    upper, rank = _bin_of(upper_histogram, count)
    within = (chunk[chunk >> _HALF_BITS == upper] & (_N_LOWER - 1) for chunk in bits)
    lower_histogram = sum(_histogram(codes, _N_LOWER) for codes in within)
    lower, wanted = _bin_of(lower_histogram, rank)
    score = np.int32(upper << _HALF_BITS | lower).view(np.float32)
    return float(score), wanted, int(lower_histogram[lower])


def _bin_of(histogram: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest, and its rank within that bin."""
    at_least = histogram[::-1].cumsum()[::-1]  # entries in this bin or a higher one
    found = int(np.flatnonzero(at_least >= rank)[-1])
    return found, rank - int(at_least[found] - histogram[found])
