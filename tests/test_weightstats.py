"""How far weights move, against hand-worked numbers and naive numpy in float64."""

import math

import numpy as np
import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.changes import Dense, LowRank, Sparse
from workbench.errors import UpdateError
from workbench.update import WeightUpdate
from workbench.weightstats import block_means, relative_change_histogram, share_above, spectral_norm, spectral_ratio


def matrix(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def edit_of(lm, kind, *, seed=0, layer=1):
    name = lm.arch.mlp_out_weight(layer)
    rows, cols = lm.weight(name).shape
    dW = 0.1 * matrix(rows, cols, seed=seed)
    change = {
        "LowRank": LowRank(0.1 * matrix(rows, 1, seed=seed), matrix(cols, 1, seed=seed + 99)),
        "Sparse": Sparse.from_mask(dW, matrix(rows, cols, seed=seed + 9) > 0.3),
        "Dense": Dense(dW),
    }[kind]
    return WeightUpdate({name: change}, model=lm.name, fingerprint=lm.fingerprint), name


def cell(table, metric, at=None):
    """The one value of a metric."""
    found = table[(table["metric"] == metric) & (table["at"].isna() if at is None else table["at"] == at)]
    [value] = found["value"]
    return value


# δ


def test_relative_change_is_the_hand_worked_one():
    dW = torch.tensor([[0.5, -0.5, 0.0, 3.0], [0.0, 1e-30, -2.0, -0.0]])
    W = torch.tensor([[2.0, 2.0, 4.0, -1.5], [0.0, 0.0, -0.0, 0.0]])
    assert wb.relative_change(dW, W).tolist() == [[0.25, 0.25, 0, 2], [0, math.inf, math.inf, 0]]


def test_relative_change_is_never_negative_zero():
    delta = wb.relative_change(torch.tensor([-0.0, 0.0, -0.0]), torch.tensor([1.0, -1.0, 0.0]))
    assert not delta.signbit().any()


def test_relative_change_leaves_both_arguments_alone():
    dW, W = torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0])
    wb.relative_change(dW, W)
    assert dW.tolist() == [1, 0]
    assert W.tolist() == [4, 0]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_relative_change_is_float32_or_wider(dtype, expected):
    delta = wb.relative_change(torch.tensor([1.0]), torch.tensor([3.0], dtype=dtype))
    assert delta.dtype == expected
    assert delta.item() == pytest.approx(1 / 3, rel=torch.finfo(expected).eps)


def test_share_above_leaves_the_threshold_itself_out():
    assert share_above(torch.tensor([0.1, 0.5, 0.5, 0.7, math.inf]), 0.5) == 0.4


# metrics


@pytest.mark.parametrize("kind", ["LowRank", "Sparse", "Dense"])
def test_metrics_are_naive_numpy_in_float64(tiny_lm, kind):
    update, name = edit_of(tiny_lm, kind)
    thresholds, shares = (0.077, 0.171, 1.0), (0.0, 0.5, 0.8, 0.9, 0.99, 1.0)
    table = wb.weight_change(update, tiny_lm, thresholds=thresholds, quantile_shares=shares)
    W, dW = tiny_lm.weight(name).double().numpy(), update.delta(name).double().numpy()
    delta = np.abs(dW / W)
    expected = {
        ("manhattan_distance", None): np.abs(dW).sum(),
        ("norm", None): np.sqrt((dW**2).sum()),
        ("relative_norm", None): np.sqrt((dW**2).sum() / (W**2).sum()),
        ("share_changed", None): (dW != 0).mean(),
        **{("relative_change", q): np.quantile(delta, q, method="inverted_cdf") for q in shares},
        **{("share_above", t): (delta > t).mean() for t in thresholds},
    }
    assert len(table) == len(expected) == 13
    for (metric, at), value in expected.items():
        assert cell(table, metric, at) == pytest.approx(value, rel=1e-6), (metric, at)
    assert set(table["parameter"]) == {name}


def test_each_matrix_has_its_own_rows(tiny_lm):
    (first, a), (second, b) = edit_of(tiny_lm, "Dense", layer=0), edit_of(tiny_lm, "LowRank", layer=2, seed=1)
    table = wb.weight_change(first + second, tiny_lm)
    for name, update in ((a, first), (b, second)):
        own = table[table["parameter"] == name]
        assert cell(own, "manhattan_distance") == float(update.delta(name).abs().double().sum())
    assert len(table) == 2 * 8


def test_table_1_is_asked_for_by_default(tiny_lm):
    update, _ = edit_of(tiny_lm, "Dense")
    table = wb.weight_change(update, tiny_lm)
    assert table.loc[table["metric"] == "relative_change", "at"].tolist() == [0.5, 0.8, 0.9, 0.99]


