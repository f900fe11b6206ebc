"""An update keeps its ΔW exactly, and is applied, undone and added without a trace."""

import re

import numpy as np
import pytest
import torch

from tests.tiny_models import build_tiny_lm
from tests.updates import KINDS, bits_of, naive_dense, random_change, random_update, record_of, refused, same_bits
from workbench import selection
from workbench.changes import Dense, LowRank, Sparse
from workbench.errors import UpdateError
from workbench.update import WeightUpdate

# apply and undo


@KINDS
def test_undo_restores_every_bit(tiny_lm, kind):
    before, update = bits_of(tiny_lm), random_update(kind, tiny_lm)
    update.apply(tiny_lm)
    assert not same_bits(before, bits_of(tiny_lm))
    update.undo(tiny_lm)
    assert same_bits(before, bits_of(tiny_lm))


@KINDS
def test_apply_adds_the_float64_algebra_within_rounding(tiny_lm, kind):
    update = random_update(kind, tiny_lm)
    [(name, change)] = update.items()
    W = tiny_lm.weight(name).double().numpy()
    with update.applied(tiny_lm):
        edited = tiny_lm.weight(name).double().numpy()
    dW = naive_dense(change)
    assert np.abs(dW).max() > 1
    # one rounding of the sum, and of each product and partial sum of ΔW
    bound = np.finfo(np.float32).eps * (np.abs(W) + 4 * np.abs(dW) + 4)
    assert (np.abs(edited - (W + dW)) <= bound).all()


@KINDS
def test_delta_is_the_matrix_that_the_parts_describe(kind):
    change = random_change(kind, (7, 5), dtype=torch.float64)
    np.testing.assert_allclose(WeightUpdate({"W": change}).delta("W").numpy(), naive_dense(change), rtol=1e-14)


def test_apply_changes_no_other_parameter(tiny_lm):
    before, update = bits_of(tiny_lm), random_update("LowRank", tiny_lm)
    with update.applied(tiny_lm):
        after = bits_of(tiny_lm)
    assert [name for name in before if not torch.equal(before[name], after[name])] == list(update)


def test_three_stacked_updates_undo_to_every_bit(tiny_lm):
    before = bits_of(tiny_lm)
    updates = [random_update("LowRank", tiny_lm, seed=i, layer=i % 2) for i in range(3)]
    for update in updates:
        update.apply(tiny_lm)
    assert tiny_lm.applied_updates == tuple(updates)
    for update in reversed(updates):
        update.undo(tiny_lm)
    assert same_bits(before, bits_of(tiny_lm))
    assert tiny_lm.applied_updates == ()


def test_applied_undoes_when_an_error_leaves_the_block(tiny_lm):
    before, update = bits_of(tiny_lm), random_update("Dense", tiny_lm)
    with pytest.raises(KeyError, match="from inside"), update.applied(tiny_lm):
        raise KeyError("from inside")
    assert same_bits(before, bits_of(tiny_lm))


def test_an_update_can_be_applied_again_after_undo(tiny_lm):
    update = random_update("Sparse", tiny_lm)
    with update.applied(tiny_lm):
        first = bits_of(tiny_lm)
    with update.applied(tiny_lm):
        assert same_bits(first, bits_of(tiny_lm))


def test_a_bfloat16_model_accumulates_what_its_rounding_would_lose():
    lm = build_tiny_lm("llama", dtype=torch.bfloat16)
    before, name = bits_of(lm), lm.arch.mlp_out_weight(1)
    W = lm.weight(name).double()
    steps = [WeightUpdate({name: Dense((W * 2**-12).float())}) for _ in range(64)]  # each far below 2⁻⁹ of W
    for step in steps:
        step.apply(lm)
    target = W * (1 + 64 * 2**-12)
    assert ((lm.weight(name).double() - target).abs() <= 1e-5 * W.abs()).all()
    assert torch.equal(lm.model.get_parameter(name), lm.weight(name).bfloat16())
    for step in reversed(steps[32:]):
        step.undo(lm)
    assert ((lm.weight(name).double() - W * (1 + 32 * 2**-12)).abs() <= 1e-5 * W.abs()).all()
    for step in reversed(steps[:32]):
        step.undo(lm)
    assert same_bits(before, bits_of(lm))


# refusals


