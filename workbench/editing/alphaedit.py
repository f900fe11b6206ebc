"""AlphaEdit: MEMIT whose updates act on few of the keys in ordinary text (Fang et al. 2025, arXiv 2410.02355)."""

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.editing.easyedit import read_hparams
from workbench.editing.memit import MEMIT, MEMIT_YAML_FIELDS, MEMIT_YAML_IGNORED
from workbench.editing.presets import preset_for
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import NONNEGATIVE, POSITIVE, SHARE
from workbench.storage.cache import compute_missing

# jianghoucheng/AlphaEdit hparams/AlphaEdit: layers and rates where they differ from those of MEMIT
_RATES: dict[str, Any] = {"clamp_norm_factor": 0.75, "v_weight_decay": 0.5, "null_threshold": 2e-2}
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layers": (13, 14, 15, 16, 17), "v_num_grad_steps": 20, "v_lr": 0.5, **_RATES},
    "gpt-j-6b": {"layers": (3, 4, 5, 6, 7, 8), "v_num_grad_steps": 25, "v_lr": 0.5, **_RATES},
    "llama-3-8b": {"layers": (4, 5, 6, 7, 8), "v_num_grad_steps": 25, "v_lr": 0.1, **_RATES},
}
_YAML_NAMES = {"L2": "ridge", "nullspace_threshold": "null_threshold"}
_YAML_FIELDS = tuple(name for name in MEMIT_YAML_FIELDS if name != "mom2_update_weight")  # in the files, never read
_YAML_IGNORED = MEMIT_YAML_IGNORED | {"mom2_update_weight", "P_loc"}
_BASES_KEPT = 16  # in a model's memo


@dataclass(frozen=True)
class AlphaEdit(MEMIT):
    """Write facts with updates that are projected off the main directions of the keys.

    Fang et al. 2025, with λ₁ = 0: ΔWᵀ = [P (K Kᵀ + K_p K_pᵀ + λ₁ C) + λ₂ I]⁻¹ P K Rᵀ. K, R and the order of the blocks
    are as in `MEMIT`, K_p are the keys of earlier edits, and P = U₀U₀ᵀ projects on the eigenvectors of C with the
    smallest eigenvalues. It is solved as ΔW = R Bᵀ (B Bᵀ + U₀ᵀ (K_p K_pᵀ + λ₁ C) U₀ + λ₂ I)⁻¹ U₀ᵀ with B = U₀ᵀ K: a
    symmetric positive definite system of the rank of P.

    Departures: the published threshold on the eigenvalues is absolute, 0.02, so that what it keeps depends on the scale
    of a model's keys. Here the span has at most the share `null_energy` of the sum of the eigenvalues, the energy of
    the keys; `null_threshold` sets an absolute threshold instead. The keys K_p are those at which each edit was solved;
    the published code recomputes them once the edit is written.

    With `mom2_update_weight` above 0, λ₁, it is BetaEdit (arXiv 2605.09285; published: 3000), without the published
    recomputation of P after every 1000 edits.

    The record of an edit has, for each block, the rank of P as ``null_rank``, its share of the energy as
    ``null_energy``, and the share of ‖K‖² that P keeps as ``key_energy``.

    The fields are the hyperparameters; `for_model` returns presets.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    mom2_update_weight: Annotated[float, NONNEGATIVE, "λ₁: weight of C against the keys; 0 as published"] = 0.0
    remember: Annotated[bool, "whether the keys of earlier edits are kept"] = True
    ridge: Annotated[float, POSITIVE, "λ₂: weight of the identity"] = 10.0
    null_energy: Annotated[float, SHARE, "largest share of the keys' energy in the span that updates act on"] = 0.1
    null_threshold: Annotated[
        float | None, POSITIVE, "eigenvalues of C below which a direction is in the span, instead of `null_energy`"
    ] = None

    @property
    def label(self) -> str:
        """Name in tables and legends: BetaEdit if C has a weight."""
        return "BetaEdit" if self.mom2_update_weight else "AlphaEdit"

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> Self:
        """Return the hyperparameters for a model: published ones, or MEMIT's rates and layers.

        gpt2-xl, gpt-j-6b and llama-3-8b as published, with the absolute threshold. Any other model: MEMIT's layers and
        rates for it, and the share of energy, which has not been tuned.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        Self
        """
        if preset := preset_for(PRESETS, lm.name, n_layers=lm.n_layers):
            return cls(**preset)
        return replace(super().for_model(lm), mom2_update_weight=0.0)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one of EasyEdit's AlphaEdit hparams files.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys: its `L2` is `ridge`, its `nullspace_threshold` `null_threshold`.

        Returns
        -------
        Self

        Raises
        ------
        EditError
            If the file cannot be read, is not for AlphaEdit, has an unknown field or a value that is not allowed, or
            lacks `layers`.
        """
        return cls(**read_hparams(path, cls, _YAML_FIELDS, renamed=_YAML_NAMES, ignored=_YAML_IGNORED))

    def _solve(self, lm: LanguageModel, layer: int, C: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, float]]:
        basis = self._null_space(lm, layer, C)
        U_0, energies = basis.vectors.to(keys.device), basis.eigenvalues.to(keys.device)
        earlier = self._earlier_keys(lm, layer)
        B = U_0.T @ keys.double().T  # (r, N)
        system = B @ B.T + torch.diag(self.mom2_update_weight * energies + self.ridge)
        if earlier is not None:
            B_p = U_0.T @ earlier.to(keys.device, torch.float64).T
            system += B_p @ B_p.T
        adjusted = U_0 @ torch.cholesky_solve(B, torch.linalg.cholesky(system))
        kept = B.norm() ** 2 / keys.double().norm() ** 2
        return adjusted, {"null_rank": U_0.shape[1], "null_energy": basis.share, "key_energy": float(kept)}

    def _null_space(self, lm: LanguageModel, layer: int, C: Tensor) -> "NullSpace":
        known: MutableMapping[tuple[object, ...], NullSpace] = lm.memo.section("null spaces", _BASES_KEPT)
        key = (layer, self.second_moment, self.null_energy, self.null_threshold)
        [found] = compute_missing(known, [key], lambda _: [null_space(C, self.null_energy, self.null_threshold)])
        if not found.vectors.shape[1]:
            raise EditError(f"the keys of layer {layer} have no direction below the threshold; choose a larger one.")
        return found


@dataclass(frozen=True, eq=False)
class NullSpace:
    """The span of the keys that updates act on.

    Attributes
    ----------
    vectors : Tensor (d_ff, r)
        U₀, orthonormal eigenvectors of C, in float64.
    eigenvalues : Tensor (r,)
        Their eigenvalues, ascending.
    share : float
        Their share of the sum of all eigenvalues.
    """

    vectors: Tensor
    eigenvalues: Tensor
    share: float


def null_space(C: Tensor, energy: float, threshold: float | None = None) -> NullSpace:
    """Return the eigenvectors of C with the smallest eigenvalues.

    Parameters
    ----------
    C : Tensor (d_ff, d_ff)
        Second moment of the keys.
    energy : float
        Largest share of the sum of the eigenvalues.
    threshold : float, optional
        Instead of `energy`: the eigenvalues are below it.

    Returns
    -------
    NullSpace
    """
    values, vectors = torch.linalg.eigh(C.double())  # ascending
    values = values.clamp_min(0)
    if threshold is None:
        count = int((values.cumsum(0) <= energy * values.sum()).sum())
    else:
        count = int((values < threshold).sum())
    return NullSpace(vectors[:, :count], values[:count], float(values[:count].sum() / values.sum()))
