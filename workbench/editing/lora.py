"""LoRA: fine-tuning of low-rank adapters by the PEFT library (Hu et al. 2021)."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workbench.arguments import checked
from workbench.changes import low_rank
from workbench.edit_record import EditRecord
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import hyperparameters_of, require_requests, restore_fields, set_field, sort_layers
from workbench.editing.minibatches import Minibatch, make_minibatches, train
from workbench.editing.presets import preset_for
from workbench.encoding import encode_request
from workbench.errors import EditError
from workbench.extras import require_extra
from workbench.lm import LanguageModel
from workbench.parameters import COUNT, NONNEGATIVE, POSITIVE, SEED, Interval, Parameter, check_parameters
from workbench.request import EditRequest
from workbench.update import WeightUpdate

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

PRESETS: dict[str, dict[str, Any]] = {
    # zjunlp/EasyEdit hparams/LoRA/qwen2.5-7b.yaml, the only file there for plain LoRA; the code has no threshold
    "qwen2.5-7b": {
        **{"target_modules": ("q_proj", "v_proj"), "num_steps": 1, "lr": 5e-3, "dropout": 0.1},
        **{"batch_size": 1, "loss_threshold": 0.0},
    },
    # ten facts, one by one: 3e-4, 1e-3 and 5e-3 all write each (natural reliability 1); natural generalization 0.52,
    # 0.70 and 1.00, locality 0.33, 0.30 and 0.12; perplexity 40.1 -> 40.5, 40.9 and 45.6; 11, 5 and 3 passes
    "smollm2-135m": {"lr": 1e-3},
}

_ADAPTER = "default"  # peft's name of an adapter without a name

_YAML_FIELDS = ("layers", "target_modules", "rank", "num_steps", "batch_size", "lr", "weight_decay")
_YAML_RENAMED = {"lora_alpha": "alpha", "lora_dropout": "dropout", "lora_r": "rank"}
_YAML_TYPE = Parameter("lora_type", str)
# the published code never reads kl_factor and norm_constraint; the others say what runs where
_YAML_IGNORED = frozenset({"kl_factor", "norm_constraint", "max_length", "data_parallel", "lora_distributed"})


@dataclass(frozen=True)
class LoRA:
    """Fine-tune a low-rank adapter of each MLP projection on the facts.

    Hu et al. 2021 (arXiv 2106.09685), section 4.1: W x becomes W x + (α / r) B A x, with A (r, d_in) drawn and B
    (d_out, r) zero at first. Adam on A and B, for the NLL of the target given the prompt, per token, mean over the
    facts of a minibatch. A minibatch whose loss is below `loss_threshold` makes no step, and training ends when the
    mean over all is below it, as for FT. ΔW = (α / r) B A is what the update holds, as factors; the adapter itself
    is removed.

    This is a baseline that locates nothing. The adapter is that of the PEFT library, as in EasyEdit. Departures from
    EasyEdit's code: the target's tokens are those of prompt and target encoded together, the loss of a minibatch is a
    mean over facts instead of tokens, there is a threshold, and a later edit of a sequence gets an adapter of its own,
    on the sum of the earlier edits, instead of training the first one further.

    The fields are the hyperparameters; `for_model` returns presets. `rank` and `alpha` are by default what all of
    EasyEdit's files have.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    supports_batch: ClassVar[bool] = True
    needs_subject: ClassVar[bool] = False

    layers: Annotated[tuple[int, ...] | None, Interval(0), "blocks that get adapters; None: all"] = None
    target_modules: Annotated[
        tuple[str, ...] | None, "names, or ends of names, of linear layers in a block; None: the MLP's projections"
    ] = None
    rank: Annotated[int, COUNT, "rank r of each ΔW"] = 8
    alpha: Annotated[float, POSITIVE, "scale α of an adapter, divided by its rank"] = 32.0
    num_steps: Annotated[int, COUNT, "passes over the facts"] = 25
    lr: Annotated[float, POSITIVE, "learning rate of Adam"] = 1e-3
    weight_decay: Annotated[float, NONNEGATIVE, "weight decay of Adam, on A and B"] = 0.0
    dropout: Annotated[float, Interval(0, 1, closed="left"), "share of an adapter's inputs that a pass drops"] = 0.0
    batch_size: Annotated[int, COUNT, "facts per minibatch"] = 32
    loss_threshold: Annotated[float, NONNEGATIVE, "loss per token below which training stops"] = 1e-2
    seed: Annotated[int, SEED, "seed of A and of what is dropped"] = 0

    def __post_init__(self) -> None:
        restore_fields(self)
        check_parameters(self)
        if self.layers is not None:
            set_field(self, "layers", sort_layers(self.layers))
        if self.target_modules == ():
            raise EditError("target_modules must hold at least one name; got none.")

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> "LoRA":
        """Return the hyperparameters for a model.

        qwen2.5-7b as published (EasyEdit), smollm2-135m as measured. Any other model: the defaults, which are not
        tuned; EasyEdit's files for other models are for AdaLoRA.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        LoRA
        """
        return cls(**preset_for(PRESETS, lm.name, n_layers=lm.n_layers) or {})

    @classmethod
    def from_yaml(cls, path: str | Path) -> "LoRA":
        """Read one of EasyEdit's LoRA hparams files.

        Most of the published ones are for AdaLoRA (`lora_type: adalora`), another method, and are refused.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys.

        Returns
        -------
        LoRA
            Without threshold, which EasyEdit does not have.

        Raises
        ------
        EditError
            If the file cannot be read, is not for plain LoRA, or has an unknown field or a value that is not allowed.
        """
        others = {_YAML_TYPE.name: _YAML_TYPE}
        given = read_hparams(path, cls, _YAML_FIELDS, others=others, renamed=_YAML_RENAMED, ignored=_YAML_IGNORED)
        # files without the key are older than it, from when the code knew AdaLoRA only
        kind = given.pop(_YAML_TYPE.name, "adalora")
        if kind != "lora":
            raise EditError(f"{path}: lora_type is {kind!r}, which is another method; only 'lora' is supported.")
        if given.get("layers") == ():
            given["layers"] = None
        return cls(**{"loss_threshold": 0.0} | given)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return "LoRA"

    def prepared(self, lm: LanguageModel) -> "LoRA":
        """Return this editor; raise unless PEFT is installed and `lm` has the layers and modules."""
        require_extra("peft", "peft")
        self._modules(lm)
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
            ΔW of each matrix, of rank r, float32 or wider. The record holds the mean loss of each pass; there are no
            further diagnostics.

        Raises
        ------
        EditError
            If there are no requests, a layer is out of range, the blocks have no such linear layer, or a loss is not
            finite.
        MissingExtraError
            If PEFT is not installed.
        RequestError
            If a target has no tokens.
        """
        require_requests(self, requests)
        self.prepared(lm)
        texts = [encode_request(lm.tokenizer, request) for request in requests]
        batches = make_minibatches(lm, texts, self.batch_size, 0 if self.layers is None else self.layers[0])
        with self._adapters(lm) as pairs:
            self._draw(A for A, _ in pairs.values())
            losses = self._train([factor for pair in pairs.values() for factor in pair], batches)
        scale = self.alpha / self.rank
        changes = {
            f"{name}.weight": low_rank(lm, f"{name}.weight", scale * B.detach(), A.detach().T)
            for name, (A, B) in pairs.items()
        }
        record = EditRecord(self.label, tuple(requests), hyperparameters_of(self), losses=(tuple(losses),))
        return WeightUpdate.of_edit(lm, changes, record)

    def _modules(self, lm: LanguageModel) -> list[str]:
        """Return the names of the linear layers that get adapters, block by block."""
        wanted = self.target_modules or (*lm.arch.mlp_in, lm.arch.mlp_out)
        found: list[str] = []
        for layer in range(lm.n_layers) if self.layers is None else self.layers:
            lm.check_layer(layer)
            linear = [name for name, part in lm.blocks[layer].named_modules() if isinstance(part, (nn.Linear, Conv1D))]
            for module in wanted:
                if not any(_is_named(name, module) for name in linear):
                    known = ", ".join(linear)
                    raise EditError(f"block {layer} of {lm.name} has no linear layer {module!r}; known: {known}.")
            names = [name for name in linear if any(_is_named(name, module) for module in wanted)]
            found += [f"{lm.arch.block(layer)}.{name}" for name in names]
        return found

    @contextmanager
    def _adapters(self, lm: LanguageModel) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        """Give the model adapters for the time of the block, and its own modules back at the end, also after an error.

        Yields A (r, d_in) and B (d_out, r) of each adapter by the name of its linear layer, float32 or wider. What PEFT
        and dropout draw meanwhile leaves no trace in global random state.
        """
        from peft import LoraConfig, inject_adapter_in_model  # optional, and takes seconds to import

        modules = self._modules(lm)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # declared as a whole number, and only divided by r
            lora_dropout=self.dropout,
            target_modules=modules,
            fan_in_fan_out=lm.arch.conv1d,
        )
        own, attributes = {name: lm.model.get_submodule(name) for name in modules}, set(vars(lm.model))
        try:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(self.seed)
                with warnings.catch_warnings():  # about merging adapters into quantized weights, which is never done
                    warnings.filterwarnings("ignore", "TorchaoLoraLinear")
                    inject_adapter_in_model(config, lm.model, _ADAPTER)
                layers = {name: cast("LoraLayer", lm.model.get_submodule(name)) for name in modules}
                # PEFT gives them the dtype of the weights, in which Adam rounds away steps (bfloat16) or divides by 0
                for layer in layers.values():
                    for part in (layer.lora_A, layer.lora_B):
                        part.to(torch.promote_types(_weight(part).dtype, torch.float32))
                yield {name: (_weight(layer.lora_A), _weight(layer.lora_B)) for name, layer in layers.items()}
        finally:
            for name, module in own.items():
                lm.model.set_submodule(name, module)
            for name in vars(lm.model).keys() - attributes:
                delattr(lm.model, name)

    @torch.no_grad()
    def _draw(self, factors: Iterator[Tensor]) -> None:
        """Draw A as PEFT does, but on the CPU whatever the device, and from the seed alone."""
        generator = torch.Generator().manual_seed(self.seed)
        for A in factors:
            A.copy_(nn.init.kaiming_uniform_(torch.empty(A.shape), a=math.sqrt(5), generator=generator))

    def _train(self, factors: list[Tensor], batches: list[Minibatch]) -> list[float]:
        """Optimize the factors in place and return the mean loss of each pass."""
        adam = torch.optim.Adam(factors, lr=self.lr, weight_decay=self.weight_decay)

        def step(loss: Tensor) -> None:
            adam.zero_grad()
            loss.backward()
            adam.step()

        return train(self, repeat(batches), step)


def _weight(factors: nn.ModuleDict) -> Tensor:
    return cast(nn.Linear, factors[_ADAPTER]).weight


def _is_named(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")
