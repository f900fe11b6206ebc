"""UltraEdit: one step from hidden states and gradients that are normalized over all edits so far (Gu et al. 2025)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.arguments import checked
from workbench.changes import low_rank
from workbench.edit_record import EditRecord
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import hyperparameters_of, require_requests, restore_fields
from workbench.editing.mend.factors import Factors, gradient_factors, lowest_block
from workbench.editing.passes.target_texts import compute_upper_blocks
from workbench.editing.presets import preset_for
from workbench.editing.running_moments import Moments
from workbench.encoding import Encoded, encode_request
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import NONNEGATIVE, POSITIVE, Parameter, check_parameters
from workbench.request import EditRequest
from workbench.update import WeightUpdate

_MLP = "model.layers.{}.mlp.{}_proj.weight"
# XiaojieGu/UltraEdit config/model, for ZsRE; those of EasyEdit are the same
PRESETS: dict[str, dict[str, Any]] = {
    "gpt-j-6b": {"inner_params": tuple(f"transformer.h.{i}.mlp.fc_out.weight" for i in range(18, 27))},
    "llama-3-8b": {
        "inner_params": (
            *(_MLP.format(i, "gate") for i in range(11, 16)),
            *(_MLP.format(i, "up") for i in range(18, 25)),
        )
    },
    "mistral-7b-v0.3": {"inner_params": tuple(_MLP.format(i, "down") for i in (29, 30))},
    "qwen2.5-7b": {"inner_params": tuple(_MLP.format(i, part) for part in ("gate", "up") for i in range(18, 27))},
    # of 30 facts at once: reliability 0.93 and locality 0.63, 5e-4 gives 0.76 and 0.77; the rule's gates and
    # up-projections give 0.86 and 0.44 at 3e-4, and nothing is written at the published 1e-6
    "smollm2-135m": {"inner_params": tuple(_MLP.format(i, "down") for i in range(23, 29)), "lr": 1e-3},
}
_FIRST_SHARE, _LAST_SHARE = 18 / 28, 26 / 28  # blocks of GPT-J and Qwen2.5, which both have 28

FACTS_PER_PART = 10  # of one loss in the published code, and of one forward pass here
# EasyEdit's file counts facts by `batch_size_once` and rows of the normalization by `editor_batch_size`
_YAML_IGNORED = frozenset(
    {
        *("alg", "archive", "batch_size", "batch_size_once", "class_name", "dropout", "editor_batch_size", "half"),
        *("max_length", "model_class", "n_edits", "no_grad_layers", "results_dir", "silent"),
        *("tokenizer_class", "tokenizer_name"),
    }
)
_YAML_TOKEN = Parameter("token", str, choices=("ans", "mask"))


@dataclass(frozen=True)
class UltraEdit:
    """Write facts in one linear step, without training, subject or second moment.

    Gu et al. 2025 (arXiv 2505.14679): at each token after which one of the answer is predicted, an edited matrix has an
    input h and a gradient g of the loss at its output. Both are standardized by the mean and the deviation of all such
    tokens of this edit and of the earlier ones of its sequence ("lifelong normalization"), which gives ĥ and ĝ. The
    output is to move by v = −η ‖ĥ‖² ĝ, and ΔW is the ridge regression of the v on the h: with rows h in H and v in V,
    ΔWᵀ = (HᵀH + λ I)⁻¹ Hᵀ V.

    The loss is the NLL of the target, averaged over its tokens. η is for standardized features: how far an output moves
    grows with its width and that of its input.

    Departures, all undone by `as_published`: its code keeps one mean and deviation for all matrices of equal shape,
    here each has its own; it takes the loss over the answer tokens of ten facts together, longest facts first, so that
    a fact's gradient depends on which others stand beside it; and it adds n instead of n − 1 times the variance of each
    such part of n tokens to the sum of squares. The running statistics of earlier edits come from the updates that are
    applied to the model, so that undo takes them back, too.

    The fields are the hyperparameters; `for_model` returns presets.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    supports_batch: ClassVar[bool] = True
    needs_subject: ClassVar[bool] = False
    label: ClassVar[str] = "UltraEdit"

    inner_params: Annotated[tuple[str, ...], "names of the parameters that are edited"]
    lr: Annotated[float, POSITIVE, "η: step along each standardized gradient, per ‖ĥ‖²"] = 1e-6
    ridge: Annotated[float, NONNEGATIVE, "λ: weight of the identity added to HᵀH"] = 1.0
    tokens: Annotated[
        Literal["answer", "all"], "tokens that are used: those that predict the answer, or all of prompt and answer"
    ] = "answer"
    as_published: Annotated[bool, "whether statistics and loss are those of the published code"] = False

    def __post_init__(self) -> None:
        restore_fields(self)
        check_parameters(self)
        if not self.inner_params:
            raise EditError("inner_params must name at least one parameter; got none.")

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> Self:
        """Return the hyperparameters for a model.

        gpt-j-6b, llama-3-8b, mistral-7b-v0.3 and qwen2.5-7b as published; smollm2-135m as measured. Any other model:
        the MLP's input projections (without a gate: its output projection) of the blocks between 18/28 and 26/28 of the
        depth, as for Qwen2.5 and GPT-J.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        Self
        """
        preset = preset_for(PRESETS, lm.name)
        if preset and set(preset["inner_params"]) <= {name for name, _ in lm.model.named_parameters()}:
            return cls(**preset)
        first, last = (min(int(share * lm.n_layers), lm.n_layers - 1) for share in (_FIRST_SHARE, _LAST_SHARE))
        parts = lm.arch.mlp_in if len(lm.arch.mlp_in) > 1 else (lm.arch.mlp_out,)
        names = (f"{lm.arch.block(i)}.{part}.weight" for part in parts for i in range(first, last + 1))
        return cls(inner_params=tuple(names))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one of EasyEdit's UltraEdit hparams files.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys; its `token` is "ans" for ``tokens="answer"`` and "mask" for ``"all"``.

        Returns
        -------
        Self

        Raises
        ------
        EditError
            If the file cannot be read, is not for UltraEdit, has an unknown field or a value that is not allowed, or
            lacks `inner_params`.
        """
        others = {_YAML_TOKEN.name: _YAML_TOKEN}
        given = read_hparams(path, cls, ("inner_params", "lr"), others=others, ignored=_YAML_IGNORED)
        token = given.pop(_YAML_TOKEN.name, "ans")
        names = tuple(name if name.endswith(".weight") else f"{name}.weight" for name in given.pop("inner_params"))
        return cls(inner_params=names, tokens="all" if token == "mask" else "answer", **given)

    def prepared(self, lm: LanguageModel) -> Self:
        """Return this editor; raise `EditError` if `lm` does not have one of the parameters."""
        lowest_block(lm, self.inner_params)
        return self

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
            Factors (d_out, n) and (d_in, n) of each matrix, where n is the number of tokens used. The record holds, as
            `running`, count, mean and sum of squares of this edit's tokens; and as diagnostics `loss_before_edit` (of
            each fact), `n_tokens` (n) and `n_earlier_tokens` (those of earlier edits in the statistics of the first
            matrix).

        Raises
        ------
        EditError
            If there are no requests, a parameter is not a matrix in a block, a loss is not finite, there is only one
            token so far, which has no deviation, or without ridge, H has dependent rows.
        RequestError
            If a target has no tokens.
        """
        require_requests(self, requests)
        self.prepared(lm)
        texts = [encode_request(lm.tokenizer, request) for request in requests]
        parts, losses = self._parts(lm, texts)
        if not all(map(torch.isfinite, losses)):
            raise EditError(f"a loss of {self.label} is not finite before the edit; is {lm.name} intact?")
        own = {name: Moments.of_parts(self._moments(part[name]) for part in parts) for name in self.inner_params}
        earlier = {name: _earlier_moments(lm, name) for name in self.inner_params}
        changes = {}
        for name in self.inner_params:
            H, G = (torch.cat(rows) for rows in zip(*(part[name] for part in parts), strict=True))
            shared = [other for other in self.inner_params if self._share(lm, name, other)]
            moments = Moments.of_parts(part for other in shared for part in (*earlier[other], own[other]))
            if moments.count < 2:
                raise EditError(
                    f"{self.label} compares the tokens of answers, and there is one only; write another fact with it, "
                    "or a longer answer."
                )
            rows = moments.standardized(torch.cat([H, G], dim=1))
            h, g = rows.split([H.shape[1], G.shape[1]], dim=1)
            V = -self.lr * h.square().sum(dim=1, keepdim=True) * g
            gram = H @ H.T
            gram.diagonal().add_(self.ridge)
            factor, failed = torch.linalg.cholesky_ex(gram)
            if failed:
                raise EditError(f"HᵀH of {name} is singular; set ridge to a positive number, such as 1.")
            # (HᵀH + λ I)⁻¹ Hᵀ = Hᵀ (HHᵀ + λ I)⁻¹
            changes[name] = low_rank(lm, name, V.T, torch.cholesky_solve(H, factor).T)
        record = EditRecord(
            self.label,
            tuple(requests),
            hyperparameters_of(self),
            running={name: moments.packed() for name, moments in own.items()},
            diagnostics={
                "loss_before_edit": [float(loss) for loss in losses],
                "n_tokens": own[self.inner_params[0]].count,
                "n_earlier_tokens": sum(part.count for part in earlier[self.inner_params[0]]),
            },
        )
        return WeightUpdate.of_edit(lm, changes, record)

    def _share(self, lm: LanguageModel, name: str, other: str) -> bool:
        """Return whether two matrices are normalized together."""
        return name == other or (self.as_published and lm.linear_shape(name) == lm.linear_shape(other))

    def _moments(self, rows: tuple[Tensor, Tensor]) -> Moments:
        moments = Moments.of(torch.cat(rows, dim=1))
        if self.as_published and moments.count > 1:
            return replace(moments, squares=moments.squares * moments.count / (moments.count - 1))
        return moments

    def _parts(self, lm: LanguageModel, texts: Sequence[Encoded]) -> tuple[list[Factors], list[Tensor]]:
        """Return input (n, d_in) and gradient (n, d_out) of each matrix, part by part, and the loss of each text."""
        parts, losses = [], dict[int, Tensor]()
        for chosen in tqdm(list(self._order(texts)), desc=self.label, unit="pass", leave=False):
            part = [texts[i] for i in chosen]
            upper = compute_upper_blocks(lm, part, lowest_block(lm, self.inner_params))
            tokens = upper.read if self.tokens == "answer" else upper.mask.bool()
            factors, of_part = gradient_factors(upper, part, self.inner_params, tokens)
            losses |= dict(zip(chosen, of_part, strict=True))
            sizes = [len(text.target_ids) for text in part]
            # the gradient of a mean over all answer tokens of the part, from those of the facts' own means
            weights = [size / sum(sizes) if self.as_published else 1.0 for size in sizes]
            parts.append({name: _join([of_text[name] for of_text in factors], weights) for name in self.inner_params})
        return parts, [losses[i] for i in range(len(texts))]

    def _order(self, texts: Sequence[Encoded]) -> Iterator[list[int]]:
        order = list(range(len(texts)))
        if self.as_published:
            order.sort(key=lambda i: -len(texts[i].ids))
        for start in range(0, len(order), FACTS_PER_PART):
            yield order[start : start + FACTS_PER_PART]


def _join(factors: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    inputs = torch.cat([h.double().cpu() for h, _ in factors])
    gradients = torch.cat([g.double().cpu() * weight for (_, g), weight in zip(factors, weights, strict=True)])
    return inputs, gradients


def _earlier_moments(lm: LanguageModel, name: str) -> list[Moments]:
    """Return the moments of one matrix that the applied edits have recorded."""
    return [Moments.unpack(record.running[name]) for record in lm.applied_records if name in record.running]
