"""Spectra of updates against plain float64 linear algebra and the model's own forward pass."""

import numpy as np
import pytest
import scipy.linalg
import torch

import workbench as wb
from workbench.analysis.spectra import (
    LEADING,
    read_singular_values,
    read_spectra,
    subspace_angle,
    tabulate_singular_values,
    tabulate_spectra,
)
from workbench.changes import LowRank
from workbench.evaluation.perplexity import read_windows
from workbench.update import WeightUpdate


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def update_of(lm, *, rank=2, size=0.3):
    name = lm.arch.mlp_out_weight(1)
    rows, cols = lm.weight(name).shape
    return WeightUpdate({name: LowRank(size * random(rows, rank), random(cols, rank, seed=1))}), name


def plain_svd(matrix):
    U, S, Vh = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return U[:, :LEADING], S, Vh[:LEADING].T


def mean_angle(A, B):
    return np.degrees(np.arccos(np.sqrt(np.mean(np.cos(scipy.linalg.subspace_angles(A, B)) ** 2))))


def test_the_angle_is_that_of_the_mean_squared_cosine():
    A, B = (torch.linalg.qr(random(20, 4, seed=seed).double()).Q for seed in (0, 1))
    assert subspace_angle(A, B) == pytest.approx(mean_angle(A.numpy(), B.numpy()), rel=1e-10)
    assert subspace_angle(A, A @ torch.linalg.qr(random(4, 4).double()).Q) == pytest.approx(0, abs=1e-5)
    replaced = torch.eye(20, 10).double()
    new = replaced.clone()
    new[:, 0], new[15, 0] = 0, 1
    assert subspace_angle(replaced, new) == pytest.approx(18.4349, abs=1e-3)  # cos² = 9/10


def test_the_spectral_view_is_that_of_plain_algebra(tiny_lm):
    update, name = update_of(tiny_lm)
    [row] = tabulate_spectra({3: update}, tiny_lm).to_dict("records")
    W, dW = tiny_lm.weight(name).double(), update.delta(name).double()
    (U, S, V), (U_t, S_t, V_t), (_, S_d, _) = map(plain_svd, (W, W + dW, dW))
    assert (row["operation"], row["parameter"]) == (3, name)
    assert row["relative_norm"] == pytest.approx(float(dW.norm() / W.norm()), rel=1e-5)
    assert row["spectral_ratio"] == pytest.approx(S_d[0] / S[0], rel=1e-5)
    assert row["condition_growth"] == pytest.approx((S_t[0] / S_t[-1]) / (S[0] / S[-1]), rel=1e-4)
    assert row["stable_rank"] == pytest.approx((S_d**2).sum() / S_d[0] ** 2, rel=1e-5)
    sides = {"angle_out": (U, U_t), "angle_in": (V, V_t)}
    if tiny_lm.arch.conv1d:  # output = input @ W
        sides = {"angle_in": (U, U_t), "angle_out": (V, V_t)}
    for side, pair in sides.items():
        assert row[side] == pytest.approx(mean_angle(*pair), rel=1e-4)
    delta = (dW.float() / W.float()).abs().flatten().sort().values
    assert row["delta_90"] == pytest.approx(float(delta[int(np.ceil(0.9 * len(delta))) - 1]))


def test_an_update_of_zeros_moves_nothing(tiny_lm):
    update, _ = update_of(tiny_lm, size=0.0)
    [row] = tabulate_spectra({1: update}, tiny_lm).to_dict("records")
    assert (row["spectral_ratio"], row["relative_norm"], row["delta_90"]) == (0, 0, 0)
    assert (row["activation_growth"], row["condition_growth"]) == (1, 1)
    assert row["angle_in"] < 1e-3
    assert np.isnan(row["stable_rank"])


def test_the_growth_of_activations_is_that_of_the_layer_in_the_models_own_forward_pass(tiny_lm):
    update, name = update_of(tiny_lm)
    rows = torch.tensor(read_windows(tiny_lm, "articles", window=16, limit=4))
    layer = tiny_lm.model.get_submodule(name.removesuffix(".weight"))

    def mean_norm():
        seen = []
        handle = layer.register_forward_hook(
            lambda module, args, output: seen.append(output[:, 1:].norm(dim=-1).mean())
        )
        with torch.no_grad():
            tiny_lm.model(rows)
        handle.remove()
        return float(seen[0])

    before = mean_norm()
    with update.applied(tiny_lm):
        after = mean_norm()
    assert abs(after / before - 1) > 0.01
    [row] = tabulate_spectra({1: update}, tiny_lm).to_dict("records")
    assert row["activation_growth"] == pytest.approx(after / before, rel=1e-4)
    assert tiny_lm.applied_updates == ()


def test_singular_values_are_those_of_the_three_matrices(tiny_lm):
    update, name = update_of(tiny_lm)
    values = tabulate_singular_values(update, tiny_lm, count=5)
    W, dW = tiny_lm.weight(name).double(), update.delta(name).double()
    for label, matrix in (("W₀", W), ("W_t", W + dW), ("ΔW", dW)):
        found = values[values["matrix"] == label]
        assert found["index"].tolist() == [1, 2, 3, 4, 5]
        assert found["value"].to_numpy() == pytest.approx(plain_svd(matrix)[1][:5], rel=1e-5, abs=1e-4)


def test_spectra_of_a_store_are_kept_and_those_without_updates_left_out(tiny, tmp_path):
    store = wb.Store(tmp_path)
    spec = {"model": tiny, "tasks": None, "perplexity": None, "hyperparameters": {"layer": 1, "v_num_grad_steps": 1}}
    keys = [
        wb.run(wb.ExperimentSpec(**spec, n_operations=1, seed=seed, edit_protocols=["teacher_forced"]), store=store)[
            "trajectory"
        ].iloc[0]
        for seed in (0, 1)
    ]
    for file in (tmp_path / "updates").glob("*"):
        if file.stem == store.trajectories()[keys[1]]["states"]["1"]:
            file.unlink()
    first = read_spectra(store, keys)
    assert first[["trajectory", "operation"]].to_numpy().tolist() == [[keys[0], 1]]
    assert len(read_singular_values(store, keys[0], 1)) > 0
    assert len(read_singular_values(store, keys[1], 1)) == 0
    for file in (tmp_path / "updates").glob("*"):
        file.unlink()
    assert read_spectra(store, keys).equals(first)
