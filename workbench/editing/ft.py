"""FT and FT-L: fine-tuning of single MLP output projections, free or within an L∞ ball (Zhu et al. 2020)."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.easyedit import read_hparams
from workbench.editing.passes.hooks import hooked
from workbench.editing.passes.target_texts import target_nll, upper_blocks
from workbench.editing.presets import known
from workbench.encoding import Encoded, encode_request
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import Dense, WeightUpdate

# Sources: zjunlp/EasyEdit hparams/FT: gpt2-xl.yaml and EleutherAI_gpt-j-6B_constr.json (both with their constraint);
# llama-7b.yaml, which is for llama-2-7b and has no constraint: there FT-L takes GPT-2 XL's.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layers": (0,), "norm_constraint": 5e-4},
    "gpt-j-6b": {"layers": (0,), "norm_constraint": 5e-5},
    "llama-7b": {"layers": (21,), "norm_constraint": 5e-4},
    "llama-2-7b": {"layers": (21,), "norm_constraint": 5e-4},
    # of ten facts 5e-4 writes none and 2e-3 one, 5e-3 nine; without a constraint all, at a greater cost to others
    "smollm2-135m": {"layers": (20,), "norm_constraint": 5e-3},
}
# Plain FT was published at other layers, in the same folder: gpt2-xl_unconstr.json; gpt-j-6B.yaml.
UNCONSTRAINED_PRESETS: dict[str, dict[str, Any]] = {"gpt2-xl": {"layers": (1,)}, "gpt-j-6b": {"layers": (21,)}}
_DEPTH_SHARE = 2 / 3  # where Llama's preset lies: layer 21 of 32

_YAML_FIELDS = {
    "layers": list[int],
    "num_steps": int,
    "batch_size": int,
    "lr": float,
    "weight_decay": float,
    "norm_constraint": float | None,
}
# the published code never reads kl_factor
_YAML_ELSEWHERE = frozenset({"kl_factor", "max_length", "objective_optimization"})


@dataclass(frozen=True)
class FT:
    """Fine-tune the MLP output projections of some blocks on the facts.

    Adam on ΔW, for the NLL of the target given the prompt, per token, mean over the facts of a minibatch; a minibatch
    whose loss is below `loss_threshold` makes no step, and training ends when the mean over all is. With
    `norm_constraint` ε (FT-L; the constrained fine-tuning of Zhu et al. 2020, arXiv 2012.00363) every entry of ΔW is
    clamped to [−ε, ε] after each step: projected gradient descent in the L∞ ball, as in the code of ROME and EasyEdit.

    The loss is EasyEdit's "target_new": each target token is read where it is predicted. ROME's code, and EasyEdit's
    "prompt_last", read all of them at the prompt's last token, which is no likelihood of a target of several tokens.
    EasyEdit's files call that loss FT-L and the other FT-M, whatever the constraint; here FT-L is the constrained
    method.

    Attributes are the hyperparameters; `for_model` gives presets.

    Raises
    ------
    EditError
        If a hyperparameter is outside its range.
    """

    supports_batch = True

    layers: tuple[int, ...]  # blocks whose MLP output projections are trained
    num_steps: int = 25  # passes over the facts
    lr: float = 5e-4  # learning rate of Adam
    weight_decay: float = 0.0  # of Adam, on the whole weight, as published
    norm_constraint: float | None = 5e-4  # largest |ΔW| of an entry; None: no constraint, plain FT
    batch_size: int = 32  # facts in a minibatch; EasyEdit's files say 1 or 3, ROME's code 128
    loss_threshold: float = 1e-2  # per token

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))
        if not self.layers:
            raise EditError("layers must hold at least one block; got none.")
        for name in ("num_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise EditError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("lr", "norm_constraint"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise EditError(f"{name} must be a positive number; got {value}.")
        for name in ("weight_decay", "loss_threshold"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise EditError(f"{name} must be a number of at least 0; got {getattr(self, name)}.")

    @classmethod
    def for_model(cls, lm: LanguageModel) -> "FT":
        """Hyperparameters of FT-L for a model.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as published (EasyEdit); the embedded model as measured. Any other:
        the block two thirds of the way up, as for Llama, with ε = 5e-4.

        Parameters
        ----------
        lm : LanguageModel
            Known by its name, or the last part of it.

        Returns
        -------
        FT
        """
        preset = known(PRESETS, lm.name)
        if preset is not None and max(preset["layers"]) < lm.n_layers:
            return cls(**preset)
        return cls(layers=(int(lm.n_layers * _DEPTH_SHARE),))

    @classmethod
    def unconstrained_for_model(cls, lm: LanguageModel) -> "FT":
        """Hyperparameters of plain FT for a model: those of `for_model` without the constraint, at FT's own layers.

        Parameters
        ----------
        lm : LanguageModel
            Known by its name, or the last part of it.

        Returns
        -------
        FT
            At layer 1 of gpt2-xl and 21 of gpt-j-6b as published; else at FT-L's.
        """
        ft = replace(cls.for_model(lm), norm_constraint=None)
        preset = known(UNCONSTRAINED_PRESETS, lm.name)
        return ft if preset is None or max(preset["layers"]) >= lm.n_layers else replace(ft, **preset)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "FT":
        """Read one of EasyEdit's FT hparams files.

        `objective_optimization` is accepted and changes nothing: the loss is that of "target_new".

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys.

        Returns
        -------
        FT

        Raises
        ------
        EditError
            If the file cannot be read, is not for FT, has a field that is not known, or lacks `layers`.
        """
        given = read_hparams(path, "FT", _YAML_FIELDS, elsewhere=_YAML_ELSEWHERE)
        if "layers" not in given:
            raise EditError(f"{path}: layers is missing; FT has no default for it.")
        return cls(**{"norm_constraint": None} | given)

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return "FT" if self.norm_constraint is None else "FT-L"

    def prepared(self, lm: LanguageModel) -> "FT":
        """Return this editor; raises `EditError` if `lm` has no such layer."""
        for layer in self.layers:
            lm.check_layer(layer)
        return self

    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """The update that writes all requests in one operation; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model as it is now, with earlier edits if any are applied.
        requests : list of EditRequest
            N facts, in minibatches in this order.

        Returns
        -------
        WeightUpdate
            Dense ΔW of each layer's matrix, float32 or wider; `info` has `losses` (the mean of each pass) and, for each
            layer, `relative_norm` (‖ΔW‖/‖W‖).

        Raises
        ------
        EditError
            If there are no requests, a layer is out of range, or a loss is not finite.
        RequestError
            If a target tokenises to nothing.
        """
        if not requests:
            raise EditError(f"{self.label} needs at least one request; got none.")
        self.prepared(lm)
        texts = [encode_request(lm.tokenizer, request) for request in requests]
        batches = [texts[i : i + self.batch_size] for i in range(0, len(texts), self.batch_size)]
        losses_of = [_loss_of(lm, batch, self.layers[0]) for batch in batches]
        names = {layer: lm.arch.mlp_out_weight(layer) for layer in self.layers}
        deltas = {layer: _zeros_like(lm.weight(name)) for layer, name in names.items()}
        losses = self._train(lm, deltas, losses_of, [len(batch) for batch in batches])
        found = {names[layer]: delta.detach() for layer, delta in deltas.items()}
        info = {
            "method": self.label,
            "requests": [asdict(request) for request in requests],
            "hyperparameters": asdict(self),
            "losses": losses,
            "relative_norm": [float(delta.norm() / lm.weight(name).norm()) for name, delta in found.items()],
        }
        return WeightUpdate({name: Dense(delta) for name, delta in found.items()}, (info,), lm.name, lm.fingerprint)

    def _train(
        self,
        lm: LanguageModel,
        deltas: dict[int, Tensor],
        losses_of: list[Callable[[], Tensor]],
        sizes: list[int],
    ) -> list[float]:
        """Optimise `deltas` in place; the mean loss of each pass."""
        adam, history = torch.optim.Adam(deltas.values(), lr=self.lr), []
        with ExitStack() as stack, torch.enable_grad():
            for layer, delta in deltas.items():
                stack.enter_context(hooked(lm.mlp_out(layer), _adds(delta, conv1d=lm.arch.conv1d)))
            for _ in tqdm(range(self.num_steps), desc=self.label, unit="pass", leave=False):
                values = [self._step(lm, deltas, adam, loss_of) for loss_of in losses_of]
                history.append(sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes))
                if history[-1] < self.loss_threshold:
                    break
        return history

    def _step(
        self,
        lm: LanguageModel,
        deltas: dict[int, Tensor],
        adam: torch.optim.Adam,
        loss_of: Callable[[], Tensor],
    ) -> float:
        """One step on one minibatch, unless its loss is low enough; its loss before the step."""
        loss = loss_of()
        if not torch.isfinite(loss):
            raise EditError(f"the loss of {self.label} became {loss.item()}; a lower lr may help.")
        if loss.item() < self.loss_threshold:
            return loss.item()
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            for layer, delta in deltas.items():
                if self.weight_decay:
                    weight = lm.weight(lm.arch.mlp_out_weight(layer)).to(delta)
                    delta.grad.add_(weight + delta, alpha=self.weight_decay)
            adam.step()
            if self.norm_constraint is not None:
                for delta in deltas.values():
                    delta.clamp_(-self.norm_constraint, self.norm_constraint)
        return loss.item()


def _loss_of(lm: LanguageModel, texts: list[Encoded], layer: int) -> Callable[[], Tensor]:
    """NLL of a minibatch's targets, per token, mean over facts, computed once up to the first trained block."""
    upper, targets = upper_blocks(lm, texts, layer), [text.target_ids for text in texts]
    return lambda: target_nll(upper.logits(), targets).mean()


def _zeros_like(weight: Tensor) -> Tensor:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros_like(weight, dtype=dtype, requires_grad=True)


def _adds(delta: Tensor, *, conv1d: bool) -> Callable:
    """A hook that adds what ΔW, in the parameter's own orientation, makes of a projection's input."""

    def add(module, args, output):
        dW = (delta if conv1d else delta.T).to(args[0])  # (d_in, d_out)
        return output + args[0] @ dW

    return add
