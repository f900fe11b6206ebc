"""Exact selection, compared with NumPy's sort, stable sort and quantile."""

import numpy as np
import pytest
import torch

from workbench import selection
from workbench.selection import entries_where, kth_largest, quantiles, top_mask

TINY = np.float32(1e-45)  # the smallest denormal

ARRAYS = {
    "one": [3.5],
    "one zero": [0.0],
    "all equal": [0.25] * 50,
    "zeros, infinities and denormals": [0, np.inf, TINY, 2 * TINY, 0, 1e-38, np.inf, 1, 3e38, TINY],
    "neighbors that share their upper bits": np.float32(1) + np.arange(300) * np.finfo(np.float32).eps,
    "random": np.random.default_rng(0).exponential(size=1000),
    "heavy tails": np.abs(np.random.default_rng(1).standard_cauchy(size=1000)) ** 5,
    "many ties": np.random.default_rng(2).integers(0, 7, size=1000) / 7,
    "bfloat16 values": torch.randn(1000, generator=torch.Generator().manual_seed(3)).abs().bfloat16().float().numpy(),
}
EVERY_ARRAY = pytest.mark.parametrize("values", [np.asarray(a, np.float32) for a in ARRAYS.values()], ids=list(ARRAYS))


def counts_of(n):
    """Return all counts of a short array; for a long one, both ends and some in between."""
    return range(1, n + 1) if n <= 60 else (1, 2, 3, n // 10, n // 3, n // 2, n - 2, n - 1, n)


def naive_top_mask(scores, count):
    """Return the mask from a stable sort by descending score, which keeps equal scores in row-major order."""
    mask = np.zeros(scores.size, dtype=bool)
    mask[np.argsort(-scores.reshape(-1), kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


@EVERY_ARRAY
def test_kth_largest_is_the_kth_of_a_full_sort(values):
    falling = np.sort(values)[::-1]
    scores = torch.from_numpy(values)
    for count in counts_of(len(values)):
        found = kth_largest(scores, count)
        assert found.shape == ()
        assert found.dtype == torch.float32
        assert found.item() == falling[count - 1]


@EVERY_ARRAY
def test_top_mask_keeps_the_count_largest_and_breaks_ties_by_position(values):
    scores = torch.from_numpy(values)
    for count in (0, *counts_of(len(values))):
        mask = top_mask(scores, count)
        assert int(mask.sum()) == count
        assert np.array_equal(mask.numpy(), naive_top_mask(values, count))


@EVERY_ARRAY
def test_quantiles_are_numpys_inverted_cdf(values):
    shares = (0, 0.001, 0.25, 1 / 3, 0.5, 0.8, 0.9, 0.99, 1)
    # in float64: numpy's own weights make NaN of an infinity beside a float32 one
    order = np.sort(values.astype(np.float64))
    places = np.quantile(np.arange(len(order)), shares, method="inverted_cdf").astype(int)
    assert quantiles(torch.from_numpy(values), shares) == order[places].tolist()


def test_quantiles_are_numpys_on_finite_values():
    values = np.random.default_rng(4).exponential(size=(37, 41)).astype(np.float32)
    shares = tuple(np.random.default_rng(5).random(50)) + (0.0, 1.0)
    assert quantiles(torch.from_numpy(values), shares) == np.quantile(values, shares, method="inverted_cdf").tolist()


def test_the_shape_is_kept_and_ties_go_row_by_row():
    scores = torch.tensor([[1.0, 2, 1], [1, 0, 2], [1, 1, 0]])
    assert top_mask(scores, 4).tolist() == [[True, True, True], [False, False, True], [False, False, False]]


def test_a_transposed_matrix_is_read_in_its_own_row_major_order():
    scores = torch.tensor([[1.0, 2, 1], [1, 0, 2]]).T
    assert not scores.is_contiguous()
    for count in range(7):
        assert np.array_equal(top_mask(scores, count).numpy(), naive_top_mask(scores.numpy(), count))


@pytest.mark.parametrize("n", [15, 16, 17, 33])
def test_chunks_change_nothing(monkeypatch, n):
    monkeypatch.setattr(selection, "_CHUNK", 16)
    values = np.random.default_rng(n).integers(0, 4, size=n).astype(np.float32)
    scores = torch.from_numpy(values)
    for count in range(1, n + 1):
        assert kth_largest(scores, count).item() == np.sort(values)[n - count]
        assert np.array_equal(top_mask(scores, count).numpy(), naive_top_mask(values, count))
    assert quantiles(scores, (0.1, 0.5)) == np.quantile(values, (0.1, 0.5), method="inverted_cdf").tolist()


def test_a_matrix_longer_than_the_real_chunk_is_sorted_exactly():
    values = np.random.default_rng(6).exponential(size=selection._CHUNK + 77).astype(np.float32)
    values[::5] = values[3]  # ties on both sides of the border
    scores, count = torch.from_numpy(values), len(values) * 2 // 5
    assert kth_largest(scores, count).item() == np.sort(values)[len(values) - count]
    for wanted in (count, int((values > values[3]).sum()) + 100_000):
        assert np.array_equal(top_mask(scores, wanted).numpy(), naive_top_mask(values, wanted))


@pytest.mark.parametrize("name", ARRAYS)
def test_selection_with_torch_equals_selection_with_numpy(monkeypatch, name):
    monkeypatch.setattr(selection, "_uses_numpy", lambda tensor: False)
    monkeypatch.setattr(selection, "_CHUNK", 64)
    values = np.asarray(ARRAYS[name], np.float32)
    scores = torch.from_numpy(values)
    for count in counts_of(len(values)):
        mask = top_mask(scores, count)
        assert kth_largest(scores, count).item() == np.sort(values)[len(values) - count]
        assert np.array_equal(mask.numpy(), naive_top_mask(values, count))
        assert torch.equal(entries_where(scores, mask), scores[mask])
    assert quantiles(scores, (0.5,)) == [np.sort(values)[-(-len(values) // 2) - 1]]


def test_selection_does_not_change_the_scores():
    scores = torch.tensor([3.0, 1, 2, 2])
    top_mask(scores, 2)
    kth_largest(scores, 2)
    quantiles(scores, (0.5,))
    assert scores.tolist() == [3, 1, 2, 2]


@pytest.mark.parametrize("by_numpy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_entries_where_are_those_of_the_mask_in_row_major_order(monkeypatch, dtype, by_numpy):
    monkeypatch.setattr(selection, "_uses_numpy", lambda tensor: by_numpy)
    matrix = torch.randn(13, 17, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.rand(13, 17, generator=torch.Generator().manual_seed(1)) < 0.4
    assert torch.equal(entries_where(matrix, mask), matrix[mask])
    assert torch.equal(entries_where(matrix.T, mask.T), matrix.T[mask.T])
    assert entries_where(matrix, torch.zeros_like(mask)).shape == (0,)


@pytest.mark.slow
def test_twenty_million_entries_are_ranked_although_torch_quantile_refuses():
    values = np.random.default_rng(7).exponential(size=20_000_000).astype(np.float32)
    scores = torch.from_numpy(values)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(scores, 0.8)
    shares = (0.5, 0.8, 0.9)
    places = [int(np.ceil(q * len(values))) - 1 for q in shares]
    reference = np.partition(values, places)
    assert quantiles(scores, shares) == reference[places].tolist()
    count = 8_000_000
    mask = top_mask(scores, count).numpy()
    assert mask.sum() == count
    assert values[mask].min() >= values[~mask].max()
