"""Regularizers against the paper's worked example and naive numpy, on weights that lie either way."""

import numpy as np
import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, weights_of
from tests.tiny_models import ModelOutline
from workbench.changes import Dense, LowRank, Sparse
from workbench.edit_record import EditRecord
from workbench.errors import EditError, UpdateError
from workbench.regularize import for_operation, keep_most_changed
from workbench.update import WeightUpdate

REGULARIZERS = (
    wb.Unregularized(),
    wb.RECT(keep=0.4),
    wb.RandomK(keep=0.4),
    wb.PCAK(keep=0.4),
    wb.PCAK(keep=0.4, form="reconstruction"),
)
EVERY_REGULARIZER = pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda r: r.label)

# Gu et al. 2024, figure 6: a 4 × 4 weight, its update, and what is left of it at 25 %
FIGURE_6_W = torch.tensor([[2.0, 6, 5, 8], [3, 4, 1, 9], [8, 5, 6, 1], [6, 4, 3, 2]])
FIGURE_6_DW = torch.tensor(
    [[0.02, 0.6, 0.05, 0.08], [0.03, 0.04, 0.1, 0.09], [0.8, 0.05, 0.06, 0.01], [0.06, 0.04, 0.03, 0.2]]
)
FIGURE_6_KEPT = torch.tensor([[0, 0.6, 0, 0], [0, 0, 0.1, 0], [0.8, 0, 0, 0], [0, 0, 0, 0.2]])


def one_matrix(W):
    """As much of a model as a regularizer reads: one parameter W."""
    return ModelOutline(weights={"W": W})