def test_an_update_of_another_model_is_refused(tiny_lm):
    other = build_tiny_lm(tiny_lm.model.config.model_type, seed=1)
    update = random_update("LowRank", other)
    refused(
        f"the update was computed on {other.name} (fingerprint {other.fingerprint}), not on {tiny_lm.name} "
        f"(fingerprint {tiny_lm.fingerprint}); load the model it was made for.",
        lambda: update.apply(tiny_lm),
        tiny_lm,
    )


def test_a_wrong_shape_is_refused(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    shape = tuple(tiny_lm.weight(name).shape)
    good = tiny_lm.arch.mlp_out_weight(0)
    update = WeightUpdate({good: torch.ones(shape), name: torch.ones(shape).T})
    refused(
        f"the update of {name} has shape {shape[::-1]}; in {tiny_lm.name} it is {shape}.",
        lambda: update.apply(tiny_lm),
        tiny_lm,
    )


def test_an_unknown_parameter_is_refused(tiny_lm):
    good = tiny_lm.arch.mlp_out_weight(0)
    update = WeightUpdate({good: torch.ones(tiny_lm.weight(good).shape), "no.such.weight": torch.ones(2, 2)})
    refused(
        f"{tiny_lm.name} has no parameter 'no.such.weight'; the update is of another model.",
        lambda: update.apply(tiny_lm),
        tiny_lm,
    )


def test_applying_twice_is_refused(tiny_lm):
    update = random_update("LowRank", tiny_lm)
    update.apply(tiny_lm)
    refused(
        f"this update is already applied to {tiny_lm.name}; undo it first.",
        lambda: update.apply(tiny_lm),
        tiny_lm,
    )


def test_undo_without_apply_is_refused(tiny_lm):
    update = random_update("LowRank", tiny_lm)
    refused(
        f"this update is not applied to {tiny_lm.name}; apply it before undoing it.",
        lambda: update.undo(tiny_lm),
        tiny_lm,
    )


def test_undoing_out_of_order_is_refused(tiny_lm):
    first, second = random_update("LowRank", tiny_lm), random_update("Dense", tiny_lm, seed=1)
    first.apply(tiny_lm)
    second.apply(tiny_lm)
    refused(
        f"another update was applied to {tiny_lm.name} after this one; undo the last one first.",
        lambda: first.undo(tiny_lm),
        tiny_lm,
    )


# addition


def test_low_rank_sum_stays_low_rank_while_smaller_than_dense():
    a, b = (WeightUpdate({"W": random_change("LowRank", (12, 10), seed=s)}) for s in (0, 1))
    total = a + b  # rank 4: 4 · 22 numbers of 120
    assert isinstance(total["W"], LowRank)
    assert total["W"].rows.shape == (12, 4)
    np.testing.assert_allclose(total.delta("W"), naive_dense(a["W"]) + naive_dense(b["W"]), rtol=1e-5, atol=1e-6)


def test_low_rank_sum_becomes_dense_once_the_factors_are_larger():
    updates = [WeightUpdate({"W": random_change("LowRank", (12, 10), seed=s)}) for s in range(3)]
    total = updates[0] + updates[1] + updates[2]  # rank 6: 6 · 22 > 120
    assert isinstance(total["W"], Dense)
    reference = sum(naive_dense(update["W"]) for update in updates)
    np.testing.assert_allclose(total.delta("W"), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("a", ["LowRank", "Sparse", "Dense"])
@pytest.mark.parametrize("b", ["LowRank", "Sparse", "Dense"])
def test_the_sum_of_any_two_kinds_is_the_dense_sum(a, b):
    a, b = random_change(a, (9, 11), seed=0), random_change(b, (9, 11), seed=1)
    total = WeightUpdate({"W": a}) + WeightUpdate({"W": b})
    np.testing.assert_allclose(total.delta("W"), naive_dense(a) + naive_dense(b), rtol=1e-5, atol=1e-6)


def test_the_sum_of_thinly_kept_updates_stays_sparse():
    matrix = torch.arange(1.0, 101).reshape(10, 10)
    first, second = (matrix % 7 == 0), (matrix % 5 == 0)
    total = WeightUpdate({"W": Sparse.from_mask(matrix, first)}) + WeightUpdate({"W": Sparse.from_mask(matrix, second)})
    assert isinstance(total["W"], Sparse)
    assert len(total["W"].values) == 14 + 20 - 2  # multiples of 7, of 5, of both, up to 100
    assert torch.equal(total.delta("W"), matrix * first + matrix * second)


def test_addition_keeps_what_only_one_update_changes_and_all_records():
    first, second = record_of("ROME"), record_of("MEMIT")
    a = WeightUpdate({"V": torch.ones(2, 2)}, records=(first,), model="m", fingerprint="f")
    b = WeightUpdate({"W": 2 * torch.ones(3, 2)}, records=(second,))
    total = a + b
    assert (total.records, total.model, total.fingerprint) == ((first, second), "m", "f")
    assert torch.equal(total.delta("V"), torch.ones(2, 2))
    assert torch.equal(total.delta("W"), 2 * torch.ones(3, 2))


def test_addition_leaves_both_updates_alone():
    a, b = (WeightUpdate({"W": random_change("LowRank", (12, 10), seed=s)}) for s in (0, 1))
    before = [naive_dense(update["W"]) for update in (a, b)]
    a + b
    assert all(np.array_equal(naive_dense(u["W"]), was) for u, was in zip((a, b), before, strict=True))


def test_adding_updates_of_different_models_is_refused():
    a = WeightUpdate({"W": torch.ones(2, 2)}, model="gpt2-xl", fingerprint="1" * 16)
    b = WeightUpdate({"W": torch.ones(2, 2)}, model="llama-7b", fingerprint="2" * 16)
    with pytest.raises(UpdateError, match=r"^an update of gpt2-xl and one of llama-7b cannot be added\.$"):
        a + b


def test_adding_updates_of_different_shapes_is_refused():
    a, b = WeightUpdate({"W": torch.ones(2, 2)}), WeightUpdate({"W": torch.ones(2, 3)})
    sentence = "updates of shapes (2, 2) and (2, 3) cannot be added; they are of different models."
    with pytest.raises(UpdateError, match=f"^{re.escape(sentence)}$"):
        a + b


# kept entries


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 4), (7, 9), (16, 16)])
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_sparse_is_the_masked_matrix_bit_for_bit(shape, share):
    g = torch.Generator().manual_seed(shape[0])
    matrix, mask = torch.randn(shape, generator=g), torch.rand(shape, generator=g) < share
    kept = Sparse.from_mask(matrix, mask)
    assert torch.equal(kept.mask, mask)
    assert torch.equal(kept.values, matrix[mask])
    assert torch.equal(kept.dense(), torch.where(mask, matrix, 0))


