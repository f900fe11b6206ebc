"""MEMIT: mass-editing memory in a transformer (Meng et al. 2023, arXiv 2210.07229)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.changes import low_rank
from workbench.edit_record import EditRecord
from workbench.editing.contexts import check_contexts, sample_contexts
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import (
    Contexts,
    ContextSeed,
    hyperparameters_of,
    require_requests,
    require_subjects,
    restore_fields,
    set_field,
    sort_layers,
)
from workbench.editing.passes.mlp_norm import value_changes
from workbench.editing.passes.subject_states import SubjectStates
from workbench.editing.passes.subject_tail import HiddenTail
from workbench.editing.passes.target_vectors import optimize_target_vectors
from workbench.editing.presets import preset_for
from workbench.editing.second_moment.estimate import SecondMoment
from workbench.editing.solve import solve_keys
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import COUNT, NONNEGATIVE, POSITIVE, Interval, check_parameters
from workbench.regularize import Regularizer
from workbench.request import EditRequest
from workbench.update import WeightUpdate

CONTEXT_LENGTHS = ((10, 5),)  # five texts of ten tokens, besides the bare prompt

_LLAMA_RATES: dict[str, Any] = {"clamp_norm_factor": 4.0, "v_weight_decay": 1e-3}
_LLAMA = {"layers": (4, 5, 6, 7, 8), "mom2_update_weight": 15_000, **_LLAMA_RATES}
_GPT = {"clamp_norm_factor": 0.75, "v_weight_decay": 0.5}
# Sources: kmeng01/memit hparams/MEMIT (gpt-j-6b); zjunlp/EasyEdit hparams/MEMIT (gpt2-xl; llama-7b.yaml, which is for
# llama-2-7b and the only one for Llama).
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layers": (13, 14, 15, 16, 17), "v_num_grad_steps": 20, "mom2_update_weight": 20_000, **_GPT},
    "gpt-j-6b": {"layers": (3, 4, 5, 6, 7, 8), "mom2_update_weight": 15_000, **_GPT},
    "llama-7b": _LLAMA,
    "llama-2-7b": _LLAMA,
    "smollm2-135m": {"layers": (3, 4, 5, 6, 7), "mom2_update_weight": 1000, **_LLAMA_RATES},
    # hidden states there are thousands long; λ = 50 gives the same scores (docs/methods.md)
    "gemma3-270m": {
        **{"layers": (3, 4, 5, 6, 7), "mom2_update_weight": 1000, "v_lr": 20.0},
        **{"clamp_norm_factor": 0.75, "v_weight_decay": 1e-3},
    },
}
# scalable-model-editing/encore: λ_n and n of MPES
_ENCORE: dict[str, dict[str, Any]] = {
    "llama-2": {"v_predicted_steps": 3},
    "llama-3": {"ridge": 20.0, "v_predicted_steps": 2},
}
_N_LAYERS, _LAST_SHARE = 5, 1 / 4  # of Llama's preset: five blocks, the last a quarter of the way up

MEMIT_YAML_FIELDS = (
    *("layers", "v_num_grad_steps", "v_lr", "v_weight_decay", "clamp_norm_factor", "kl_factor"),
    "mom2_update_weight",
)
# what `SecondMoment` says here, what has one value in all published files, and a batch size for sequences of batches
MEMIT_YAML_IGNORED = frozenset(
    {"fact_token", "v_loss_layer", "mom2_dataset", "mom2_n_samples", "mom2_dtype", "mom2_adjustment"}
    | {"layer_selection", "batch_size", "max_length"}
)


@dataclass(frozen=True)
class MEMIT:
    """Write many facts in one operation, spread over the MLP output projections of several blocks.

    Meng et al. 2023, section 4. First, the target value z of each fact is optimized: the hidden state after the last of
    `layers`, at the subject's last token, that makes the target probable (eq. 16, `optimize_target_vectors`). Then the
    blocks are edited from the lowest to the highest, each on the model with the blocks below already edited. With the
    remaining residual r = z − h, ΔW = R Kᵀ (λ C + K Kᵀ)⁻¹ (eq. 14), where the columns of K are the keys of the facts,
    those of R their r / (number of blocks still to edit, this one included) (eq. 20), C is the second moment of the
    unedited model's keys and λ is `mom2_update_weight`. The key of a fact is the mean of the bare prompt's key and the
    mean key over the other contexts, as in the published code.

    That r moves h by ΔW k = r holds where the MLP's output is added to the residual stream. In Gemma 2 and 3 a norm is
    between, whatever the length of its input. There the columns of R are the changes of the values after which the MLP
    adds what is closest to its share of r (`value_changes`), which is not part of the published method.

    For edits in sequence, `remember` makes it MEMIT-seq, which also keeps what it wrote before; `ridge` and
    `v_predicted_steps` make that ENCORE, which bounds ‖ΔW‖ and stops early (`solve_keys`). The keys of earlier edits
    come from the updates that are applied to the model, so that undo and resume need nothing else.

    The order of the blocks matters: the keys and residuals of a higher block depend on the edits of the lower ones.
    `layers` are therefore sorted in ascending order.

    Besides the model and C (d_ff², float64), memory grows with N by the block inputs of N · contexts texts up to their
    subjects (float32, d_model per token), the keys and their solution (float64, 2 · d_ff per fact) and the factors
    (d_ff + d_model per fact and block). The optimization of z holds `facts_at_once` facts at a time, whatever N is.

    The fields are the hyperparameters; `for_model` returns presets.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    supports_batch: ClassVar[bool] = True
    needs_subject: ClassVar[bool] = True

    layers: Annotated[tuple[int, ...], Interval(0), "blocks whose MLP output projections are edited"]
    mom2_update_weight: Annotated[float, POSITIVE, "λ: weight of C against the keys of the facts"]
    v_num_grad_steps: Annotated[int, COUNT, "optimization steps for z; the last only evaluates the loss"] = 25
    v_lr: Annotated[float, POSITIVE, "learning rate of Adam"] = 0.5
    v_weight_decay: Annotated[float, NONNEGATIVE, "weight of ‖d‖/‖h‖² in the loss"] = 0.5
    v_loss_threshold: Annotated[float, NONNEGATIVE, "loss below which the optimization of a fact stops"] = 0.05
    v_predicted_steps: Annotated[
        int | None, COUNT, "steps at which the target is predicted in all contexts, after which it stops (MPES)"
    ] = None
    clamp_norm_factor: Annotated[float, POSITIVE, "largest ‖d‖, as a multiple of ‖h‖"] = 0.75
    kl_factor: Annotated[float, NONNEGATIVE, "weight of the KL of '{subject} is a' in the loss"] = 0.0625
    contexts: Contexts = None
    second_moment: Annotated[SecondMoment | None, "how C is estimated; None: SecondMoment()"] = None
    remember: Annotated[bool, "whether the keys of earlier edits K_p are kept: K_p K_pᵀ is added to the system"] = False
    ridge: Annotated[float, NONNEGATIVE, "λ_n: weight of the identity in the system, which bounds ‖ΔW‖"] = 0.0
    each_layer: Annotated[
        Regularizer | None, "regularizer of each block's ΔW, applied before the next block is solved"
    ] = None
    facts_at_once: Annotated[
        int, COUNT, "facts whose z share a forward pass; changes time and memory, not the result"
    ] = 32
    seed: ContextSeed = 0

    def __post_init__(self) -> None:
        restore_fields(self)
        check_parameters(self)
        check_contexts(self.contexts)
        set_field(self, "layers", sort_layers(self.layers))

    @property
    def label(self) -> str:
        """Name in tables and legends: MEMIT, MEMIT-seq if it remembers earlier edits, ENCORE if it has a ridge, too."""
        return ("ENCORE" if self.ridge else "MEMIT-seq") if self.remember else "MEMIT"

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> Self:
        """Return the hyperparameters for a model: published or measured ones, or by the rule below.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as published (MEMIT's code, EasyEdit); the embedded models as
        measured in notebooks/08_methods. Any other model: what `workbench tune` has found, else rates as for Llama,
        five blocks that end a quarter of the way up, and λ = d_ff, because the published values are 0.9 to 3.1 times
        d_ff.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        Self
        """
        if preset := preset_for(PRESETS, lm.name, n_layers=lm.n_layers, tuned="memit"):
            return cls(**preset)
        last = int(lm.n_layers * _LAST_SHARE)
        layers = tuple(range(max(0, last + 1 - _N_LAYERS), last + 1))
        d_ff, _ = lm.linear_shape(lm.arch.mlp_out_weight(last))
        return cls(layers=layers, mom2_update_weight=d_ff, **_LLAMA_RATES)

    @classmethod
    @checked
    def encore_for_model(cls, lm: LanguageModel) -> Self:
        """Return ENCORE's hyperparameters: MEMIT's for the model, with the memory, λ_n and MPES as published.

        Gupta et al. 2025 (arXiv 2502.01636): λ_n is 10 for GPT-2 XL and Llama 2 and 20 for Llama 3, the optimization
        stops at the 4th, 3rd and 2nd step at which the target is predicted. Other models: 10, and the 4th.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name.

        Returns
        -------
        Self
        """
        given: dict[str, Any] = {"ridge": 10.0, "v_predicted_steps": 4}
        for name, published in _ENCORE.items():
            if name in lm.name.lower():
                given |= published
        return replace(cls.for_model(lm), remember=True, **given)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one of EasyEdit's MEMIT hparams files.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys.

        Returns
        -------
        Self

        Raises
        ------
        EditError
            If the file cannot be read, is not for MEMIT, has an unknown field or a value that is not allowed, or lacks
            a field without default.
        """
        return cls(**read_hparams(path, cls, MEMIT_YAML_FIELDS, ignored=MEMIT_YAML_IGNORED))

    def prepared(self, lm: LanguageModel) -> Self:
        """Return a copy with the context templates filled in, sampled from the unedited `lm`; C is computed if needed.

        Raises `EditError` if `lm` does not have one of the layers, or C cannot be computed.
        """
        for layer in self.layers:
            lm.check_layer(layer)
        self._second_moments(lm)
        if self.contexts:
            return self
        return replace(self, contexts=sample_contexts(lm, seed=self.seed, lengths=CONTEXT_LENGTHS))

    def _second_moments(self, lm: LanguageModel) -> dict[int, Tensor]:
        return (self.second_moment or SecondMoment()).compute(lm, list(self.layers))

    @checked
    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """Return the update that writes all requests in one operation; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model, with earlier edits if any are applied.
        requests : list of EditRequest
            The N facts to write.

        Returns
        -------
        WeightUpdate
            Factors (d_out, N) and (d_in, N) of each edited matrix, unless `each_layer` returned something else. The
            record holds the loss of each fact at every step; the keys of each matrix when it was solved; and as
            diagnostics `target_norm` (‖z‖ of each fact) and `residual` (mean ‖z − h‖ before the edit of each block).

        Raises
        ------
        EditError
            If there are no requests, one has no subject, two give one prompt two answers, a layer is out of range, a
            loss is not finite, or λ C + K Kᵀ is singular.
        RequestError
            If a target has no tokens.
        """
        require_requests(self, requests)
        require_subjects(self, requests)
        _check_answers(requests)
        memit = self.prepared(lm)
        assert memit.contexts is not None
        moments = memit._second_moments(lm)
        targets, losses = target_hidden(lm, memit, requests)
        states = SubjectStates(lm, requests, memit.contexts, memit.layers)
        total, keys_of, residuals, diagnostics = WeightUpdate({}), {}, [], []
        with lm.restored_after():
            for i, layer in enumerate(memit.layers):
                name = lm.arch.mlp_out_weight(layer)
                keys, hidden = states.keys_and_hidden(layer)  # (N, d_ff), (N, d_model)
                residual = targets - hidden.double()
                share = residual / (len(memit.layers) - i)
                if lm.arch.mlp_norm is not None:
                    share = value_changes(lm, layer, states.values(layer), share)
                adjusted, seen = memit._solve(lm, layer, moments[layer], keys)
                diagnostics.append(seen)
                change = low_rank(lm, name, share.T, adjusted)  # ΔW = R adjustedᵀ
                update = WeightUpdate({name: change}, model=lm.name, fingerprint=lm.fingerprint)
                if memit.each_layer is not None:
                    update = memit.each_layer(update, lm)
                keys_of[name] = keys.float().cpu()
                residuals.append(float(residual.norm(dim=1).mean()))
                update.apply(lm)
                total = total + update
        record = EditRecord(
            self.label,
            tuple(requests),
            hyperparameters_of(memit),
            losses=tuple(map(tuple, losses)),
            keys=keys_of,
            diagnostics={
                "target_norm": targets.norm(dim=1).tolist(),
                "residual": residuals,
                **{key: [each[key] for each in diagnostics] for key in diagnostics[0]},
            },
        )
        return WeightUpdate.of_edit(lm, total.changes, record)

    def _earlier_keys(self, lm: LanguageModel, layer: int) -> Tensor | None:
        return earlier_keys(lm, lm.arch.mlp_out_weight(layer)) if self.remember else None

    def _solve(self, lm: LanguageModel, layer: int, C: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return (d_ff, N) with which ΔW = R @ itᵀ, and what is reported about it."""
        earlier = self._earlier_keys(lm, layer)
        return solve_keys(C, keys, self.mom2_update_weight, earlier=earlier, ridge=self.ridge), {}