def matrix(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def edit_of(lm, *, seed=0, layer=1, kind=Dense):
    """A random update of one MLP, without zeros."""
    name = lm.arch.mlp_out_weight(layer)
    rows, cols = lm.weight(name).shape
    change = (
        LowRank(matrix(rows, 1, seed=seed), matrix(cols, 1, seed=seed + 99))
        if kind is LowRank
        else Dense(0.1 * matrix(rows, cols, seed=seed))
    )
    records = tuple(EditRecord(method, (), {}) for method in ("test", "again"))
    return WeightUpdate({name: change}, records, lm.name, lm.fingerprint), name


def naive_rect(dW, W, keep):
    """ΔW̄ by a stable sort of abs(ΔW/W), largest first, in numpy."""
    dW, W = dW.numpy(), W.numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(W == 0, np.where(dW == 0, np.float32(0), np.float32(np.inf)), np.abs(dW / W))
    kept = np.argsort(-relative.reshape(-1), kind="stable")[: round(keep * dW.size)]
    pruned = np.zeros_like(dW)
    pruned.flat[kept] = dW.flat[kept]
    return torch.from_numpy(pruned)


# RECT


def test_rect_gives_the_papers_worked_example():
    update = WeightUpdate({"W": FIGURE_6_DW})
    assert torch.equal(wb.RECT(keep=0.25)(update, one_matrix(FIGURE_6_W)).delta("W"), FIGURE_6_KEPT)


def test_rect_keeps_exactly_the_rounded_share():
    dW, W = matrix(37, 23), matrix(37, 23, seed=1)
    assert (dW != 0).all()
    shares = [i / 41 for i in range(1, 42)] + [1e-9, 1e-3, 0.5 / dW.numel(), 1.5 / dW.numel()]
    for keep in shares:
        kept = wb.RECT(keep=keep)(WeightUpdate({"W": dW}), one_matrix(W))
        assert torch.count_nonzero(kept.delta("W")) == round(keep * 37 * 23)
        assert len(kept["W"].values) == round(keep * 37 * 23)


@pytest.mark.parametrize("keep", [0.05, 0.4, 0.95])
@pytest.mark.parametrize("kind", [Dense, LowRank])
def test_rect_is_the_naive_sort_on_both_orientations(tiny_lm, keep, kind):
    update, name = edit_of(tiny_lm, kind=kind)
    kept = wb.RECT(keep=keep)(update, tiny_lm)
    assert isinstance(kept[name], Sparse)
    assert torch.equal(kept.delta(name), naive_rect(update.delta(name), tiny_lm.weight(name), keep))


def test_rect_keeps_values_bit_for_bit():
    dW = torch.tensor([[1e-45, -1e-40, 3e38], [-0.1, 1 / 3, -1e-7]])
    pruned = wb.RECT(keep=0.5)(WeightUpdate({"W": dW}), one_matrix(dW.abs() / torch.tensor([[3, 1, 3], [1, 3, 1.0]])))
    kept = torch.tensor([[True, False, True], [False, True, False]])
    assert torch.equal(pruned["W"].mask, kept)
    assert torch.equal(pruned.delta("W").view(torch.int32)[kept], dW.view(torch.int32)[kept])


def test_rect_takes_changes_of_zero_weights_first_and_zero_changes_of_them_last():
    W = torch.tensor([[0.0, 0, -0.0, 1], [1e-30, 2, 0, 1]])
    dW = torch.tensor([[1e-30, 0, -1e-30, 5], [1, 1e-6, -0.0, 0]])
    order = [(0, 0), (0, 2), (1, 0), (0, 3), (1, 1), (0, 1), (1, 2), (1, 3)]  # ∞ ∞ 1e30 5 5e-7 0 0 0
    for count in range(1, 9):
        pruned = wb.RECT(keep=count / 8)(WeightUpdate({"W": dW}), one_matrix(W))
        assert not pruned.delta("W").isnan().any()
        assert {tuple(place) for place in pruned["W"].mask.nonzero().tolist()} == set(order[:count])


@pytest.mark.parametrize("regularizer", [wb.RECT(keep=1), wb.RandomK(keep=1)], ids=lambda r: r.label)
def test_keeping_all_is_the_identity(tiny_lm, regularizer):
    update, name = edit_of(tiny_lm)
    assert torch.equal(regularizer(update, tiny_lm).delta(name), update.delta(name))


def test_rect_compares_with_the_weight_as_it_is_now(tiny_lm):
    update, name = edit_of(tiny_lm)
    earlier, _ = edit_of(tiny_lm, seed=5)
    rect, unedited = wb.RECT(keep=0.3), tiny_lm.weight(name).clone()
    with earlier.applied(tiny_lm):
        after_an_edit = rect(update, tiny_lm).delta(name)
        assert torch.equal(after_an_edit, naive_rect(update.delta(name), tiny_lm.weight(name), 0.3))
    on_unedited = rect(update, tiny_lm).delta(name)
    assert torch.equal(on_unedited, naive_rect(update.delta(name), unedited, 0.3))
    assert not torch.equal(on_unedited, after_an_edit)


def test_rect_hangs_on_no_storage_orientation():
    dW, W = matrix(11, 7), matrix(11, 7, seed=1)  # no two δ are equal
    kept = keep_most_changed(dW, W, 0.4).dense()
    assert torch.equal(keep_most_changed(dW.T.contiguous(), W.T.contiguous(), 0.4).dense(), kept.T)
    assert torch.equal(keep_most_changed(dW.T, W.T, 0.4).dense(), kept.T)  # views, not contiguous
    assert torch.equal(keep_most_changed(dW.T, W.T.contiguous(), 0.4).dense(), kept.T)


def test_rect_prunes_each_matrix_by_itself(tiny_lm):
    (first, a), (second, b) = edit_of(tiny_lm, layer=0), edit_of(tiny_lm, layer=1, seed=1)
    both = WeightUpdate({a: first.delta(a), b: 1000 * second.delta(b)})
    kept = wb.RECT(keep=0.4)(both, tiny_lm)
    assert list(kept) == [a, b]
    for name in (a, b):
        assert torch.count_nonzero(kept.delta(name)) == round(0.4 * both.delta(name).numel())


# random


def test_random_keeps_exactly_the_rounded_share(tiny_lm):
    update, name = edit_of(tiny_lm)
    for keep in (0.001, 0.1, 1 / 3, 0.4, 0.77, 1):
        kept = wb.RandomK(keep=keep)(update, tiny_lm)
        assert torch.count_nonzero(kept.delta(name)) == round(keep * update.delta(name).numel())


def test_random_keeps_values_bit_for_bit(tiny_lm):
    update, name = edit_of(tiny_lm)
    kept = wb.RandomK(keep=0.4)(update, tiny_lm)
    assert torch.equal(kept.delta(name), torch.where(kept[name].mask, update.delta(name), 0))


def test_random_draws_the_same_entries_for_the_same_seed_and_others_for_another(tiny_lm):
    update, name = edit_of(tiny_lm)
    torch.manual_seed(1)
    first = wb.RandomK(keep=0.4, seed=3)(update, tiny_lm)[name].mask
    torch.manual_seed(2)  # the global state has no say
    again = wb.RandomK(keep=0.4, seed=3)(update, tiny_lm)[name].mask
    other = wb.RandomK(keep=0.4, seed=4)(update, tiny_lm)[name].mask
    assert torch.equal(first, again)
    # independent draws agree on 0.4² + 0.6² = 0.52 of the entries; 1536 of them, so ± 0.013
    assert float((first == other).double().mean()) == pytest.approx(0.52, abs=0.06)


def masks_drawn(rule, names=("W",)):
    weights = {name: torch.ones(100, 80) for name in names}
    lm = ModelOutline(weights=weights)
    update = rule(WeightUpdate({name: torch.ones(100, 80) for name in names}), lm)
    return [update[name].mask for name in names]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (wb.RandomK(seed=0), wb.RandomK(seed=0, operation=2)),
        (wb.RandomK(seed=0, operation=2), wb.RandomK(seed=1)),
        (wb.RandomK(seed=0, operation=2), wb.RandomK(seed=1, operation=1)),
    ],
)
def test_operations_and_neighboring_seeds_draw_independently(one, other):
    [first], [second] = masks_drawn(one), masks_drawn(other)
    assert float((first == second).double().mean()) == pytest.approx(0.52, abs=0.03)  # 8000 entries: ± 0.006


