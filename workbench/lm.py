"""LanguageModel: a causal LM with its tokenizer, its architecture row, and the updates applied to it."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from workbench import embedded
from workbench.architectures import Architecture, architecture_of
from workbench.devices import keep_masks_on_the_host, require_weights_in_memory
from workbench.errors import (
    EditError,
    ModelError,
    RequestError,
    UpdateError,
    WeightsChangedError,
    WorkbenchError,
    first_line,
)
from workbench.inputs import require_path
from workbench.memo import MEMO_ENTRIES, Memo
from workbench.model_files import check_model_files
from workbench.quantized import check_quantization, plain, quantize_blocks
from workbench.replaced import HALF_PRECISION, ReplacedWeights, Restored

if TYPE_CHECKING:
    from workbench.edit_record import EditRecord
    from workbench.update import WeightUpdate

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
_FINGERPRINT_VALUES = 64  # per parameter; enough to tell two checkpoints apart without reading gigabytes


@dataclass
class LanguageModel:
    """A causal language model that can be edited and measured.

    Attributes
    ----------
    name : str
        Name that the model was loaded by.
    model : PreTrainedModel
        The transformers model, in eval mode and without gradients on its weights.
    tokenizer : PreTrainedTokenizerBase
        Its fast tokenizer.
    arch : Architecture
        Row that says where this family keeps its MLP weights.
    memo : Memo
        Results of the unedited model that are kept.
    lock : RLock
        Held by a thread that applies updates to the model, where several threads share it.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    arch: Architecture
    memo: Memo = field(default_factory=Memo, repr=False)
    lock: Any = field(default_factory=threading.RLock, repr=False)  # typeshed has no class for RLock
    _replaced: ReplacedWeights = field(init=False, repr=False)
    _checksums: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"{self.name} has no fast tokenizer, and token offsets are needed to find the subject; "
                "convert it with transformers' AutoTokenizer first."
            )
        require_weights_in_memory(self.model, self.name)
        keep_masks_on_the_host(self.model)
        self.model.eval().requires_grad_(False)
        self._replaced = ReplacedWeights(self.model)
        self._checksums = {name: _checksum(parameter) for name, parameter in self.model.named_parameters()}
        self.fingerprint  # noqa: B018  computed now, while the weights are those of the checkpoint

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify this checkpoint; the same in float32, float64 and bfloat16.

        They are the same in float16 only if the checkpoint is stored in float16, whose rounding shows otherwise; a
        quantized model is another checkpoint.
        """
        digest = hashlib.sha256(self.arch.name.encode())
        for name, parameter in self.model.named_parameters():
            head = plain(parameter).reshape(-1)[:_FINGERPRINT_VALUES].to("cpu", torch.bfloat16)
            digest.update(json.dumps([name, list(parameter.shape)]).encode())
            digest.update(head.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def max_tokens(self) -> int | None:
        """Longest input in tokens; None if the configuration sets no limit."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def vocabulary_size(self) -> int:
        """Number of logits that the model predicts after each token."""
        return int(cast(nn.Linear, self.model.get_output_embeddings()).weight.shape[0])

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        return cast(nn.ModuleList, self.model.get_submodule(self.arch.blocks))

    @property
    def device(self) -> torch.device:
        """Device of the input embedding, where token ids go."""
        return cast(nn.Embedding, self.model.get_input_embeddings()).weight.device

    def mlp_out(self, layer: int) -> nn.Module:
        """Return the output projection of the MLP in block `layer`; its input is the key, its output the value."""
        self.check_layer(layer)
        return self.model.get_submodule(self.arch.mlp_out_module(layer))

    def check_layer(self, layer: int) -> None:
        """Raise `EditError` unless 0 <= layer < n_layers."""
        if not 0 <= layer < self.n_layers:
            raise EditError(f"layer {layer} is out of range: {self.name} has layers 0 to {self.n_layers - 1}.")

    def check_length(self, n_tokens: int) -> None:
        """Raise `RequestError` if a text of `n_tokens` is longer than the table of positions of this model."""
        if self.arch.position_table and self.max_tokens is not None and n_tokens > self.max_tokens:
            raise RequestError(
                f"a text of {n_tokens} tokens is too long for {self.name}, which has {self.max_tokens} positions; "
                "shorten it."
            )

    def weight(self, name: str) -> Tensor:
        """Return the current weight that an update of `name` is added to, in the parameter's own orientation.

        For a matrix of a half-precision model that is edited, it is the float32 master, so that small changes
        accumulate instead of being rounded away; for a quantized one, the numbers that its bits stand for.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        Tensor (n_rows, n_cols)

        Raises
        ------
        UpdateError
            If the model has no such parameter.
        """
        for entry in reversed(self._replaced.current):
            if name in entry.masters:
                return entry.masters[name]
        try:
            return plain(self.model.get_parameter(name))
        except AttributeError as err:
            raise UpdateError(f"{self.name} has no parameter {name!r}; the update is of another model.") from err

    def linear_shape(self, name: str) -> tuple[int, int]:
        """Return (d_in, d_out) of the linear layer whose weight is parameter `name`."""
        n_rows, n_cols = self.weight(name).shape
        return (n_rows, n_cols) if self.arch.conv1d else (n_cols, n_rows)

    def unedited_memo(self, name: str, max_entries: int = MEMO_ENTRIES) -> MutableMapping[Any, Any]:
        """Return the section `name` of the memo, with at most `max_entries`; with an update applied, none is kept."""
        return {} if self._replaced.current else self.memo.section(name, max_entries)

    @property
    def applied_updates(self) -> "tuple[WeightUpdate, ...]":
        """The applied updates, in the order in which they were applied."""
        return tuple(entry.update for entry in self._replaced.current if entry.update is not None)

    @property
    def applied_records(self) -> "tuple[EditRecord, ...]":
        """The records of the edits of all applied updates, in the order in which they were applied."""
        return tuple(record for update in self.applied_updates for record in update.records)

    def weight_before(self, name: str, update: "WeightUpdate") -> Tensor:
        """Return the weight `name` that `update` replaced; the current one if the update is not applied."""
        earlier: Tensor | None = None  # the float32 master, if there was one
        for entry in self._replaced.current:
            if entry.update is update:
                return plain(entry.saved[name]) if earlier is None else earlier
            earlier = entry.masters.get(name, earlier)
        return self.weight(name)

    def unedited_weight(self, name: str) -> Tensor:
        """Return the weight `name` of the model as it was loaded, whatever is applied."""
        for entry in self._replaced.current:
            if name in entry.saved:
                return plain(entry.saved[name])
        return self.weight(name)

    def check_unedited_weights(self) -> None:
        """Raise `WeightsChangedError` unless all weights, without what is applied, are those that were loaded.

        It reads every weight once: 0.04 s for 135 million parameters in float32.
        """
        for name, checksum in self._checksums.items():
            if _checksum(self.unedited_weight(name)) != checksum:
                raise WeightsChangedError(
                    f"the weight {name} of {self.name} is not the one that was loaded, although no update accounts "
                    "for it; load the model again."
                )

    def write(self, update: "WeightUpdate", weights: dict[str, Tensor]) -> None:
        """Replace whole weights and keep the replaced bits for `update`; called by `WeightUpdate.apply`."""
        self._replaced.replace(weights, update)

    def restore(self, update: "WeightUpdate") -> None:
        """Put back the bits that the last `write` replaced; called by `WeightUpdate.undo`.

        Parameters
        ----------
        update : WeightUpdate
            The update that was applied last.

        Raises
        ------
        UpdateError
            If `update` is not applied, or another one was applied after it.
        """
        self.check_last(update)
        self._replaced.undo_through(self._replaced.current[-1])

    def check_last(self, update: "WeightUpdate") -> None:
        """Raise `UpdateError` unless `update` is the one that was applied last."""
        applied = self.applied_updates
        if not any(each is update for each in applied):
            raise UpdateError(f"this update is not applied to {self.name}; apply it before undoing it.")
        if applied[-1] is not update:
            raise UpdateError(f"another update was applied to {self.name} after this one; undo the last one first.")

    def applied(self, update: "WeightUpdate") -> AbstractContextManager["LanguageModel"]:
        """Return a context manager that applies an update inside its block; called by `WeightUpdate.applied`."""
        return Restored(self._replaced, self, change=lambda: update.apply(self), check=lambda: self.check_last(update))

    def restored_after(self) -> AbstractContextManager["LanguageModel"]:
        """Undo at the end of a ``with`` block whatever was applied inside, also after an error or an interrupt."""
        return Restored(self._replaced, self)

    def unedited(self) -> AbstractContextManager["LanguageModel"]:
        """Restore the weights as they were loaded inside a ``with`` block, and the edited ones at its end.

        Updates applied inside the block are undone at its end.
        """
        return Restored(self._replaced, self, change=self._replaced.lift)