def earlier_keys(lm: LanguageModel, name: str) -> Tensor | None:
    """Return the keys that the edits applied to a model write to in one parameter.

    Parameters
    ----------
    lm : LanguageModel
        The model with earlier edits applied.
    name : str
        Name of the parameter.

    Returns
    -------
    Tensor (N_p, d_in) or None
        None if no applied edit has keys there.
    """
    keys = [record.keys[name] for record in lm.applied_records if name in record.keys]
    return torch.cat(keys) if keys else None


def target_hidden(lm: LanguageModel, memit: MEMIT, requests: Sequence[EditRequest]) -> tuple[Tensor, list[list[float]]]:
    """Return the target value z of each fact: the hidden state after the last edited block that makes it probable.

    Meng et al. 2023, eq. 16; see `optimize_target_vectors`.

    Parameters
    ----------
    lm : LanguageModel
        The model, which is not changed.
    memit : MEMIT
        Hyperparameters, with the contexts filled in.
    requests : sequence of EditRequest
        N facts.

    Returns
    -------
    z : Tensor (N, d_model)
        float64.
    losses : list of list of float
        Loss of each fact at every step.

    Raises
    ------
    EditError
        If a loss is not finite.
    RequestError
        If a target has no tokens.
    """
    compute_tail = partial(HiddenTail.compute, lm, layer=memit.layers[-1])
    vectors = optimize_target_vectors(lm, requests, compute_tail, memit, facts_at_once=memit.facts_at_once)
    found = {i: (vector.target, vector.losses) for i, vector in vectors}  # without the tails, which take memory
    z, losses = zip(*(found[i] for i in range(len(requests))), strict=True)
    return torch.stack(z), list(losses)


def _check_answers(requests: Sequence[EditRequest]) -> None:
    """Raise `EditError` if two requests give one prompt different answers."""
    answers: dict[str, str] = {}
    for request in requests:
        answer = answers.setdefault(request.filled_prompt, request.target_new)
        if answer.strip() != request.target_new.strip():
            raise EditError(
                f"{request.filled_prompt!r} is given two answers in one batch, {answer!r} and {request.target_new!r}; "
                "a batch writes all its facts at once, so keep one."
            )