def test_each_parameter_has_entries_of_its_own_whatever_else_changes():
    a, b = masks_drawn(wb.RandomK(), ("A", "B"))
    assert float((a == b).double().mean()) == pytest.approx(0.52, abs=0.03)
    [alone] = masks_drawn(wb.RandomK(), ("B",))
    assert torch.equal(alone, b)


def test_a_regularizer_without_chance_is_the_same_in_every_operation():
    rule = wb.RECT(0.3)
    assert for_operation(rule, 5) is rule
    assert for_operation(wb.RandomK(0.3, seed=2), 5) == wb.RandomK(0.3, seed=2, operation=5)


def test_random_leaves_the_global_random_state_alone(tiny_lm):
    update, _ = edit_of(tiny_lm)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    wb.RandomK()(update, tiny_lm)
    assert torch.equal(torch.rand(3), expected)


def test_random_does_not_look_at_the_values(tiny_lm):
    (one, name), (other, _) = edit_of(tiny_lm), edit_of(tiny_lm, seed=1, kind=LowRank)
    rule = wb.RandomK(keep=0.4)
    assert torch.equal(rule(one, tiny_lm)[name].mask, rule(other, tiny_lm)[name].mask)


def test_random_entries_are_spread_evenly_over_rows_and_columns():
    kept = wb.RandomK(keep=0.4)(WeightUpdate({"W": torch.ones(500, 400)}), one_matrix(torch.ones(500, 400)))
    dense = kept.delta("W")
    # a row's share has standard deviation sqrt(0.24 / 400) = 0.0245, a column's 0.0219; 5 of them
    assert (dense.mean(dim=1) - 0.4).abs().max() < 0.123
    assert (dense.mean(dim=0) - 0.4).abs().max() < 0.11


def test_random_draws_afresh_for_each_matrix(tiny_lm):
    (first, a), (second, b) = edit_of(tiny_lm, layer=0), edit_of(tiny_lm, layer=1)
    kept = wb.RandomK(keep=0.4)(first + second, tiny_lm)
    assert not torch.equal(kept[a].mask, kept[b].mask)


# principal components


def naive_pca(dW):
    """Scores (n_rows, r), components (r, n_cols) and mean of the rows of ΔW, by numpy's SVD, signs as they fall."""
    rows = dW.double().numpy()
    mean = rows.mean(axis=0)
    U, S, Vh = np.linalg.svd(rows - mean, full_matrices=False)
    return U * S, Vh, mean


