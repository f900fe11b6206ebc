"""Spectral view of accumulated updates: singular values, leading subspaces, activations, and δ."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from workbench.assessment import assess
from workbench.editing.passes.hooks import first_output, hooked
from workbench.evaluation.perplexity import read_windows
from workbench.experiment.models import load_model
from workbench.experiment.store import Store
from workbench.forward import compute_logits
from workbench.lm import LanguageModel
from workbench.selection import quantiles
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate
from workbench.weightstats import (
    relative_change,
    singular_values,
    spectral_norm,
    unedited_singular_values,
    unedited_spectral_norm,
)

LEADING = 10  # singular vectors that span a leading subspace
_DELTA_QUANTILE = 0.9
_TEXTS, _WINDOW = 4, 16  # text on which activations are measured, and its tokens


def tabulate_spectra(updates: Mapping[int, WeightUpdate], lm: LanguageModel) -> pd.DataFrame:
    """Describe accumulated updates of an unedited model, each by the matrix in which σ₁(ΔW)/σ₁(W₀) is largest.

    Parameters
    ----------
    updates : mapping of int to WeightUpdate
        Accumulated update by number of operations.
    lm : LanguageModel
        The unedited model.

    Returns
    -------
    DataFrame
        Columns operation, parameter, relative_norm (‖ΔW‖/‖W₀‖ over all matrices), spectral_ratio (σ₁(ΔW)/σ₁(W₀)),
        condition_growth (of W_t over W₀), kl (of `assess`), stable_rank (‖ΔW‖²/σ₁(ΔW)²; NaN if ΔW = 0), angle_in and
        angle_out (`subspace_angle` between the leading 10 right, or left, singular vectors of W₀ and W_t, in degrees),
        activation_growth (mean norm of the outputs of the edited layer on held-out text, W_t over W₀), delta_90
        (90 % quantile of δ).
    """
    return pd.DataFrame([{"operation": t, **_describe(update, lm)} for t, update in updates.items()])


def tabulate_singular_values(update: WeightUpdate, lm: LanguageModel, *, count: int = 64) -> pd.DataFrame:
    """Return the largest singular values of W₀, W_t and ΔW, of the matrix as in `tabulate_spectra`.

    Parameters
    ----------
    update : WeightUpdate
        Accumulated update.
    lm : LanguageModel
        The unedited model.
    count : int
        Number of singular values of each matrix.

    Returns
    -------
    DataFrame
        Columns parameter, matrix ("W₀", "W_t" or "ΔW"), index (from 1) and value.
    """
    name = main_matrix(update, lm)
    W, dW = lm.unedited_weight(name).double(), update.delta(name).double()
    matrices = {"W₀": unedited_singular_values(lm, name), "W_t": singular_values(W + dW.to(W.device))}
    matrices["ΔW"] = singular_values(dW)
    parts = []
    for label, of_matrix in matrices.items():
        values = of_matrix[:count].tolist()
        index = range(1, len(values) + 1)
        parts.append(pd.DataFrame({"parameter": name, "matrix": label, "index": index, "value": values}))
    return pd.concat(parts, ignore_index=True)


def subspace_angle(A: Tensor, B: Tensor) -> float:
    """Return the angle between the spans of two sets of r orthonormal columns, in degrees.

    Its squared cosine is ‖AᵀB‖²/r, the mean of those of the principal angles (Björck and Golub 1973). The largest
    principal angle is 90° as soon as a single direction is replaced, however many there are.
    """
    return math.degrees(math.acos(min(float(torch.linalg.matrix_norm(A.T @ B)) / math.sqrt(A.shape[1]), 1.0)))


def read_spectra(store: Store, trajectories: Sequence[str]) -> pd.DataFrame:
    """Return the spectra of stored trajectories, computed once and kept in the store.

    Parameters
    ----------
    store : Store
        The store to read.
    trajectories : sequence of str
        Keys of finished trajectories. Those whose updates are not stored, as where a store was read from an archive,
        are left out unless their spectra were kept.

    Returns
    -------
    DataFrame
        Columns of `tabulate_spectra`, and trajectory.
    """
    parts = []
    records = store.trajectories()
    for key in trajectories:
        states = records[key]["states"].items()
        files = {int(t): f"updates/{state}.safetensors" for t, state in states if int(t)}
        if store.has(f"derived/{key}/spectra.parquet") or any(map(store.has, files.values())):
            compute = partial(_tabulate, store, files, records[key]["spec"])
            parts.append(store.derive(key, "spectra", compute).assign(trajectory=key))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["trajectory", "operation"])


def read_singular_values(store: Store, trajectory: str, operation: int) -> pd.DataFrame:
    """Return the table of `tabulate_singular_values` of one stored state, computed once and kept in the store.

    It is empty if neither the table nor the update is stored.
    """
    record = store.trajectories()[trajectory]
    spec, state = record["spec"], record["states"][str(operation)]
    name = f"singular-values-{operation}"
    file = f"updates/{state}.safetensors"
    if not store.has(file) and not store.has(f"derived/{trajectory}/{name}.parquet"):
        return pd.DataFrame(columns=["parameter", "matrix", "index", "value"])

    def compute() -> pd.DataFrame:
        update = store.read_update(file)
        assert update is not None
        return tabulate_singular_values(update, load_model(spec["model"], spec["dtype"]))

    return store.derive(trajectory, name, compute)


def _tabulate(store: Store, files: Mapping[int, str], spec: Mapping[str, Any]) -> pd.DataFrame:
    found = {t: store.read_update(file) for t, file in files.items()}
    updates = {t: update for t, update in found.items() if update is not None}
    return tabulate_spectra(updates, load_model(spec["model"], spec["dtype"]))


def _describe(update: WeightUpdate, lm: LanguageModel) -> dict[str, object]:
    name, risk = main_matrix(update, lm), assess(update, lm)
    W = lm.weight(name).double()
    dW = update.delta(name).double().to(W.device)
    (U, _, V), (U_t, _, V_t) = _leading(W, LEADING), _leading(W + dW, LEADING)
    left, right = subspace_angle(U, U_t), subspace_angle(V, V_t)
    if lm.arch.conv1d:  # output = input @ W
        left, right = right, left
    longest, known = spectral_norm(update[name]), lm.memo.section("output norms")
    [before] = compute_missing(known, (name,), lambda _: [_output_norm(lm, name)])
    with update.applied(lm):
        after = _output_norm(lm, name)
    return {
        "parameter": name,
        "relative_norm": update.relative_norm(lm),
        "spectral_ratio": risk.spectral_ratio,
        "condition_growth": risk.condition_growth,
        "kl": risk.kl,
        "stable_rank": float(dW.square().sum()) / longest**2 if longest else math.nan,
        "angle_in": right,
        "angle_out": left,
        "activation_growth": after / before,
        "delta_90": quantiles(relative_change(dW.float(), W.float()).float(), (_DELTA_QUANTILE,))[0],
    }


def main_matrix(update: WeightUpdate, lm: LanguageModel) -> str:
    """Return the name of the matrix in which σ₁(ΔW)/σ₁(W₀) is largest."""
    return max(update, key=lambda name: spectral_norm(update[name]) / unedited_spectral_norm(lm, name))


def _leading(W: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular vectors and values of W: U (n_rows, r), σ (r,) descending, V (n_cols, r)."""
    wide = W.shape[0] <= W.shape[1]
    M = W if wide else W.T
    values, vectors = torch.linalg.eigh(M @ M.T)  # of the smaller Gram matrix, ascending
    S = values.flip(0)[:count].clamp_min(0).sqrt()
    first = vectors.flip(1)[:, :count]
    second = M.T @ first / S.clamp_min(torch.finfo(S.dtype).tiny)
    return (first, S, second) if wide else (second, S, first)


def _output_norm(lm: LanguageModel, name: str) -> float:
    """Return the mean norm of what the layer with this weight gives for held-out text, without its first tokens."""
    return float(output_norms(lm, name, texts=_TEXTS, window=_WINDOW)[:, 1:].mean())


@torch.no_grad()
def output_norms(lm: LanguageModel, name: str, *, texts: int, window: int) -> Tensor:
    """Return the norm of what a layer gives at each token of held-out text, for the current weights.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    name : str
        Name of the layer's weight.
    texts, window : int
        Number of windows of the bundled articles, and their tokens.

    Returns
    -------
    Tensor (texts, window)
        In float64.
    """
    rows = read_windows(lm, "articles", window=window, limit=texts)
    norms = []

    def keep(module: torch.nn.Module, args: object, output: Tensor) -> None:
        norms.append(first_output(output).double().norm(dim=-1))

    with hooked(lm.model.get_submodule(name.removesuffix(".weight")), keep):
        compute_logits(lm, rows, [[0] for _ in rows])
    return torch.stack(norms).reshape(len(rows), window)
