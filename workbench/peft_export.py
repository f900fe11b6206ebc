"""A low-rank update as a LoRA adapter of the PEFT library.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1) writes a change of W (d_out, d_in) as (alpha / r) B A, with
A (r, d_in) and B (d_out, r). An edit's ΔW is written with alpha = r, so that B A is ΔW.

The factors are written as the update holds them, in float32 or wider. PEFT computes W x + B A x where `apply` rounds
W + ΔW to the weight's dtype: in float32 the logits agree to its rounding, but a model in half precision loses with
`apply` what lies below its precision, and keeps it with the adapter.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from workbench.architectures import ARCHITECTURES, Architecture
from workbench.errors import UpdateError
from workbench.storage.folders import write_folder_atomically

if TYPE_CHECKING:
    from peft import LoraConfig

    from workbench.update import LowRank, WeightUpdate

WEIGHTS = "adapter_model.safetensors"
_WHY_NOT = {
    "Sparse": "keeps single entries of a matrix, which has full rank in general",
    "Dense": "is a whole matrix, which has full rank in general",
}


def write_adapter(update: "WeightUpdate", folder: str | Path, *, replace: bool = False) -> None:
    """Write `update` as an adapter that ``peft.PeftModel.from_pretrained`` loads; nothing, or all of it.

    Parameters
    ----------
    update : WeightUpdate
        Low-rank changes of MLP projections, whose ranks may differ.
    folder : str or Path
        Folder to make.
    replace : bool
        Whether a folder that holds something may be replaced.

    Raises
    ------
    UpdateError
        If the update is empty, not of low rank or not of MLP projections of a known family, or `folder` cannot be
        made or holds something that may not be replaced.
    """
    _check_low_rank(update)
    conv1d = _row_of(update).conv1d
    factors = {name.removesuffix(".weight"): _factors(change, conv1d) for name, change in update.items()}
    factors = {module: (A, B) for module, (A, B) in factors.items() if A.shape[0]}  # peft takes no rank of 0
    config = _config({module: A.shape[0] for module, (A, _) in factors.items()}, update.model, conv1d)
    tensors = {}
    for module, (A, B) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = A
        tensors[f"base_model.model.{module}.lora_B.weight"] = B

    def fill(scratch: Path) -> None:
        config.save_pretrained(scratch)
        save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt"})

    write_folder_atomically(folder, fill, replace=replace)


def _check_low_rank(update: "WeightUpdate") -> None:
    for name, change in update.items():
        kind = type(change).__name__
        if kind in _WHY_NOT:
            raise UpdateError(
                f"the {kind.lower()} update of {name} {_WHY_NOT[kind]}, so that no PEFT LoRA adapter can hold it; "
                "save() and `workbench apply` keep it exactly."
            )
    if not any(change.rows.shape[1] for change in update.values()):
        raise UpdateError("an update that changes nothing has no PEFT adapter; give one of at least one matrix.")


def _row_of(update: "WeightUpdate") -> Architecture:
    """The row that says how the matrices of `update` lie, by their full names: a square one does not show it."""
    for row in ARCHITECTURES:
        if all(_is_mlp_weight(row, name) for name in update):
            return row
    strange = [name for name in update if not any(_is_mlp_weight(row, name) for row in ARCHITECTURES)]
    raise UpdateError(
        f"no known model family has MLP projections with the weights {', '.join(strange or update)}, so it is not "
        "known which way they lie in a PEFT adapter; save() keeps the update as it is."
    )


def _is_mlp_weight(row: Architecture, name: str) -> bool:
    parts = "|".join(map(re.escape, (*row.mlp_in, row.mlp_out)))
    return re.fullmatch(rf"{re.escape(row.blocks)}\.\d+\.({parts})\.weight", name) is not None


def _factors(change: "LowRank", conv1d: bool) -> tuple[Tensor, Tensor]:
    """A (r, d_in) and B (d_out, r) of one change, which lies (d_in, d_out) in a Conv1D."""
    A, B = (change.rows, change.cols) if conv1d else (change.cols, change.rows)
    return _own(A.T), _own(B)


def _own(factor: Tensor) -> Tensor:
    """A copy: safetensors refuses tensors that share memory."""
    return factor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _config(ranks: dict[str, int], model: str | None, conv1d: bool) -> "LoraConfig":
    """Of modules with these ranks; alpha is the rank, so that the scale of B A is 1."""
    from peft import LoraConfig  # imports for seconds

    rank = max(ranks.values())
    others = {module: r for module, r in ranks.items() if r != rank}
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=others,
        alpha_pattern=dict(others),
        target_modules=list(ranks),
        fan_in_fan_out=conv1d,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=model,
    )
