"""Devices that a machine without accelerators only pretends to have, so that code for several devices can be tested.

Every tensor lives on the CPU and remembers the device that it was put on. As on real accelerators, an operation on
tensors of two devices is an error, and data get to another device only by an explicit copy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import dispatch_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.tiny_models import build_tiny_lm
from workbench.lm import LanguageModel

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("maia:0"), torch.device("maia:1")

_DEVICE = Tensor.device.__get__
_GRAD = Tensor.grad.__get__
_SET_DATA = Tensor.data.__set__
_BETWEEN_DEVICES = {Tensor.copy_, torch._has_compatible_shallow_copy_type}
_HOST_READS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__}
_INDEXING = {Tensor.__getitem__, Tensor.__setitem__}


class PretendedDevices(TorchFunctionMode):
    """A context in which tensors have pretended devices.

    Attributes
    ----------
    host_reads : int
        Number of times that values of a tensor on a pretended device were read on the host, which waits for the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host_reads = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == _DEVICE:
            return device_of(args[0])
        if func == _GRAD:
            return _put(func(*args), device_of(args[0]))
        if func is torch.autograd.grad:
            return tuple(_put(g, device_of(x)) for g, x in zip(func(*args, **kwargs), args[1], strict=True))
        if func in (Tensor.to, Tensor.cpu):
            return self._move(func, args, kwargs)
        if func == _SET_DATA:
            _put(args[0], device_of(args[1]))
            return func(*args)
        if func in _BETWEEN_DEVICES:
            return func(*args, **kwargs)
        if func is Tensor.numpy and device_of(args[0]) != CPU:
            raise TypeError(f"can't convert a {device_of(args[0])} tensor to numpy; copy it to the CPU first.")
        operands = list(_tensors_in((args, kwargs)))
        if func in _INDEXING:  # indices may lie on the CPU
            indices = [x for x in _tensors_in(args[1]) if device_of(x) != CPU]
            operands = [args[0], *indices, *_tensors_in(args[2:])]
            self.host_reads += any(x.dtype == torch.bool for x in indices)  # how many rows are selected?
        home = _common_device(func, operands)
        if home != CPU and func in _HOST_READS:
            self.host_reads += 1
        asked = kwargs.pop("device", None)
        result = func(*args, **kwargs)
        for tensor in _tensors_in(result):
            _put(tensor, home if asked is None else torch.device(asked))
        return result

    def _move(self, func, args, kwargs) -> Tensor:
        tensor, *rest = args
        asked = CPU if func is Tensor.cpu else kwargs.pop("device", None)
        dtype = kwargs.pop("dtype", None)
        for each in rest:
            if isinstance(each, Tensor):
                asked, dtype = device_of(each), each.dtype
            elif isinstance(each, str | torch.device):
                asked = each
            elif isinstance(each, torch.dtype):
                dtype = each
        target = device_of(tensor) if asked is None else torch.device(asked)
        if target == CPU and device_of(tensor) != CPU:
            self.host_reads += 1
        moved = tensor if dtype is None else tensor.to(dtype)
        if moved is tensor and (target != device_of(tensor) or kwargs.get("copy")):
            moved = nn.Parameter(tensor.clone(), False) if isinstance(tensor, nn.Parameter) else tensor.clone()
        return _put(moved, target)


def device_of(tensor: Tensor) -> torch.device:
    """Return the pretended device of a tensor."""
    return tensor.__dict__.get("_pretended", CPU)


def _tensors_in(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors_in(each)


def _common_device(func: Callable[..., object], tensors: list[Tensor]) -> torch.device:
    """Device of an operation; a number, a tensor without dimensions, may come from the CPU."""
    devices = {device_of(x) for x in tensors if x.dim() or device_of(x) != CPU}
    if len(devices) > 1:
        name = getattr(func, "__name__", func)
        raise RuntimeError(f"{name}: expected all tensors on one device, got {sorted(map(str, devices))}")
    return devices.pop() if devices else CPU


def _put(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor):
        value.__dict__["_pretended"] = device
    return value


def split_over_two_devices(lm: LanguageModel) -> LanguageModel:
    """Return the model with the upper half of its blocks on a second device, by accelerate's hooks."""
    half, prefix = lm.n_layers // 2, lm.arch.blocks.rpartition(".")[0]
    places = {f"{lm.arch.blocks}.{i}": FIRST if i < half else SECOND for i in range(lm.n_layers)}
    for name, _ in lm.model.get_submodule(prefix).named_children():
        if f"{prefix}.{name}" != lm.arch.blocks:
            places[f"{prefix}.{name}"] = SECOND if "norm" in name or name == "ln_f" else FIRST
    places["lm_head"] = FIRST if lm.model.config.tie_word_embeddings else SECOND
    where, skipped = {name: str(place) for name, place in places.items()}, lm.model._skip_keys_device_placement
    dispatch_model(lm.model, where, main_device=str(FIRST), skip_keys=skipped)
    return LanguageModel(lm.name, lm.model, lm.tokenizer, lm.arch)


@contextmanager
def two_devices(model_type: str, **changes) -> Iterator[tuple[LanguageModel, PretendedDevices]]:
    """Give a tiny model that is spread over two pretended devices, and the context that pretends them."""
    with PretendedDevices() as devices:
        yield split_over_two_devices(build_tiny_lm(model_type, **changes)), devices
