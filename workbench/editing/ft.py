"""FT and FT-L: fine-tuning of single MLP output projections, free or within an L∞ ball (Zhu et al. 2020)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.arguments import checked
from workbench.changes import Dense
from workbench.edit_record import EditRecord
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import hyperparameters_of, require_requests, restore_fields, set_field, sort_layers
from workbench.editing.minibatches import Minibatch, make_minibatches, train
from workbench.editing.passes.hooks import Hook, Hooks
from workbench.editing.presets import preset_for
from workbench.encoding import Encoded, encode_request
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import COUNT, NONNEGATIVE, POSITIVE, SEED, Interval, Parameter, check_parameters
from workbench.request import EditRequest
from workbench.update import WeightUpdate

# Sources: zjunlp/EasyEdit hparams/FT: gpt2-xl.yaml and EleutherAI_gpt-j-6B_constr.json (both with their constraint);
# llama-7b.yaml, which is for llama-2-7b and has no constraint: there FT-L takes GPT-2 XL's.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layers": (0,), "norm_constraint": 5e-4},
    "gpt-j-6b": {"layers": (0,), "norm_constraint": 5e-5},
    "llama-7b": {"layers": (21,), "norm_constraint": 5e-4},
    "llama-2-7b": {"layers": (21,), "norm_constraint": 5e-4},
    # of ten facts 5e-4 writes none, 2e-3 one and 5e-3 nine; no constraint writes all, at a greater cost to others
    "smollm2-135m": {"layers": (20,), "norm_constraint": 5e-3},
    # 2e-3 and 5e-3 do not bind, and give the same edits; 5e-4 writes all of ten facts with less cost to others
    "gemma3-270m": {"layers": (12,), "norm_constraint": 5e-4},
}
# ICT-STAR/LocFT hparams. Other layers of other models: the authors search for them.
LOCFT_PRESETS: dict[str, dict[str, Any]] = {
    "llama-3-8b": {"layers": (22,)},
    "qwen2.5-7b": {"layers": (6,)},
    "qwen2.5-7b-instruct": {"layers": (6,)},
}
# Plain FT was published at other layers, in the same folder: gpt2-xl_unconstr.json; gpt-j-6B.yaml.
UNCONSTRAINED_PRESETS: dict[str, dict[str, Any]] = {"gpt2-xl": {"layers": (1,)}, "gpt-j-6b": {"layers": (21,)}}
_DEPTH_SHARE = 2 / 3  # where Llama's preset lies: layer 21 of 32

_YAML_FIELDS = ("layers", "num_steps", "batch_size", "lr", "weight_decay", "norm_constraint")
# the published code never reads kl_factor
_YAML_IGNORED = frozenset({"kl_factor", "max_length"})
_YAML_OBJECTIVE = Parameter("objective_optimization", str)


@dataclass(frozen=True)
class FT:
    """Fine-tune the MLP output projections of some blocks on the facts.

    Adam on ΔW, for the NLL of the target given the prompt, per token, mean over the facts of a minibatch. A minibatch
    whose loss is below `loss_threshold` makes no step, and training ends when the mean over all is below it. With
    `norm_constraint` ε (FT-L; the constrained fine-tuning of Zhu et al. 2020, arXiv 2012.00363) every entry of ΔW is
    clamped to [−ε, ε] after each step: projected gradient descent in the L∞ ball, as in the code of ROME and EasyEdit.

    The loss is EasyEdit's "target_new": each target token is read where it is predicted. ROME's code, and EasyEdit's
    "prompt_last", read all of them at the prompt's last token, which is no likelihood of a target of several tokens.
    EasyEdit's files call that loss FT-L and the other FT-M, whatever the constraint; here FT-L is the constrained
    method.

    With `end_of_text`, plain FT is LocFT-BF (arXiv 2509.22072): minibatches of 100 that are redrawn for each pass,
    so that each pass goes over all facts before any is trained further, and an end after each target, so that the
    model stops there. Its code skips a minibatch below the threshold and stops as this one does.

    The fields are the hyperparameters; `for_model` returns presets.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    supports_batch: ClassVar[bool] = True
    needs_subject: ClassVar[bool] = False

    layers: Annotated[tuple[int, ...], Interval(0), "blocks whose MLP output projections are trained"]
    num_steps: Annotated[int, COUNT, "passes over the facts"] = 25
    lr: Annotated[float, POSITIVE, "learning rate of Adam"] = 5e-4
    weight_decay: Annotated[float, NONNEGATIVE, "weight decay of Adam, on the whole weight, as published"] = 0.0
    norm_constraint: Annotated[
        float | None, POSITIVE, "largest absolute value of an entry of ΔW; None: no constraint, plain FT"
    ] = 5e-4
    # EasyEdit's files say 1 or 3, ROME's code 128
    batch_size: Annotated[int, COUNT, "facts per minibatch"] = 32
    loss_threshold: Annotated[float, NONNEGATIVE, "loss per token below which training stops"] = 1e-2
    end_of_text: Annotated[bool, "whether the end of the text is trained as the token after each target"] = False
    order_seed: Annotated[int | None, SEED, "seed of the order of the facts in a pass; None: as they are given"] = None

    def __post_init__(self) -> None:
        restore_fields(self)
        check_parameters(self)
        set_field(self, "layers", sort_layers(self.layers))

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> "FT":
        """Return the hyperparameters of FT-L for a model.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as published (EasyEdit); the embedded models as measured. Any other
        model: the block two thirds of the way up, as for Llama, with ε = 5e-4.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        FT
        """
        if preset := preset_for(PRESETS, lm.name, n_layers=lm.n_layers):
            return cls(**preset)
        return cls(layers=(int(lm.n_layers * _DEPTH_SHARE),))

    @classmethod
    @checked
    def unconstrained_for_model(cls, lm: LanguageModel) -> "FT":
        """Return the hyperparameters of plain FT for a model: no constraint, and FT's own layers.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        FT
            At layer 1 of gpt2-xl and layer 21 of gpt-j-6b, as published; otherwise at the layers of `for_model`.
        """
        own = preset_for(UNCONSTRAINED_PRESETS, lm.name, n_layers=lm.n_layers) or {}
        return replace(cls.for_model(lm), norm_constraint=None, **own)

    @classmethod
    @checked
    def locft_for_model(cls, lm: LanguageModel) -> "FT":
        """Return the hyperparameters of LocFT-BF for a model: one matrix, no constraint, minibatches of 100.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        FT
            At layer 22 of llama-3-8b and layer 6 of qwen2.5-7b, as published; otherwise at the layers of `for_model`.
        """
        own = preset_for(LOCFT_PRESETS, lm.name, n_layers=lm.n_layers) or {}
        given: dict[str, Any] = {"batch_size": 100, "end_of_text": True, "order_seed": 0}
        return replace(cls.for_model(lm), norm_constraint=None, **given, **own)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "FT":
        """Read one of EasyEdit's FT hparams files.

        A file whose `objective_optimization` is not "target_new" asks for another loss and is refused.

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
            If the file cannot be read, is not for FT, has an unknown field or a value that is not allowed, lacks
            `layers`, or asks for another loss.
        """
        others = {_YAML_OBJECTIVE.name: _YAML_OBJECTIVE}
        given = read_hparams(path, cls, _YAML_FIELDS, others=others, ignored=_YAML_IGNORED)
        objective = given.pop(_YAML_OBJECTIVE.name, "target_new")
        if objective != "target_new":
            raise EditError(
                f"{path}: objective_optimization is {objective!r}, a loss that FT does not have; "
                "only 'target_new' is supported."
            )
        return cls(**{"norm_constraint": None} | given)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        if self.norm_constraint is not None:
            return "FT-L"
        return "LocFT-BF" if self.end_of_text else "FT"

    def prepared(self, lm: LanguageModel) -> "FT":
        """Return this editor; raise `EditError` if `lm` does not have one of the layers."""
        for layer in self.layers:
            lm.check_layer(layer)
        return self

    @checked
    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """Return the update that writes all requests in one operation; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model, with earlier edits if any are applied.
        requests : list of EditRequest
            The N facts to write, which form minibatches in this order.

        Returns
        -------
        WeightUpdate
            Dense ΔW of the matrix of each layer, float32 or wider. The record holds the mean loss of each pass; there
            are no further diagnostics.

        Raises
        ------
        EditError
            If there are no requests, a layer is out of range, a loss is not finite, or `end_of_text` is asked for and
            the tokenizer has no such token.
        RequestError
            If a target has no tokens.
        """
        require_requests(self, requests)
        self.prepared(lm)
        texts = [encode_request(lm.tokenizer, request) for request in requests]
        if self.end_of_text:
            texts = [_with_end(lm, text) for text in texts]
        names = {layer: lm.arch.mlp_out_weight(layer) for layer in self.layers}
        deltas = {layer: _zeros_like(lm.weight(name)) for layer, name in names.items()}
        losses = self._train(lm, deltas, self._passes(lm, texts))
        changes = {names[layer]: Dense(delta.detach()) for layer, delta in deltas.items()}
        record = EditRecord(self.label, tuple(requests), hyperparameters_of(self), losses=(tuple(losses),))
        return WeightUpdate.of_edit(lm, changes, record)

    def _passes(self, lm: LanguageModel, texts: list[Encoded]) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of one pass after another, without end."""
        generator = None if self.order_seed is None else torch.Generator().manual_seed(self.order_seed)
        given = self._minibatches(lm, texts)
        while True:
            if generator is None or len(given) == 1:
                yield given
            else:
                order = torch.randperm(len(texts), generator=generator).tolist()
                yield self._minibatches(lm, [texts[i] for i in order])

    def _minibatches(self, lm: LanguageModel, texts: list[Encoded]) -> list[Minibatch]:
        return make_minibatches(lm, texts, self.batch_size, self.layers[0])

    def _train(self, lm: LanguageModel, deltas: dict[int, Tensor], passes: Iterator[list[Minibatch]]) -> list[float]:
        """Optimize `deltas` in place and return the mean loss of each pass."""
        adam = torch.optim.Adam(deltas.values(), lr=self.lr)
        hooks = [Hook(lm.mlp_out(i), _make_hook(delta, conv1d=lm.arch.conv1d)) for i, delta in deltas.items()]
        with Hooks(hooks):
            return train(self, passes, lambda loss: self._step(lm, deltas, adam, loss))

    def _step(self, lm: LanguageModel, deltas: dict[int, Tensor], adam: torch.optim.Adam, loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            for layer, delta in deltas.items():
                if self.weight_decay and delta.grad is not None:
                    weight = lm.weight(lm.arch.mlp_out_weight(layer)).to(delta)
                    delta.grad.add_(weight + delta, alpha=self.weight_decay)
            adam.step()
            if self.norm_constraint is not None:
                for delta in deltas.values():
                    delta.clamp_(-self.norm_constraint, self.norm_constraint)


def _with_end(lm: LanguageModel, text: Encoded) -> Encoded:
    end = lm.tokenizer.eos_token_id
    if end is None:
        raise EditError(f"the tokenizer of {lm.name} has no end of text; set end_of_text to false.")
    return replace(text, ids=(*text.ids, end))


def _zeros_like(weight: Tensor) -> Tensor:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros_like(weight, dtype=dtype, requires_grad=True)


def _make_hook(delta: Tensor, *, conv1d: bool) -> Callable[..., Tensor]:
    """Return a hook that adds ΔW applied to a projection's input; ΔW lies as the parameter does."""

    def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        dW = (delta if conv1d else delta.T).to(args[0])  # (d_in, d_out)
        return output + args[0] @ dW

    return add