def test_a_quantile_is_the_threshold_that_its_share_stays_below(tiny_lm):
    update, _ = edit_of(tiny_lm, "Dense")
    thresholds = wb.weight_change(update, tiny_lm)
    at = cell(thresholds, "relative_change", 0.8)
    table = wb.weight_change(update, tiny_lm, thresholds=(at,))
    n = 32 * 48
    assert cell(table, "share_above", at) == (n - math.ceil(0.8 * n)) / n  # as table 1's 20.0 %


def test_a_zero_weight_gives_infinities_and_no_nan():
    lm = build_tiny_lm("llama")
    name = lm.arch.mlp_out_weight(0)
    lm.model.get_parameter(name).zero_()
    dW = torch.zeros(lm.weight(name).shape)
    nothing = wb.weight_change(WeightUpdate({name: dW}), lm, thresholds=(0.1,))
    assert nothing["value"].tolist() == [0] * 9
    dW[:8] = 2  # a quarter of the rows
    something = wb.weight_change(WeightUpdate({name: dW}), lm, thresholds=(0.1,))
    assert cell(something, "relative_norm") == math.inf
    assert cell(something, "relative_change", 0.5) == 0
    assert cell(something, "relative_change", 0.8) == math.inf
    assert cell(something, "share_above", 0.1) == 0.25


# against which weight


def test_an_applied_update_is_measured_against_the_weight_before_it(tiny_lm):
    update, _ = edit_of(tiny_lm, "Dense")
    outside = wb.weight_change(update, tiny_lm, thresholds=(0.1,))
    with update.applied(tiny_lm):
        inside = wb.weight_change(update, tiny_lm, thresholds=(0.1,))
    assert inside.equals(outside)


def test_the_second_edit_is_measured_against_the_weight_after_the_first(tiny_lm):
    (first, name), (second, _) = edit_of(tiny_lm, "Dense"), edit_of(tiny_lm, "LowRank", seed=1)
    with first.applied(tiny_lm):
        W = tiny_lm.weight(name).double().numpy()
        before = wb.weight_change(second, tiny_lm)
        with second.applied(tiny_lm):
            after = wb.weight_change(second, tiny_lm)
    delta = np.abs(second.delta(name).double().numpy() / W)
    assert cell(before, "relative_change", 0.8) == pytest.approx(np.quantile(delta, 0.8, method="inverted_cdf"))
    assert after.equals(before)


@pytest.mark.parametrize("kinds", [("Dense", "Dense"), ("LowRank", "LowRank"), ("Sparse", "LowRank")])
def test_manhattan_distance_of_a_sum_is_that_between_edited_and_first_weight(tiny_lm, kinds):
    (first, name), (second, _) = edit_of(tiny_lm, kinds[0]), edit_of(tiny_lm, kinds[1], seed=1)
    W_0 = tiny_lm.weight(name).double()
    with first.applied(tiny_lm), second.applied(tiny_lm):
        moved = float((tiny_lm.weight(name).double() - W_0).abs().sum())
        assert torch.equal(tiny_lm.unedited_weight(name).double(), W_0)
    measured = cell(wb.weight_change(first + second, tiny_lm), "manhattan_distance")
    assert measured == pytest.approx(moved, rel=1e-5)
    assert moved > 50


def test_opposite_edits_move_nothing(tiny_lm):
    update, name = edit_of(tiny_lm, "Dense")
    back = WeightUpdate({name: -update.delta(name)}, model=update.model, fingerprint=update.fingerprint)
    assert cell(wb.weight_change(update + back, tiny_lm), "manhattan_distance") == 0


def test_measuring_changes_no_weight(tiny_lm):
    update, _ = edit_of(tiny_lm, "Dense")
    weights = weights_of(tiny_lm)
    wb.weight_change(update, tiny_lm)
    assert_same_bits(tiny_lm, weights)


def test_an_update_of_another_model_is_refused(tiny_lm):
    with pytest.raises(UpdateError) as caught:
        wb.weight_change(WeightUpdate({"no.such.weight": torch.ones(2, 2)}), tiny_lm)
    sentence = f"{tiny_lm.name} has no parameter 'no.such.weight'; the update is of another model."
    assert str(caught.value) == sentence


# for drawing


@pytest.mark.parametrize("n_blocks", [1, 4, 5, 48, 64])
def test_block_means_are_the_naive_ones_and_cover_the_matrix(n_blocks):
    dW = matrix(13, 48)
    table = block_means(WeightUpdate({"W": dW}), "W", n_blocks=n_blocks)
    rows, columns = sorted(set(table["row"])), sorted(set(table["column"]))
    assert (len(rows), len(columns)) == (min(n_blocks, 13), min(n_blocks, 48))
    assert len(table) == len(rows) * len(columns)
    for row, column, value in table.itertuples(index=False):
        bottom = min((r for r in rows if r > row), default=13)
        right = min((c for c in columns if c > column), default=48)
        assert value == pytest.approx(float(dW[row:bottom, column:right].abs().double().mean()), rel=1e-5)


