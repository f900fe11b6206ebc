"""The rule that chooses RECT's share, against plain float64 sums on weights that lie either way."""

import numpy as np
import pytest
import torch

import workbench as wb
from tests.test_regularize import edit_of, matrix, naive_rect, one_matrix
from workbench.changes import Dense, LowRank, Sparse
from workbench.errors import EditError
from workbench.regularize import from_settings, settings_of
from workbench.update import WeightUpdate
from workbench.weightstats import share_changed, weight_change

ENERGIES = (0.001, 0.3, 0.9, 0.95, 0.99)


def fewest_reaching(dW, W, energy):
    """Count entries one after another, largest abs(ΔW/W) first, until their squares reach the energy."""
    dW, W = dW.double().numpy(), W.double().numpy()
    relative = np.abs(dW.astype(np.float32) / W.astype(np.float32))
    total, reached = float((dW**2).sum()), 0.0
    for count, place in enumerate(np.argsort(-relative.reshape(-1), kind="stable"), start=1):
        reached += dW.flat[place] ** 2
        if reached >= energy * total:
            return count
    raise AssertionError("the entries do not add up")


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("kind", [Dense, LowRank])
def test_the_kept_entries_are_the_fewest_that_reach_the_energy(tiny_lm, energy, kind):
    update, name = edit_of(tiny_lm, kind=kind)
    dW, W = update.delta(name), tiny_lm.weight(name)
    kept = wb.EnergyRECT(energy)(update, tiny_lm)
    count = fewest_reaching(dW, W, energy)
    assert isinstance(kept[name], Sparse)
    assert int(kept[name].mask.sum()) == count
    squares = kept.delta(name).double().square()
    assert squares.sum() >= energy * dW.double().square().sum() > squares.sum() - squares[squares > 0].max()


@pytest.mark.parametrize("energy", ENERGIES)
def test_it_is_rect_with_the_share_that_it_chose(tiny_lm, energy):
    update, name = edit_of(tiny_lm)
    kept = wb.EnergyRECT(energy)(update, tiny_lm)
    share = share_changed(kept)
    assert torch.equal(kept.delta(name), wb.RECT(keep=share)(update, tiny_lm).delta(name))
    assert torch.equal(kept.delta(name), naive_rect(update.delta(name), tiny_lm.weight(name), share))
    changes = weight_change(kept, tiny_lm).set_index("metric")["value"]
    assert changes["share_changed"] == share


def test_an_update_whose_large_entries_have_large_relative_changes_is_pruned_more():
    dW = torch.tensor([[3.0, 0.1, 0.1, 4.0]])
    aligned, against = one_matrix(torch.tensor([[1.0, 1, 1, 1]])), one_matrix(torch.tensor([[1e3, 1, 1, 1e3]]))
    update = WeightUpdate({"W": dW})
    assert wb.EnergyRECT(0.9)(update, aligned).delta("W").tolist() == [[3, 0, 0, 4]]
    assert torch.equal(wb.EnergyRECT(0.9)(update, against).delta("W"), dW)  # δ orders 0.1, 0.1, 4, 3


def test_each_matrix_has_a_share_of_its_own(tiny_lm):
    (first, a), (second, b) = edit_of(tiny_lm, layer=0), edit_of(tiny_lm, layer=1, seed=1)
    spike = torch.zeros_like(second.delta(b))
    spike[2, 3] = 5.0
    kept = wb.EnergyRECT(0.9)(WeightUpdate({a: first.delta(a), b: spike}), tiny_lm)
    assert int(kept[b].mask.sum()) == 1
    assert int(kept[a].mask.sum()) == fewest_reaching(first.delta(a), tiny_lm.weight(a), 0.9) > 1


def test_changes_of_zero_weights_come_first():
    W, dW = torch.tensor([[0.0, 1, 1]]), torch.tensor([[1.0, 2, 0.5]])
    assert wb.EnergyRECT(0.1)(WeightUpdate({"W": dW}), one_matrix(W)).delta("W").tolist() == [[1, 0, 0]]


def test_all_of_the_energy_is_the_whole_update(tiny_lm):
    update, name = edit_of(tiny_lm)
    assert torch.equal(wb.EnergyRECT(1)(update, tiny_lm).delta(name), update.delta(name))


def test_an_update_of_zeros_keeps_nothing():
    kept = wb.EnergyRECT()(WeightUpdate({"W": torch.zeros(3, 4)}), one_matrix(matrix(3, 4)))
    assert share_changed(kept) == 0
    assert not kept.delta("W").any()


def test_values_are_kept_bit_for_bit_and_neither_update_nor_model_changes(tiny_lm):
    update, name = edit_of(tiny_lm)
    dW, W = update.delta(name).clone(), tiny_lm.weight(name).clone()
    kept = wb.EnergyRECT(0.5)(update, tiny_lm)
    assert torch.equal(kept.delta(name), torch.where(kept[name].mask, dW, 0))
    assert torch.equal(update.delta(name), dW)
    assert torch.equal(tiny_lm.weight(name), W)


def test_its_settings_make_it_again():
    rule = wb.EnergyRECT(0.95)
    assert settings_of(rule) == {"kind": "EnergyRECT", "energy": 0.95}
    assert from_settings(settings_of(rule)) == rule
    assert rule.label == "RECT energy 95 %"


@pytest.mark.parametrize("energy", [0, -0.1, 1.01, float("nan")])
def test_an_energy_outside_the_range_is_refused(energy):
    with pytest.raises(EditError) as caught:
        wb.EnergyRECT(energy)
    assert str(caught.value) == f"energy must lie in (0, 1]; got {energy}."
