"""Hooks on a model's modules, set for the time of a ``with`` block and without effect after it.

As with weights (`workbench.replaced`), an interrupt may come between any two bytecodes: each hook is recorded before it
is set, and one assignment switches it off.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, NamedTuple, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class StopForward(Exception):  # noqa: N818  a signal, not an error
    """Raised in a hook to end a forward pass whose rest is not needed."""


class Hook(NamedTuple):
    """A hook on a module: a function of its output or, with `before`, of its input."""

    module: nn.Module
    function: Callable[..., object]
    before: bool = False


class Hooks(AbstractContextManager["Hooks"]):
    """Hooks that are set inside a ``with`` block.

    Parameters
    ----------
    hooks : iterable of Hook
        Hooks that are set at the beginning of the block.
    """

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._given = list(hooks)
        self._set: list[_Switch] = []
        self._replaced: list[tuple[nn.Module, Callable[..., object] | None]] = []

    def __enter__(self) -> Self:
        try:
            for hook in self._given:
                self._add(hook)
            return self
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        try:
            self.close()
        except KeyboardInterrupt:
            self.close()
            raise
        return False

    def replace_forward(self, module: nn.Module, forward: Callable[..., object]) -> None:
        """Replace a module's ``forward`` until the end of the block, including one that accelerate has put on it."""
        self._replaced.append((module, module.__dict__.get("forward")))  # accelerate puts its device hooks here
        module.__dict__["forward"] = _Forward(self, forward)

    def close(self) -> None:
        """Switch all hooks off and remove them; safe to repeat."""
        for switch in self._set:
            switch.on = False
        for module, own in reversed(self._replaced):
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own
        for switch in self._set:
            if switch.handle is not None:
                switch.handle.remove()

    def _add(self, hook: Hook) -> None:
        switch = _Switch(self, hook.function)
        self._set.append(switch)
        register = hook.module.register_forward_pre_hook if hook.before else hook.module.register_forward_hook
        switch.handle = register(switch)


class _Switch:
    """A hook that can be switched off."""

    def __init__(self, owner: Hooks, function: Callable[..., object]) -> None:
        self.owner, self._function, self.on = owner, function, True
        self.handle: RemovableHandle | None = None

    def __call__(self, *args: object) -> object:
        return self._function(*args) if self.on else None


class _Forward:
    """A ``forward`` that replaces that of a module, with the block that it belongs to."""

    def __init__(self, owner: Hooks, function: Callable[..., object]) -> None:
        self.owner, self._function = owner, function

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._function(*args, **kwargs)


def hooked(module: nn.Module, function: Callable[..., object], *, before: bool = False) -> Hooks:
    """Set a hook on a module's output (or, with `before`, on its input) for the time of a ``with`` block."""
    return Hooks([Hook(module, function, before)])


def remove_leftovers(model: nn.Module) -> None:
    """Remove hooks of this module whose block was interrupted before it could remove them; none may be in use."""
    for module in model.modules():
        set_on_it = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        for each in (*set_on_it, module.__dict__.get("forward")):
            if isinstance(each, _Switch | _Forward):
                each.owner.close()


def first_output(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the hidden states among the outputs of a block, which are a tensor or, in some families, a tuple."""
    return output[0] if isinstance(output, tuple) else output
