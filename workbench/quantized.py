"""Models whose blocks hold their matrices in 8 or 4 bits, by torchao; a matrix that is edited becomes a plain one."""

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from workbench.errors import ModelError
from workbench.extras import require_extra

_NF4_BLOCK = 64  # entries with one scale, as in QLoRA
_NF4_SCALES = 256  # scales that are quantized together, or the largest power of two that divides their number


def check_quantization(quantize: str | None) -> None:
    """Raise `ModelError` for an unknown quantization, `MissingExtraError` if torchao is not installed."""
    if quantize is None:
        return
    if quantize not in QUANTIZATIONS:
        raise ModelError(f"quantize {quantize!r} is unknown; known: {', '.join(QUANTIZATIONS)}.")
    require_extra("torchao", "quantized")


def quantize_blocks(blocks: nn.Module, quantize: str, name: str) -> None:
    """Quantize the weights of the linear layers in a model's blocks; embeddings, norms and head stay as they are.

    Parameters
    ----------
    blocks : nn.Module
        The decoder blocks.
    quantize : str
        ``"int8"``, one scale per row; or ``"nf4"``, the 4-bit floats of QLoRA (Dettmers et al. 2023, arXiv 2305.14314),
        two in a byte, one scale per 64 entries.
    name : str
        Name of the model, for the errors.

    Raises
    ------
    ModelError
        If the blocks hold no linear layers, or a matrix has a number of entries that is no multiple of 64.
    """
    layers = {path: module for path, module in blocks.named_modules() if isinstance(module, nn.Linear)}
    if not layers:
        kinds = sorted({type(module).__name__ for module in blocks.modules() if hasattr(module, "weight")})
        raise ModelError(
            f"torchao quantizes linear layers, and the blocks of {name} hold {', '.join(kinds)}; "
            "load it without quantize."
        )
    for path, layer in layers.items():
        if quantize == "nf4" and layer.weight.numel() % _NF4_BLOCK:
            raise ModelError(
                f"nf4 needs matrices with a multiple of {_NF4_BLOCK} entries, and {path} of {name} has "
                f"{layer.weight.numel()}; choose int8."
            )
    convert = QUANTIZATIONS[quantize]()
    for layer in layers.values():
        layer.weight = nn.Parameter(convert(layer.weight.detach()), requires_grad=False)


def _int8() -> Callable[[Tensor], Tensor]:
    from torchao.quantization import Int8Tensor, PerRow  # optional, and takes seconds to import

    return lambda weight: Int8Tensor.from_hp(weight, granularity=PerRow())


def _nf4() -> Callable[[Tensor], Tensor]:
    from torchao.quantization import to_nf4

    return lambda weight: to_nf4(weight, _NF4_BLOCK, math.gcd(weight.numel() // _NF4_BLOCK, _NF4_SCALES))


QUANTIZATIONS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {"int8": _int8, "nf4": _nf4}


def is_quantized(weight: Tensor) -> bool:
    """Return whether a weight is held in fewer bits than its dtype says."""
    return is_traceable_wrapper_subclass(weight)


def plain(weight: Tensor) -> Tensor:
    """Return the numbers of a weight as a plain tensor of its dtype: itself unless it is quantized."""
    weight = weight.detach()
    if not is_quantized(weight):
        return weight
    return weight.dequantize() if type(weight).__name__ == "Int8Tensor" else weight.to(weight.dtype)


def put_weight(model: nn.Module, name: str, value: Tensor) -> None:
    """Write a weight: over the values of the parameter, or in its place where one of the two is quantized.

    Parameters
    ----------
    model : nn.Module
        The model.
    name : str
        Name of the parameter.
    value : Tensor
        The values, which are rounded to the parameter's dtype; a quantized weight is put in place itself.
    """
    parameter = model.get_parameter(name)
    if not (is_quantized(parameter) or is_quantized(value)):
        parameter.data.copy_(value)
        return
    path, _, leaf = name.rpartition(".")
    written = value if is_quantized(value) else value.to(parameter.device, parameter.dtype, copy=True)
    setattr(model.get_submodule(path), leaf, nn.Parameter(written, requires_grad=False))


def copy_of(weight: Tensor) -> Tensor:
    """Return the bits of a weight, which later writes do not change: a quantized one is never written over."""
    weight = weight.detach()
    return weight if is_quantized(weight) else weight.clone()
