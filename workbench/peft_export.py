"""Low-rank updates as LoRA adapters of the PEFT library.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1) writes a change of W (d_out, d_in) as (alpha / r) B A, with
A (r, d_in) and B (d_out, r). The ΔW of an edit is written with alpha = r, so that B A is ΔW.

The factors are written as the update holds them, in float32 or wider. PEFT computes W x + B A x, whereas
`WeightUpdate.apply` rounds W + ΔW to the dtype of the weight: in float32 the logits agree to rounding, but a model in
half precision loses what lies below its precision with `apply` and keeps it with the adapter.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from workbench.architectures import ARCHITECTURES, Architecture
from workbench.changes import Change, LowRank
from workbench.errors import UpdateError
from workbench.extras import require_extra
from workbench.storage.folders import write_folder_atomically

if TYPE_CHECKING:
    from peft import LoraConfig

WEIGHTS = "adapter_model.safetensors"
_WHY_NOT = {
    "Sparse": "keeps single entries of a matrix, which has full rank in general",
    "Dense": "is a whole matrix, which has full rank in general",
}


def write_adapter(
    changes: Mapping[str, Change], model: str | None, folder: str | Path, *, replace: bool = False
) -> None:
    """Write changes as an adapter that ``peft.PeftModel.from_pretrained`` loads, atomically.

    Parameters
    ----------
    changes : mapping of str to LowRank
        Low-rank changes of MLP projections by parameter name; their ranks may differ.
    model : str or None
        Name of the model that the adapter belongs to.
    folder : str or Path
        Folder to make.
    replace : bool
        Whether a folder that is not empty may be replaced.

    Raises
    ------
    UpdateError
        If there is no change, one is not of low rank or not of an MLP projection of a known family, or `folder` cannot
        be made or is not empty and may not be replaced.
    """
    low_rank = _low_rank_changes(changes)
    conv1d = _architecture_of(low_rank).conv1d
    factors = {name.removesuffix(".weight"): _factors(change, conv1d) for name, change in low_rank.items()}
    factors = {module: (A, B) for module, (A, B) in factors.items() if A.shape[0]}  # peft refuses a rank of 0
    config = _config({module: A.shape[0] for module, (A, _) in factors.items()}, model, conv1d)
    tensors = {}
    for module, (A, B) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = A
        tensors[f"base_model.model.{module}.lora_B.weight"] = B

    def fill(scratch: Path) -> None:
        config.save_pretrained(str(scratch))
        save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt"})

    write_folder_atomically(folder, fill, replace=replace)


def _low_rank_changes(changes: Mapping[str, Change]) -> dict[str, LowRank]:
    low_rank = {}
    for name, change in changes.items():
        if not isinstance(change, LowRank):
            kind = type(change).__name__
            raise UpdateError(
                f"the {kind.lower()} update of {name} {_WHY_NOT[kind]}, so that no PEFT LoRA adapter can hold it; "
                "save() and `workbench apply` keep it exactly."
            )
        low_rank[name] = change
    if not any(change.rows.shape[1] for change in low_rank.values()):
        raise UpdateError("an update that changes nothing has no PEFT adapter; give one of at least one matrix.")
    return low_rank


def _architecture_of(names: Iterable[str]) -> Architecture:
    """Return the row that says how the named matrices lie; the shape of a square one does not show it."""
    for row in ARCHITECTURES:
        if all(_is_mlp_weight(row, name) for name in names):
            return row
    unknown = [name for name in names if not any(_is_mlp_weight(row, name) for row in ARCHITECTURES)]
    raise UpdateError(
        f"no known model family has MLP projections with the weights {', '.join(unknown or names)}, so it is not "
        "known which way they lie in a PEFT adapter; save() keeps the update as it is."
    )


def _is_mlp_weight(row: Architecture, name: str) -> bool:
    parts = "|".join(map(re.escape, (*row.mlp_in, row.mlp_out)))
    return re.fullmatch(rf"{re.escape(row.blocks)}\.\d+\.({parts})\.weight", name) is not None


def _factors(change: LowRank, conv1d: bool) -> tuple[Tensor, Tensor]:
    """Return A (r, d_in) and B (d_out, r) of a change, which lies (d_in, d_out) in a Conv1D."""
    A, B = (change.rows, change.cols) if conv1d else (change.cols, change.rows)
    return _separate(A.T), _separate(B)


def _separate(factor: Tensor) -> Tensor:
    """Return a copy: safetensors refuses tensors that share memory."""
    return factor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _config(ranks: dict[str, int], model: str | None, conv1d: bool) -> "LoraConfig":
    """Return the configuration for modules of these ranks; alpha is the rank, so that the scale of B A is 1."""
    require_extra("peft", "peft")
    from peft import LoraConfig  # optional, and takes seconds to import

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