CHANGES = {
    "full rank, tall": Dense(matrix(30, 12)),
    "full rank, wide": Dense(matrix(12, 30)),
    "rank three": LowRank(matrix(20, 3), matrix(15, 3, seed=1)),
    "rank three, dense": Dense(matrix(20, 3) @ matrix(15, 3, seed=1).T),
    "kept entries": Sparse.from_mask(matrix(14, 20), matrix(14, 20, seed=1) > 0.5),
}
EVERY_CHANGE = pytest.mark.parametrize("change", list(CHANGES.values()), ids=list(CHANGES))


def compressed(change, keep, form="paper"):
    return wb.PCAK(keep=keep, form=form)(WeightUpdate({"W": change}), one_matrix(torch.ones(change.shape)))["W"]


@EVERY_CHANGE
@pytest.mark.parametrize("keep", [0.1, 0.4, 1])
def test_paper_form_writes_naive_pca_scores_into_the_first_columns(change, keep):
    scores, _, _ = naive_pca(change.dense())
    count = min(int(keep * change.shape[1]), scores.shape[1])
    written = compressed(change, keep).dense()
    assert written.shape == change.shape
    expected = np.zeros(change.shape)
    for i in range(count):  # each component up to its sign
        expected[:, i] = scores[:, i] * np.sign(scores[:, i] @ written[:, i].double().numpy())
    np.testing.assert_allclose(written, expected, atol=1e-6 * np.abs(scores).max())


@EVERY_CHANGE
def test_signs_make_the_largest_loading_of_each_component_positive(change):
    scores, components, _ = naive_pca(change.dense())
    real = np.linalg.matrix_rank(change.dense().double().numpy() - change.dense().double().numpy().mean(axis=0))
    written = compressed(change, 1).dense().double().numpy()
    assert real >= 3
    for i in range(min(real, change.shape[1])):
        largest = components[i, np.abs(components[i]).argmax()]
        np.testing.assert_allclose(written[:, i], scores[:, i] * np.sign(largest), atol=1e-6 * np.abs(scores).max())


def test_factors_and_the_dense_matrix_give_the_same_paper_form(tiny_lm):
    update, name = edit_of(tiny_lm, kind=LowRank)
    dense = WeightUpdate({name: update.delta(name)}, update.records, update.model, update.fingerprint)
    a, b = (wb.PCAK(keep=0.4)(u, tiny_lm).delta(name) for u in (update, dense))
    assert a.abs().max() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_paper_form_of_a_rank_one_update_fills_the_first_column_alone():
    left, right = matrix(20, 1), matrix(15, 1, seed=1)
    for change in (LowRank(left, right), Dense(left @ right.T)):
        written = compressed(change, 0.4).dense()
        centered = (left - left.mean()).double() * right.double().norm()
        sign = right[right.abs().argmax()].sign()
        np.testing.assert_allclose(written[:, :1], sign * centered, rtol=1e-5, atol=1e-6)
        assert written[:, 1:].abs().max() < 1e-6
    assert torch.count_nonzero(compressed(LowRank(left, right), 0.4).dense()[:, 1:]) == 0


def test_paper_form_with_less_than_one_column_is_all_zero():
    assert torch.count_nonzero(compressed(Dense(matrix(6, 9)), 0.1).dense()) == 0


def test_reconstruction_of_a_rank_one_update_loses_nothing(tiny_lm):
    update, name = edit_of(tiny_lm, kind=LowRank)
    rebuilt = wb.PCAK(keep=0.4, form="reconstruction")(update, tiny_lm)
    torch.testing.assert_close(rebuilt.delta(name), update.delta(name), rtol=1e-5, atol=1e-6)


@EVERY_CHANGE
@pytest.mark.parametrize("keep", [0.02, 0.1, 0.4, 0.9, 1])
def test_reconstruction_is_the_best_approximation_that_its_numbers_can_hold(change, keep):
    n_rows, n_cols = change.shape
    scores, components, mean = naive_pca(change.dense())
    # m components: n_rows scores and n_cols loadings each, and one mean row, within keep · N numbers
    budget = keep * n_rows * n_cols
    m = max((m for m in range(scores.shape[1] + 1) if m * (n_rows + n_cols) + n_cols <= budget), default=0)
    rebuilt = compressed(change, keep, form="reconstruction")
    assert rebuilt.shape == change.shape
    np.testing.assert_allclose(rebuilt.dense(), scores[:, :m] @ components[:m] + mean, atol=1e-5)