def test_sparse_takes_one_bit_an_entry():
    assert Sparse.from_mask(torch.ones(3, 5), torch.zeros(3, 5, dtype=torch.bool)).bits.numel() == 2


@pytest.mark.parametrize("by_numpy", [True, False])
def test_sparse_works_across_chunks(monkeypatch, by_numpy):
    monkeypatch.setattr(selection, "_uses_numpy", lambda tensor: by_numpy)
    shape = (3, selection._CHUNK // 2 + 1)  # one and a half chunks, no multiple of 8
    matrix = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(shape)
    mask = matrix % 3 == 1
    kept = Sparse.from_mask(matrix, mask)
    assert torch.equal(kept.dense(), torch.where(mask, matrix, 0))
    assert kept.values[:3].tolist() == [1, 4, 7]


def test_sparse_reads_transposed_matrices_in_row_major_order():
    matrix = torch.arange(15.0).reshape(3, 5).T
    kept = Sparse.from_mask(matrix, matrix % 2 == 0)
    assert torch.equal(kept.dense(), torch.where(matrix % 2 == 0, matrix, 0))


# norms


def test_norms_are_those_of_all_matrices_together_in_float64(tiny_lm):
    names = [tiny_lm.arch.mlp_out_weight(layer) for layer in (0, 1)]
    update = random_update("LowRank", tiny_lm, layer=0) + random_update("Sparse", tiny_lm, layer=1, seed=1)
    stacked = np.concatenate([naive_dense(update[name]).ravel() for name in names])
    weights = np.concatenate([tiny_lm.weight(name).double().numpy().ravel() for name in names])
    expected = np.linalg.norm(stacked)
    assert update.norm() == pytest.approx(expected, rel=1e-6)
    assert update.relative_norm(tiny_lm) == pytest.approx(expected / np.linalg.norm(weights), rel=1e-6)
    with update.applied(tiny_lm):  # W is still the weight that the update was added to
        assert update.relative_norm(tiny_lm) == pytest.approx(expected / np.linalg.norm(weights), rel=1e-6)
    assert WeightUpdate({}).norm() == WeightUpdate({}).relative_norm(tiny_lm) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named_with_its_parameter(value):
    update = WeightUpdate({"a.weight": torch.ones(2, 2), "b.weight": torch.tensor([[0.0, value]])})
    with pytest.raises(UpdateError) as caught:
        update.check_finite()
    assert str(caught.value) == "the update of b.weight is not finite; milder hyperparameters may help."


# what is not finite


NOT_FINITE = pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])


