"""MEMIT: mass-editing memory in a transformer (Meng et al. 2023, arXiv 2210.07229)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.editing.contexts import checked_contexts, sample_contexts
from workbench.editing.easyedit import read_hparams
from workbench.editing.passes.subject_states import SubjectStates
from workbench.editing.passes.subject_tail import HiddenTail
from workbench.editing.passes.target_vectors import optimize_target_vectors
from workbench.editing.presets import known
from workbench.editing.second_moment.estimate import SecondMoment
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer, from_settings, settings_of
from workbench.request import EditRequest
from workbench.update import WeightUpdate, low_rank

CONTEXT_LENGTHS = ((10, 5),)  # five texts of ten tokens, beside the bare prompt

_LLAMA = {"layers": (4, 5, 6, 7, 8), "clamp_norm_factor": 4.0, "v_weight_decay": 1e-3, "mom2_update_weight": 15_000}
_GPT = {"clamp_norm_factor": 0.75, "v_weight_decay": 0.5}
# Sources: kmeng01/memit hparams/MEMIT (gpt-j-6b); zjunlp/EasyEdit hparams/MEMIT (gpt2-xl; llama-7b.yaml, which is for
# llama-2-7b and the only one for Llama).
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layers": (13, 14, 15, 16, 17), "v_num_grad_steps": 20, "mom2_update_weight": 20_000, **_GPT},
    "gpt-j-6b": {"layers": (3, 4, 5, 6, 7, 8), "mom2_update_weight": 15_000, **_GPT},
    "llama-7b": _LLAMA,
    "llama-2-7b": _LLAMA,
    "smollm2-135m": {**_LLAMA, "layers": (3, 4, 5, 6, 7), "mom2_update_weight": 1000},
}
_N_LAYERS, _LAST_SHARE = 5, 1 / 4  # of Llama's preset: five blocks, the last a quarter of the way up

_YAML_FIELDS = {
    "layers": list[int],
    "v_num_grad_steps": int,
    "v_lr": float,
    "v_weight_decay": float,
    "clamp_norm_factor": float,
    "kl_factor": float,
    "mom2_update_weight": float,
}
# what `SecondMoment` says here, what has one value in all published files, and a batch size for sequences of batches
_YAML_ELSEWHERE = frozenset(
    {"fact_token", "v_loss_layer", "mom2_dataset", "mom2_n_samples", "mom2_dtype", "mom2_adjustment"}
    | {"layer_selection", "batch_size", "max_length"}
)


@dataclass(frozen=True)
class MEMIT:
    """Write many facts in one operation, spread over the MLP output projections of several blocks.

    Meng et al. 2023, section 4. First each fact's target value z, the hidden state after the last of `layers` at the
    subject's last token that makes its target probable (eq. 16, `optimize_target_vectors`). Then, from the lowest block
    to the highest, with what is left to do, r = z − h, computed on the model as the blocks below have been edited:
    ΔW = R Kᵀ (λ C + K Kᵀ)⁻¹ (eq. 14), where the columns of K are the facts' keys, those of R their
    r / (number of blocks still to edit, this one included) (eq. 20), C the second moment of the unedited model's keys
    and λ `mom2_update_weight`. A fact's key is the mean of the bare prompt's and of the mean over the other contexts,
    as in the published code.

    The order of the blocks matters: a higher block's keys and residuals are those that the lower blocks' edits leave.
    `layers` are therefore taken in ascending order, whatever order they are given in.

    Beside the model and C (d_ff², float64), memory grows with N by the block inputs of N · contexts texts up to their
    subjects (float32, d_model a token), the keys and their solution (float64, 2 · d_ff) and the factors (d_ff +
    d_model a fact and block); the optimisation of z holds `facts_at_once` facts at a time, whatever N is.

    Attributes are the hyperparameters; `for_model` gives presets.
    """

    supports_batch = True

    layers: tuple[int, ...]  # blocks whose MLP output projections are edited
    mom2_update_weight: float  # λ: how much C weighs against the keys of the facts
    v_num_grad_steps: int = 25  # optimisation steps for z; the last only evaluates, as published
    v_lr: float = 0.5  # learning rate of Adam
    v_weight_decay: float = 0.5  # times ‖d‖/‖h‖²
    v_loss_threshold: float = 0.05  # a fact stops as soon as its loss is below
    clamp_norm_factor: float = 0.75  # ‖d‖ at most this many times ‖h‖
    kl_factor: float = 0.0625  # weight of the essence's KL
    contexts: tuple[str, ...] | None = None  # templates, "{}" first; None: sampled from the model with `seed`
    second_moment: SecondMoment | None = None  # how C is estimated; None: SecondMoment()
    each_layer: Regularizer | None = None  # applied to each block's ΔW before the next block is solved
    facts_at_once: int = 32  # facts whose z share a forward pass; changes time and memory, not the result
    seed: int = 0  # draws the contexts

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))
        if isinstance(self.each_layer, dict):  # from a saved update's record, as is the next
            object.__setattr__(self, "each_layer", from_settings(self.each_layer))
        if isinstance(self.second_moment, dict):
            object.__setattr__(self, "second_moment", SecondMoment(**self.second_moment))
        if not self.layers:
            raise EditError("layers must hold at least one block; got none.")
        if not 0 < self.mom2_update_weight < float("inf"):
            raise EditError(f"mom2_update_weight must be a positive number; got {self.mom2_update_weight}.")
        for name in ("v_num_grad_steps", "facts_at_once"):
            if getattr(self, name) < 1:
                raise EditError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not 0 < self.v_lr < float("inf"):
            raise EditError(f"v_lr must be a positive number; got {self.v_lr}.")
        object.__setattr__(self, "contexts", checked_contexts(self.contexts))

    @classmethod
    def for_model(cls, lm: LanguageModel) -> "MEMIT":
        """Hyperparameters for a model: published or measured where known, else by the rule below.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as published (MEMIT's code, EasyEdit); the embedded model as
        measured in notebooks/08_methods. Any other: rates as for Llama, five blocks that end a quarter of the way up,
        and λ = d_ff, since the published values are 0.9 to 3.1 times that.

        Parameters
        ----------
        lm : LanguageModel
            Known by its name, or the last part of it.

        Returns
        -------
        MEMIT
        """
        preset = known(PRESETS, lm.name)
        if preset is not None and max(preset["layers"]) < lm.n_layers:
            return cls(**preset)
        last = int(lm.n_layers * _LAST_SHARE)
        layers = tuple(range(max(0, last + 1 - _N_LAYERS), last + 1))
        d_ff, _ = lm.linear_shape(lm.arch.mlp_out_weight(last))
        return cls(**{**_LLAMA, "layers": layers, "mom2_update_weight": d_ff})

    @classmethod
    def from_yaml(cls, path: str | Path) -> "MEMIT":
        """Read one of EasyEdit's MEMIT hparams files.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys.

        Returns
        -------
        MEMIT

        Raises
        ------
        EditError
            If the file cannot be read, is not for MEMIT, has a field that is not known, or lacks one without default.
        """
        given = read_hparams(path, "MEMIT", _YAML_FIELDS, elsewhere=_YAML_ELSEWHERE)
        for name in ("layers", "mom2_update_weight"):
            if name not in given:
                raise EditError(f"{path}: {name} is missing; MEMIT has no default for it.")
        return cls(**given)

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return "MEMIT"

    def prepared(self, lm: LanguageModel) -> "MEMIT":
        """A copy with the context templates filled in, sampled from `lm` as it is now; C is computed if need be.

        Call it once, on the unedited model, before a sequence of edits.
        """
        for layer in self.layers:
            lm.check_layer(layer)
        self._moments(lm)
        if self.contexts:
            return self
        return replace(self, contexts=sample_contexts(lm, seed=self.seed, lengths=CONTEXT_LENGTHS))

    def _moments(self, lm: LanguageModel) -> dict[int, Tensor]:
        return (self.second_moment or SecondMoment()).of(lm, list(self.layers))

    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """The update that writes all requests in one operation; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model as it is now, with earlier edits if any are applied.
        requests : list of EditRequest
            N facts.

        Returns
        -------
        WeightUpdate
            Of each edited matrix factors (d_out, N) and (d_in, N), unless `each_layer` made something else of them;
            `info` has the contexts and, for each fact, `steps`, `loss` (at the last step) and `target_norm` (‖z‖), and,
            for each block, `residual` (mean ‖z − h‖ before its edit) and `relative_norm` (‖ΔW‖/‖W‖).

        Raises
        ------
        EditError
            If there are no requests, two give one prompt two answers, a layer is out of range, a loss is not finite,
            or λ C + K Kᵀ is singular.
        RequestError
            If a target tokenises to nothing.
        """
        _check_requests(requests)
        memit = self.prepared(lm)
        moments = memit._moments(lm)
        targets, losses = target_hidden(lm, memit, requests)
        states = SubjectStates(lm, requests, memit.contexts, memit.layers)
        total, residuals, relative_norms = WeightUpdate({}), [], []
        with lm.restored_after():
            for i, layer in enumerate(memit.layers):
                keys, hidden = states.at(layer)  # (N, d_ff), (N, d_model)
                residual = targets - hidden.double()
                share = residual / (len(memit.layers) - i)
                adjusted = solve_keys(moments[layer], keys, memit.mom2_update_weight)
                update = _update_of(lm, layer, share, adjusted)
                if memit.each_layer is not None:
                    update = memit.each_layer(update, lm)
                residuals.append(float(residual.norm(dim=1).mean()))
                relative_norms.append(_relative_norm(update, lm))
                update.apply(lm)
                total = total + update
        info = {
            "method": self.label,
            "requests": [asdict(request) for request in requests],
            "hyperparameters": asdict(memit) | {"each_layer": memit.each_layer and settings_of(memit.each_layer)},
            "steps": [len(each) for each in losses],
            "loss": [each[-1] for each in losses],
            "target_norm": targets.norm(dim=1).tolist(),
            "residual": residuals,
            "relative_norm": relative_norms,
        }
        return WeightUpdate(total.changes, (info,), lm.name, lm.fingerprint)


def target_hidden(lm: LanguageModel, memit: MEMIT, requests: Sequence[EditRequest]) -> tuple[Tensor, list[list[float]]]:
    """The target value z of each fact: the hidden state after the last edited block that makes its target probable.

    Meng et al. 2023, eq. 16; see `optimize_target_vectors`.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    memit : MEMIT
        With its contexts filled in.
    requests : sequence of EditRequest
        N facts.

    Returns
    -------
    z : Tensor (N, d_model)
        float64.
    losses : list of list of float
        Of each fact, at every step.

    Raises
    ------
    EditError
        If a loss is not finite.
    RequestError
        If a target tokenises to nothing.
    """
    tail_of = partial(HiddenTail.of, lm, layer=memit.layers[-1])
    vectors = optimize_target_vectors(lm, requests, tail_of, memit, facts_at_once=memit.facts_at_once)
    found = {i: (vector.target, vector.losses) for i, vector in vectors}
    z, losses = zip(*(found[i] for i in range(len(requests))), strict=True)
    return torch.stack(z), list(losses)


def solve_keys(C: Tensor, keys: Tensor, weight: float) -> Tensor:
    """(λ C + K Kᵀ)⁻¹ K by a Cholesky factorisation in float64.

    Meng et al. 2023, eq. 14: ΔW = R Kᵀ (λ C + K Kᵀ)⁻¹, so that ΔW = R @ solve_keys(...)ᵀ.

    Parameters
    ----------
    C : Tensor (d_ff, d_ff)
        Second moment of the keys, positive semidefinite.
    keys : Tensor (N, d_ff)
        Kᵀ.
    weight : float
        λ, positive.

    Returns
    -------
    Tensor (d_ff, N)
        float64, on the device of `keys`.

    Raises
    ------
    EditError
        If λ C + K Kᵀ is singular: C needs more tokens than the keys have dimensions.
    """
    K = keys.double().T
    system = weight * C.to(K.device, torch.float64) + K @ K.T
    # a neuron that never fired, in C or in K, has nothing to solve: its row of the solution is zero
    system.diagonal().masked_fill_(system.diagonal() == 0, 1.0)
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:
        raise EditError(f"λ C + K Kᵀ of {len(C)} dimensions is singular; estimate C from more tokens.")
    return torch.cholesky_solve(K, factor)


def _update_of(lm: LanguageModel, layer: int, residual: Tensor, adjusted: Tensor) -> WeightUpdate:
    """ΔW = R adjustedᵀ of one block, (N, d_model) and (d_ff, N)."""
    name = lm.arch.mlp_out_weight(layer)
    change = low_rank(lm, name, residual.T, adjusted.to(residual.device))
    return WeightUpdate({name: change}, model=lm.name, fingerprint=lm.fingerprint)


def _relative_norm(update: WeightUpdate, lm: LanguageModel) -> float:
    (name,) = update
    return float(update.delta(name).norm() / lm.weight(name).norm())


def _check_requests(requests: Sequence[EditRequest]) -> None:
    if not requests:
        raise EditError("MEMIT needs at least one request; got none.")
    answers: dict[str, str] = {}
    for request in requests:
        answer = answers.setdefault(request.filled_prompt, request.target_new)
        if answer.strip() != request.target_new.strip():
            raise EditError(
                f"{request.filled_prompt!r} is given two answers in one batch, {answer!r} and {request.target_new!r}; "
                "a batch writes all its facts at once, so keep one."
            )