def test_the_two_forms_differ(tiny_lm):
    update, name = edit_of(tiny_lm)
    paper, rebuilt = (wb.PCAK(keep=0.4, form=form)(update, tiny_lm) for form in ("paper", "reconstruction"))
    assert not torch.allclose(paper.delta(name), rebuilt.delta(name), atol=1e-2)


# what holds for all


@EVERY_REGULARIZER
def test_neither_model_nor_update_is_changed(tiny_lm, regularizer):
    for kind in (Dense, LowRank):
        update, name = edit_of(tiny_lm, kind=kind)
        weights = weights_of(tiny_lm)
        parts = {part: tensor.clone() for part, tensor in update[name].tensors().items()}
        records = update.records
        regularizer(update, tiny_lm)
        assert_same_bits(tiny_lm, weights)
        assert all(torch.equal(tensor, parts[part]) for part, tensor in update[name].tensors().items())
        assert update.records == records
        assert [record.regularizer for record in records] == [None, None]
        assert tiny_lm.applied_updates == ()


@EVERY_REGULARIZER
def test_the_result_is_an_update_of_the_same_model_and_type(tiny_lm, regularizer):
    update, name = edit_of(tiny_lm)
    kept = regularizer(update, tiny_lm)
    assert (kept.model, kept.fingerprint, list(kept)) == (update.model, update.fingerprint, [name])
    assert kept.delta(name).dtype == torch.float32
    with kept.applied(tiny_lm):
        assert torch.isfinite(tiny_lm.weight(name)).all()


@pytest.mark.parametrize(
    ("regularizer", "label", "settings"),
    [
        (wb.RECT(keep=0.4), "RECT 40 %", {"keep": 0.4}),
        (wb.RECT(keep=0.125), "RECT 12.5 %", {"keep": 0.125}),
        (wb.RandomK(keep=0.4, seed=3), "Random 40 %", {"keep": 0.4, "seed": 3, "operation": 1}),
        (wb.PCAK(keep=0.4), "PCA 40 %", {"keep": 0.4, "form": "paper"}),
        (wb.PCAK(form="reconstruction"), "PCA 40 % (reconstruction)", {"keep": 0.4, "form": "reconstruction"}),
    ],
)
def test_every_record_gets_the_regularizers_label_and_settings(tiny_lm, regularizer, label, settings):
    update, _ = edit_of(tiny_lm)
    assert regularizer.label == label
    records = regularizer(update, tiny_lm).records
    assert [record.method for record in records] == ["test", "again"]
    assert [record.regularizer for record in records] == [{"kind": type(regularizer).__name__, **settings}] * 2


def test_unregularized_is_the_update_itself(tiny_lm):
    update, _ = edit_of(tiny_lm)
    assert wb.Unregularized()(update, tiny_lm) is update
    assert wb.Unregularized().label == "Unregularized"


@pytest.mark.parametrize("rule", [wb.RECT, wb.RandomK, wb.PCAK])
@pytest.mark.parametrize(("keep", "shown"), [(0, "0"), (-0.1, "-0.1"), (1.4, "1.4"), (float("nan"), "nan")])
def test_keep_outside_its_range_is_refused(rule, keep, shown):
    with pytest.raises(EditError) as caught:
        rule(keep=keep)
    assert str(caught.value) == f"keep must lie in (0, 1]; got {shown}."


def test_an_unknown_form_is_refused():
    with pytest.raises(EditError) as caught:
        wb.PCAK(form="sideways")
    assert str(caught.value) == "form must be 'paper' or 'reconstruction'; got 'sideways'."


@pytest.mark.parametrize("regularizer", REGULARIZERS[1:], ids=lambda r: r.label)
def test_an_update_that_does_not_fit_is_refused(tiny_lm, regularizer):
    name = tiny_lm.arch.mlp_out_weight(0)
    update = WeightUpdate({name: torch.ones(3, 5)})
    with pytest.raises(UpdateError) as caught:
        regularizer(update, tiny_lm)
    shape = tuple(tiny_lm.weight(name).shape)
    assert str(caught.value) == f"the update of {name} has shape (3, 5); in {tiny_lm.name} it is {shape}."
