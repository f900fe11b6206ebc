"""Exact selection among tens of millions of entries: the k largest, quantiles, the entries under a mask.

`torch.quantile` is limited to 16 million elements; `torch.kthvalue` and indexing by a mask need 8 bytes of indices per
entry. Histograms of bit patterns have neither limit, and give the exact order statistic. On the CPU, NumPy counts and
picks the entries, because it is several times as fast as torch at both; scores on a GPU stay there.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_HALF_BITS = 16
_N_UPPER, _N_LOWER = 1 << 15, 1 << 16  # bins of the upper half (its sign bit is 0) and the lower half
_CHUNK = 1 << 20  # entries processed together: few enough for memory caches and scratch space
_INTEGERS = {
    1: torch.int8,
    2: torch.int16,
    4: torch.int32,
    8: torch.int64,
}  # by size in bytes, for dtypes that NumPy does not have

_Codes = npt.NDArray[np.int32] | Tensor  # bit patterns, or parts of them
_Counts = npt.NDArray[np.int64]


def kth_largest(scores: Tensor, count: int) -> Tensor:
    """Return the exact `count`-th largest of nonnegative scores.

    The bit patterns of nonnegative floats sort like the floats themselves. A histogram of the upper half of the bits
    finds the bin of the score, and a histogram of the lower half, within that bin, finds the score.

    Parameters
    ----------
    scores : Tensor
        float32, any shape, nonnegative, no NaN; infinities are allowed.
    count : int
        Rank of the score: 1 for the largest, up to the number of scores.

    Returns
    -------
    Tensor
        Scalar, one of the scores.
    """
    bits = _bits(scores)
    return torch.tensor(_select(bits, _upper_histogram(bits), count)[0], dtype=scores.dtype, device=scores.device)


def top_mask(scores: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest scores; of equal scores, the first in row-major order are chosen.

    Parameters
    ----------
    scores : Tensor
        float32, any shape, nonnegative, no NaN.
    count : int
        Number of entries to mark, from 0 to the number of scores.

    Returns
    -------
    Tensor
        Boolean, of the shape of `scores`, with exactly `count` true entries.
    """
    if count == 0:
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    bits = _bits(scores)
    threshold, n_kept, n_ties = _select(bits, _upper_histogram(bits), count)
    flat = scores.reshape(-1)
    mask = flat >= threshold
    if n_kept < n_ties:
        for flags, chunk in zip(mask.split(_CHUNK), flat.split(_CHUNK), strict=True):
            equal = (chunk == threshold).nonzero()[:, 0]
            flags[equal[n_kept:]] = False
            n_kept = max(n_kept - len(equal), 0)
    return mask.reshape(scores.shape)


def quantiles(scores: Tensor, shares: tuple[float, ...]) -> list[float]:
    """Return quantiles of nonnegative scores: the smallest score that at least a share q of all scores do not exceed.

    Parameters
    ----------
    scores : Tensor
        float32, any shape, nonnegative, no NaN.
    shares : tuple of float
        The shares q, each in [0, 1].

    Returns
    -------
    list of float
        One score per share.
    """
    bits = _bits(scores)
    upper = _upper_histogram(bits)
    total = scores.numel()
    ranks = [max(1, math.ceil(q * total)) for q in shares]  # from the smallest, 1-based
    return [_select(bits, upper, total - rank + 1)[0] for rank in ranks]


def entries_where(matrix: Tensor, mask: Tensor) -> Tensor:
    """Return the entries of a matrix where a mask is true, in row-major order.

    Parameters
    ----------
    matrix : Tensor
        Matrix of any dtype and shape.
    mask : Tensor
        Boolean mask of the same shape, on the same device.

    Returns
    -------
    Tensor (number of true entries,)
    """
    if _uses_numpy(matrix):
        words = matrix.detach().view(_INTEGERS[matrix.element_size()])
        return torch.from_numpy(words.numpy()[mask.numpy()]).view(matrix.dtype)
    pieces = zip(matrix.reshape(-1).split(_CHUNK), mask.reshape(-1).split(_CHUNK), strict=True)
    return torch.cat([entries[kept] for entries, kept in pieces])


def _uses_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _bits(scores: Tensor) -> Sequence[_Codes]:
    """Bit patterns as int32, in chunks: NumPy arrays for scores on the CPU, else tensors on their device."""
    chunks = scores.reshape(-1).view(torch.int32).split(_CHUNK)
    return [chunk.numpy() for chunk in chunks] if _uses_numpy(scores) else list(chunks)


def _histogram(parts: Iterable[_Codes], n_bins: int) -> _Counts:
    total = np.zeros(n_bins, dtype=np.int64)
    for codes in parts:
        if isinstance(codes, np.ndarray):
            total += np.bincount(codes, minlength=n_bins)
        else:
            total += torch.bincount(codes, minlength=n_bins).cpu().numpy()
    return total


def _upper_histogram(bits: Sequence[_Codes]) -> _Counts:
    return _histogram((chunk >> _HALF_BITS for chunk in bits), _N_UPPER)


def _select(bits: Sequence[_Codes], upper_histogram: _Counts, count: int) -> tuple[float, int, int]:
    """Return the `count`-th largest score, how many of its equals are among the `count` largest, and how many exist."""
    upper, rank = _bin_of(upper_histogram, count)
    lower_histogram = _histogram((chunk[chunk >> _HALF_BITS == upper] & (_N_LOWER - 1) for chunk in bits), _N_LOWER)
    lower, n_equal = _bin_of(lower_histogram, rank)
    score = np.int32(upper << _HALF_BITS | lower).view(np.float32)
    return float(score), n_equal, int(lower_histogram[lower])


def _bin_of(histogram: _Counts, rank: int) -> tuple[int, int]:
    """Return the bin of the `rank`-th largest entry, and its rank within that bin."""
    at_least = histogram[::-1].cumsum()[::-1]  # entries in this bin or a higher one
    index = int(np.flatnonzero(at_least >= rank)[-1])
    return index, rank - int(at_least[index] - histogram[index])