def _checksum(weight: Tensor) -> int:
    """Sum of the bits, read as whole numbers of 64 bits where they can be, modulo 2⁶⁴: the fastest in measurements."""
    raw = plain(weight).contiguous().reshape(-1).view(torch.uint8)
    return int((raw.view(torch.int64) if len(raw) % 8 == 0 else raw).sum())


def load(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    device_map: str | dict[str, Any] | None = None,
    quantize: str | None = None,
) -> LanguageModel:
    """Load a causal language model by name.

    Parameters
    ----------
    name : str
        ``"smollm2-135m"`` or ``"gemma3-270m"`` (the embedded models, which need no hub), a hub id, or a folder.
    device : str or torch.device, optional
        Device of the whole model; by default a CUDA device if there is one, else the CPU.
    dtype : str or torch.dtype
        Dtype of the weights. In half precision the edited matrices keep float32 masters, but the model computes with
        rounded weights, which hides relative changes below about 2⁻⁹ (bfloat16).
    device_map : str or dict, optional
        Device map of transformers; ``"auto"`` spreads a large model over several GPUs. Excludes `device`.
    quantize : str, optional
        ``"int8"`` or ``"nf4"`` (4 bits) holds the matrices of the blocks in fewer bits, by torchao. An edited matrix
        becomes a plain one in `dtype`, with a float32 master in half precision.

    Returns
    -------
    LanguageModel

    Raises
    ------
    ModelError
        If there is no such model, its files are damaged, lack weights or hold them only as pickles, its architecture
        has no row, `dtype` or `quantize` is unknown or does not fit the model, the device cannot hold it, or both
        `device` and `device_map` are given.
    MissingExtraError
        If `quantize` is given and torchao is not installed.
    """
    if device is not None and device_map is not None:
        raise ModelError("give device or device_map, not both: device puts the whole model in one place.")
    check_quantization(quantize)
    require_path(name, "the model", ModelError)
    name, torch_dtype = os.fspath(name), dtype_of(dtype)
    check_model_files(name)
    source = embedded.fetch(name) if name in embedded.MODELS else name
    try:
        # said, since transformers would otherwise ask the terminal whether to run a model's own code
        arch = architecture_of(AutoConfig.from_pretrained(source, trust_remote_code=False))
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        loaded = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch_dtype,
            device_map=device_map,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, report = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    except WorkbenchError:
        raise
    except Exception as err:  # transformers and tokenizers raise errors of many classes for damaged files
        raise ModelError(_cannot_load(name, err)) from err
    if missing := sorted(report["missing_keys"]):  # transformers has initialized them at random
        raise ModelError(
            f"the checkpoint of {name} lacks {len(missing)} of the model's weights, among them {missing[0]}; "
            "get the whole checkpoint."
        )
    if device_map is None:
        by_default = "cuda" if torch.cuda.is_available() else "cpu"
        _move(model, name, by_default if device is None else device)
    if quantize is not None:
        quantize_blocks(model.get_submodule(arch.blocks), quantize, name)
    if torch_dtype in HALF_PRECISION:
        log.warning("%s is loaded in %s: changes below its rounding are invisible to the model.", name, torch_dtype)
    return LanguageModel(name, model, tokenizer, arch)


def _move(model: PreTrainedModel, name: str, device: str | torch.device) -> None:
    try:
        model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the argument from the checker
    except (
        RuntimeError,
        AssertionError,
        TypeError,
        ValueError,
    ) as err:  # no such device, torch built without it, or too little memory
        raise ModelError(f"{name} cannot be put on device {str(device)!r} ({first_line(err)}).") from err


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """Return a dtype that weights can have, by its name; raise `ModelError` if there is none of that name."""
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ModelError(f"dtype {dtype!r} is unknown; known: {', '.join(DTYPES)}.")
    return cast(torch.dtype, found)


def _cannot_load(name: str, err: Exception) -> str:
    if "trust_remote_code" in str(err):
        return (
            f"the model {name} brings code of its own (auto_map in its JSON files), which is never run; give a model "
            "of a family that transformers knows."
        )
    if not Path(name).is_dir():
        return embedded.no_such_model(name, err)
    reason = first_line(err)
    return f"the model folder {name} cannot be loaded ({reason}); it must hold config.json, weights and tokenizer."
