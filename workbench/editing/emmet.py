"""EMMET: ROME's equality constraint for several facts at once (Gupta et al. 2024, arXiv 2403.14236)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.editing.easyedit import read_hparams
from workbench.editing.memit import MEMIT, MEMIT_YAML_FIELDS, MEMIT_YAML_IGNORED
from workbench.editing.presets import preset_for
from workbench.editing.rome import ROME
from workbench.editing.solve import solve_spd, sum_moments
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import NONNEGATIVE, POSITIVE, Interval, Parameter

_GPT: dict[str, Any] = {"clamp_norm_factor": 0.75, "v_weight_decay": 0.5}
# scalable-model-editing/unified-model-editing hparams/EMMET
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layers": (17,), "v_num_grad_steps": 20, "mom2_update_weight": 1000.0, **_GPT},
    "gpt-j-6b": {"layers": (5,), "mom2_update_weight": 10_000.0, **_GPT},
    "llama-2-7b": {"layers": (5,), "clamp_norm_factor": 4.0, "v_weight_decay": 1e-3},
}
_YAML_NAMES = {"emmet_lambda": "absolute_ridge"}
# a term that the published runs leave out
_NO_PENALTY = Parameter("update_norm_lambda", float, interval=Interval(0, 0))
_SMALLEST_SHARE = 1e-10  # below it float64 leaves the solution less than six digits


@dataclass(frozen=True)
class EMMET(MEMIT):
    """Write facts exactly, with the smallest change to what ordinary keys are mapped to.

    Gupta et al. 2024, eq. 11: among all ΔW with (W + ΔW) K = V, the one that minimizes tr(ΔW C' ΔWᵀ) is
    ΔW = R D⁻¹ Kᵀ C'⁻¹ with D = Kᵀ C'⁻¹ K and R = V − W K. MEMIT weighs the facts against C instead. Keys, target values
    and residuals are as in `MEMIT`; C' is C times `mom2_update_weight`, which without a ridge cancels. For one fact and
    the same key and value it is ROME's formula.

    Departures: the published code inverts D + 0.1 I, which is no longer the constraint, and by how much depends on the
    scale of C'. Here D is inverted as it is; `ridge` adds a multiple of its mean diagonal to it, and `absolute_ridge`
    the published constant. With `remember`, K_p K_pᵀ of the earlier edits is added to C', which the publication does
    not have. More than one block shares the residual, as in MEMIT; the publication edits one.

    The record of an edit has as ``own_share``, for each block, the smallest share of a key, in the norm of C'⁻¹, that
    is outside the span of the keys before it; where it is 0, no ΔW writes all facts exactly.

    The fields are the hyperparameters; `for_model` returns presets.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    mom2_update_weight: Annotated[float, POSITIVE, "w: C' = w C; cancels without a ridge"] = 1.0
    ridge: Annotated[float, NONNEGATIVE, "weight of the identity added to D, as a multiple of D's mean diagonal"] = 0.0
    absolute_ridge: Annotated[
        float | None, NONNEGATIVE, "weight of the identity added to D, instead of `ridge`; as published 0.1"
    ] = None

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return "EMMET"

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> Self:
        """Return the hyperparameters for a model: the published block and rates, or ROME's block and MEMIT's rates.

        gpt2-xl, gpt-j-6b and llama-2-7b as published, without the ridge. Any other model: not tuned.

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
        return replace(super().for_model(lm), layers=(ROME.for_model(lm).layer,), mom2_update_weight=1.0)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one of EasyEdit's EMMET hparams files.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys: its `emmet_lambda` is `absolute_ridge`.

        Returns
        -------
        Self

        Raises
        ------
        EditError
            If the file cannot be read, is not for EMMET, has an unknown field or a value that is not allowed, or lacks
            `layers`.
        """
        others = {_NO_PENALTY.name: _NO_PENALTY}
        given = read_hparams(
            path, cls, MEMIT_YAML_FIELDS, others=others, renamed=_YAML_NAMES, ignored=MEMIT_YAML_IGNORED
        )
        given.pop(_NO_PENALTY.name, None)
        return cls(**given)

    def _solve(self, lm: LanguageModel, layer: int, C: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, float]]:
        earlier = self._earlier_keys(lm, layer)
        K = keys.double().T
        system = sum_moments(C, self.mom2_update_weight, keys[:0] if earlier is None else earlier.to(K.device))
        u = solve_spd(system, K, "C")  # C'⁻¹ K
        D = K.T @ u
        scale = D.diagonal().sqrt()
        shares = torch.linalg.cholesky_ex(D / scale / scale[:, None]).L.diagonal() ** 2
        own_share = float(shares.nan_to_num(0.0).min())
        ridge = self.absolute_ridge if self.absolute_ridge is not None else self.ridge * float(D.diagonal().mean())
        D.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(D)
        if failed or (not ridge and own_share < _SMALLEST_SHARE):
            raise EditError(
                f"no update of layer {layer} writes all {len(keys)} facts exactly, because their keys depend linearly "
                "on each other; set ridge to 0.01 or more."
            )
        return torch.cholesky_solve(u.T, factor).T, {"own_share": own_share}
