"""Hooks on a model's modules, put on for the time of a block and always taken off again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


class Reached(Exception):  # noqa: N818  a signal, not an error
    """Ends a forward pass whose rest is not needed."""


@contextmanager
def hooked(module: nn.Module, hook: Callable, *, before: bool = False) -> Iterator[None]:
    """`hook` on a module's output (or, with `before`, its input) for the time of the block."""
    handle = module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable) -> Iterator[None]:
    """`forward` in the place of a module's own, hooks included, for the time of the block."""
    own = module.__dict__.get("forward")  # accelerate puts its device hooks here
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