def with_entry(kind, lm, number):
    """An update with one entry that is not finite, in a factor, among the kept values, or in the matrix."""
    update = random_update(kind, lm)
    [(name, change)] = update.items()
    next(t for part, t in change.tensors().items() if part in ("cols", "values", "matrix")).view(-1)[3] = number
    return name, update


@KINDS
@NOT_FINITE
def test_an_update_that_is_not_finite_is_neither_applied_nor_saved(tiny_lm, tmp_path, kind, number):
    name, update = with_entry(kind, tiny_lm, number)
    sentence = f"the update of {name} is not finite; milder hyperparameters may help."
    refused(sentence, lambda: update.apply(tiny_lm), tiny_lm)
    refused(sentence, lambda: update.save(tmp_path / "u.safetensors"), tiny_lm)
    assert list(tmp_path.iterdir()) == []


@KINDS
def test_a_saved_update_that_is_not_finite_is_refused(tiny_lm, tmp_path, monkeypatch, kind):
    path = tmp_path / "u.safetensors"
    _, update = with_entry(kind, tiny_lm, float("nan"))
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr(WeightUpdate, "check_finite", lambda self: None)
        update.save(path)
    refused(
        f"{path} is a damaged update (it holds numbers that are not finite); save it again.",
        lambda: WeightUpdate.load(path),
        tiny_lm,
    )


def test_finite_factors_with_an_infinite_product_are_refused(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    n_rows, n_cols = tiny_lm.weight(name).shape
    update = WeightUpdate({name: LowRank(torch.full((n_rows, 1), 1e25), torch.full((n_cols, 1), 1e25))})
    refused(
        f"the update of {name} is not finite; milder hyperparameters may help.", lambda: update.apply(tiny_lm), tiny_lm
    )


def test_large_factors_with_a_finite_product_are_applied(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    n_rows, n_cols = tiny_lm.weight(name).shape
    rows, cols = torch.full((n_rows, 1), 1e-30), torch.zeros(n_cols, 1)
    rows[0], cols[1] = 1e-30, 1e31
    rows[1] = 3e0
    update = WeightUpdate({name: LowRank(rows, cols)})
    with update.applied(tiny_lm):
        assert tiny_lm.weight(name)[1, 1].item() == pytest.approx(3e31)


def test_a_sum_that_overflows_is_refused(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    first, second = (WeightUpdate({name: torch.full_like(tiny_lm.weight(name), 3e38)}) for _ in range(2))
    with first.applied(tiny_lm):
        refused(
            f"with the update of {name}, weights of {tiny_lm.name} are not finite in float32; a smaller update or a "
            "wider dtype may help.",
            lambda: second.apply(tiny_lm),
            tiny_lm,
        )


def test_weights_that_half_precision_cannot_hold_are_refused():
    lm = build_tiny_lm("llama", dtype=torch.float16)
    name = lm.arch.mlp_out_weight(1)
    update = WeightUpdate({name: torch.full(lm.weight(name).shape, 1e5)})
    refused(
        f"with the update of {name}, weights of {lm.name} are not finite in float16; a smaller update or a wider "
        "dtype may help.",
        lambda: update.apply(lm),
        lm,
    )


def test_complex_entries_are_refused(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    changes = {name: torch.ones(tiny_lm.weight(name).shape, dtype=torch.complex64)}
    refused(f"the update of {name} has complex entries; give real numbers.", lambda: WeightUpdate(changes), tiny_lm)
