"""PRUNE and SPHERE against their formulas in numpy, on weights that lie either way and on every form of an update."""

import math

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.changes import Dense, LowRank, Sparse
from workbench.edit_record import EditRecord
from workbench.errors import EditError
from workbench.spectral import PRUNE_FORMS, main_directions, singular_vectors
from workbench.update import WeightUpdate
from workbench.weightstats import largest_singular_value

BOTH = (wb.PRUNE(), wb.SPHERE())


def matrix(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def update_of(lm, change, *, layer=1):
    name = lm.arch.mlp_out_weight(layer)
    return WeightUpdate({name: change}, (EditRecord("test", (), {}),), lm.name, lm.fingerprint), name


def update_with(lm, ratios, kind):
    """An update whose singular values are these multiples of the largest one of the weight."""
    name = lm.arch.mlp_out_weight(1)
    rows, cols = lm.weight(name).shape
    U, V = (torch.linalg.qr(matrix(n, len(ratios), seed=i)).Q for i, n in enumerate((rows, cols)))
    scaled = (U * torch.tensor(ratios, dtype=torch.float64) * largest_singular_value(lm.weight(name))).float()
    change = LowRank(scaled, V.float()) if kind is LowRank else Dense(scaled @ V.float().T)
    return update_of(lm, change)


def published_f(values, m, form):
    """The function of singular values at least m, as Ma et al. 2025 print it."""
    if form == "linear":
        return values / 2 + m / 2
    alpha = PRUNE_FORMS[form]
    return np.log(values) / np.log(alpha) - np.log(m) / np.log(alpha) + m


@pytest.mark.parametrize("kind", [LowRank, Dense])
@pytest.mark.parametrize("form", [*PRUNE_FORMS, "linear"])
def test_prune_restrains_the_singular_values_above_the_largest_of_the_weight(tiny_lm, form, kind):
    update, name = update_with(tiny_lm, [30.0, 5.0, 1.001, 0.9, 0.1], kind)
    m = largest_singular_value(tiny_lm.weight(name))
    restrained = wb.PRUNE(form=form, as_published=True)(update, tiny_lm)
    before, after = (np.linalg.svd(each.delta(name).double().numpy()) for each in (update, restrained))
    above = m <= before.S
    assert above.sum() == 3
    wanted = np.where(above, published_f(before.S, m, form), before.S)
    assert after.S[:5] == pytest.approx(np.sort(wanted[:5])[::-1], rel=1e-4)
    dW = before.U[:, :5] * wanted[:5] @ before.Vh[:5]
    assert restrained.delta(name).numpy() == pytest.approx(dW, abs=1e-5 * np.abs(dW).max())


@pytest.mark.parametrize("form", [*PRUNE_FORMS, "linear"])
def test_prune_never_raises_a_singular_value_unless_as_published(tiny_lm, form):
    update, name = update_with(tiny_lm, [3.0, 1.5, 1.05, 0.5], LowRank)
    before, after = (singular_vectors(each[name])[1] for each in (update, wb.PRUNE(form=form)(update, tiny_lm)))
    assert (after <= before * (1 + 1e-5)).all()


def test_the_published_prune_raises_values_just_above_a_small_largest_one(tiny_lm):
    update, name = update_with(tiny_lm, [1.05], LowRank)
    m = largest_singular_value(tiny_lm.weight(name))
    assert m < 1 / math.log(1.2)  # only then
    raised = wb.PRUNE(form="log1.2", as_published=True)(update, tiny_lm)
    assert raised.norm() > update.norm() * 1.01


def test_prune_returns_a_small_update_bit_for_bit(tiny_lm):
    update, name = update_with(tiny_lm, [0.99, 0.5], LowRank)
    restrained = wb.PRUNE()(update, tiny_lm)
    assert torch.equal(restrained.delta(name), update.delta(name))


def test_prune_compares_with_the_weights_that_the_update_is_added_to(tiny_lm):
    update, name = update_with(tiny_lm, [2.0], LowRank)
    larger = WeightUpdate({name: 3 * tiny_lm.weight(name)})
    with larger.applied(tiny_lm):
        restrained = wb.PRUNE()(update, tiny_lm)
    assert torch.equal(restrained.delta(name), update.delta(name))
    assert wb.PRUNE()(update, tiny_lm).norm() < update.norm()


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.5, 0.99, 1.0])
def test_main_directions_are_those_of_the_normalized_rows(eta):
    W = matrix(40, 12).numpy() * np.linspace(0.2, 3, 12)
    unit = W / np.linalg.norm(W, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(unit.T @ unit / 40)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min((np.cumsum(values) / values.sum() <= eta).sum() + 1, 12)
    U = main_directions(torch.from_numpy(W), eta).numpy()
    assert U.shape == (12, count)
    projector = vectors[:, :count] @ vectors[:, :count].T
    assert pytest.approx(projector, abs=1e-9) == U @ U.T


@pytest.mark.parametrize("kind", [LowRank, Dense, Sparse])
def test_sphere_projects_the_input_side_whichever_way_the_weight_lies(tiny_lm, kind):
    name = tiny_lm.arch.mlp_out_weight(1)
    rows, cols = tiny_lm.weight(name).shape
    low = LowRank(matrix(rows, 2).float(), matrix(cols, 2, seed=1).float())
    change = {LowRank: low, Dense: Dense(low.dense()), Sparse: Sparse.from_mask(low.dense(), low.dense() > 0)}[kind]
    update, _ = update_of(tiny_lm, change)
    projected = wb.SPHERE(eta=0.4, alpha=0.7)(update, tiny_lm)
    W, dW = tiny_lm.weight(name).double(), update.delta(name).double()
    if tiny_lm.arch.conv1d:
        W, dW = W.T, dW.T
    U = main_directions(W, 0.4)
    wanted = dW @ (torch.eye(len(U)) - 0.7 * U @ U.T)
    found = projected.delta(name).double()
    assert torch.allclose(found.T if tiny_lm.arch.conv1d else found, wanted, atol=1e-5)


def test_sphere_as_published_projects_the_output_side_of_conv1d_weights(tiny_lm):
    update, name = update_with(tiny_lm, [0.5, 0.2], LowRank)
    published, ours = (wb.SPHERE(as_published=flag)(update, tiny_lm).delta(name) for flag in (True, False))
    assert torch.equal(published, ours) != tiny_lm.arch.conv1d
    U = main_directions(tiny_lm.weight(name), 0.5)
    dW = update.delta(name).double()
    assert torch.allclose(published.double(), dW - 0.8 * (dW @ U) @ U.T, atol=1e-5)


def test_sphere_removes_all_of_the_main_directions_at_alpha_one_and_nothing_at_zero(tiny_lm):
    update, name = update_with(tiny_lm, [0.5, 0.2], LowRank)
    assert torch.allclose(wb.SPHERE(alpha=0)(update, tiny_lm).delta(name), update.delta(name), atol=1e-7)
    bare = wb.SPHERE(alpha=1)(update, tiny_lm).delta(name).double()
    W = tiny_lm.weight(name).double()
    rows = (bare.T, W.T) if tiny_lm.arch.conv1d else (bare, W)
    assert (rows[0] @ main_directions(rows[1], 0.5)).abs().max() < 1e-6


@pytest.mark.parametrize("regularizer", BOTH, ids=lambda r: r.label)
def test_a_low_rank_update_stays_low_rank_and_says_how_it_was_treated(tiny_lm, regularizer):
    update, name = update_with(tiny_lm, [30.0, 2.0], LowRank)
    treated = regularizer(update, tiny_lm)
    assert isinstance(treated[name], LowRank)
    assert treated[name].rows.shape[1] == 2
    assert treated.records[0].regularizer["kind"] == type(regularizer).__name__
    assert treated.norm() < update.norm()


@pytest.mark.parametrize("settings", [{"eta": 1.1}, {"eta": -0.1}, {"alpha": 2}, {"alpha": float("nan")}])
def test_sphere_refuses_shares_outside_zero_to_one(settings):
    with pytest.raises(EditError, match=r"must lie in \[0, 1\]"):
        wb.SPHERE(**settings)


def test_prune_refuses_an_unknown_form():
    with pytest.raises(EditError, match="form must be 'log' or"):
        wb.PRUNE(form="log3")