def test_the_histogram_counts_every_entry_in_its_bin(tiny_lm):
    update, name = edit_of(tiny_lm, "Sparse")
    table = relative_change_histogram(update, name, tiny_lm, low=1e-3, high=10, n_bins=8)
    delta = np.abs(update.delta(name).double().numpy() / tiny_lm.weight(name).double().numpy())
    edges = 10 ** np.linspace(-3, 1, 9)
    counts = np.histogram(delta.clip(1e-3, 10), bins=edges)[0]
    np.testing.assert_allclose(table["low"], edges[:-1], rtol=1e-6)
    np.testing.assert_allclose(table["high"], edges[1:], rtol=1e-6)
    assert (table["share"] * delta.size).round().tolist() == counts.tolist()
    assert counts[0] > 500  # the zeros
    assert table["share"].sum() == pytest.approx(1)


def test_a_histogram_without_zeros_leaves_them_out_and_keeps_the_other_shares(tiny_lm):
    update, name = edit_of(tiny_lm, "Sparse")
    table, others = (relative_change_histogram(update, name, tiny_lm, zeros=zeros) for zeros in (True, False))
    share = float((update.delta(name) == 0).float().mean())
    assert share > 0.3
    assert table["share"].iloc[0] - others["share"].iloc[0] == pytest.approx(share)
    assert table["share"].iloc[1:].tolist() == others["share"].iloc[1:].tolist()


@pytest.mark.parametrize(("at_most", "every"), [(1, None), (500, 4), (1536, 1), (10**6, 1)])
def test_a_histogram_of_some_entries_counts_evenly_spaced_rows(at_most, every):
    lm = build_tiny_lm("llama")
    update, name = edit_of(lm, "Dense")  # 32 × 48
    table = relative_change_histogram(update, name, lm, n_bins=8, low=1e-3, high=10, at_most=at_most)
    rows = update.delta(name)[:: every or 1536] / lm.weight(name)[:: every or 1536]
    counts = np.histogram(rows.abs().double().numpy().clip(1e-3, 10), bins=10 ** np.linspace(-3, 1, 9))[0]
    assert table["share"].tolist() == pytest.approx((counts / rows.numel()).tolist(), abs=2 / rows.numel())


def test_the_histogram_takes_zeros_infinities_and_the_ends():
    lm = build_tiny_lm("llama")
    name = lm.arch.mlp_out_weight(0)
    W = lm.model.get_parameter(name).fill_(1)
    W[0] = 0  # 48 of 1536: δ = ∞
    dW = torch.zeros(W.shape)
    dW[:4], dW[4], dW[5] = 1, 3e-7, 3e2  # as many at each end, and in the middle
    table = relative_change_histogram(WeightUpdate({name: dW}), name, lm, low=3e-7, high=3e2, n_bins=3)
    assert (table["share"] * 1536 / 48).tolist() == [27, 0, 5]


@pytest.mark.slow
def test_the_histogram_counts_beyond_sixteen_million():
    lm = build_tiny_lm("llama", intermediate_size=600_000, num_hidden_layers=1)
    name = lm.arch.mlp_out_weight(0)
    rows, cols = lm.weight(name).shape
    dW = torch.zeros(rows, cols)
    dW[0] = 1e6  # one row of 32
    table = relative_change_histogram(WeightUpdate({name: dW}), name, lm)
    assert table["share"].iloc[[0, -1]].tolist() == [31 / 32, 1 / 32]


# σ₁


@pytest.mark.parametrize("kind", ["LowRank", "Sparse", "Dense"])
def test_the_spectral_norm_is_the_largest_singular_value(tiny_lm, kind):
    update, name = edit_of(tiny_lm, kind)
    expected = torch.linalg.svdvals(update.delta(name).double())[0]
    assert spectral_norm(update[name]) == pytest.approx(float(expected), rel=1e-6)


def test_the_spectral_norm_of_a_rank_one_update_is_its_norm(tiny_lm):
    update, name = edit_of(tiny_lm, "LowRank")
    assert spectral_norm(update[name]) == pytest.approx(update.norm(), rel=1e-6)


def test_the_spectral_ratio_is_the_largest_and_against_the_unedited_weight(tiny_lm):
    first, name = edit_of(tiny_lm, "Dense")
    second, other = edit_of(tiny_lm, "LowRank", seed=3, layer=0)
    both = first + second
    W = {each: torch.linalg.svdvals(tiny_lm.weight(each).double())[0] for each in (name, other)}
    ratios = [float(torch.linalg.svdvals(both.delta(each).double())[0] / W[each]) for each in W]
    assert spectral_ratio(both, tiny_lm) == pytest.approx(max(ratios), rel=1e-6)
    with both.applied(tiny_lm):
        assert spectral_ratio(both, tiny_lm) == pytest.approx(max(ratios), rel=1e-6)


def test_the_spectral_ratio_of_nothing_is_zero(tiny_lm):
    assert spectral_ratio(WeightUpdate({}), tiny_lm) == 0
