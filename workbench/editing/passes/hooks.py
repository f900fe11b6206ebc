"""Hooks on a model's modules, set for the time of a ``with`` block and always removed at its end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class StopForward(Exception):  # noqa: N818  a signal, not an error
    """Raised in a hook to end a forward pass whose rest is not needed."""


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., object], *, before: bool = False) -> Iterator[None]:
    """Set a hook on a module's output (or, with `before`, on its input) for the time of the block."""
    handle = module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Replace a module's ``forward`` for the time of the block, including one that accelerate has put on it."""
    own = module.__dict__.get("forward")  # accelerate puts its device hooks here
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def first_output(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the hidden states among the outputs of a block, which are a tensor or, in some families, a tuple."""
    return output[0] if isinstance(output, tuple) else output
