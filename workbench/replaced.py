"""The weights of a model that were replaced: recorded before the first byte is changed, and put back bit for bit.

An interrupt (Ctrl-C, *Interrupt kernel*) raises `KeyboardInterrupt` between any two bytecodes. So every change is
recorded before it is made, a record is dropped only after its bits are back, and both can be repeated: after an
interrupt anywhere, the records say what is changed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from workbench.quantized import copy_of, put_weight

if TYPE_CHECKING:
    from workbench.update import WeightUpdate

Value = TypeVar("Value")

HALF_PRECISION = (torch.float16, torch.bfloat16)


@dataclass(eq=False)
class Replacement:
    """Weights that were replaced together, and what replaced them.

    Attributes
    ----------
    update : WeightUpdate or None
        The update whose application replaced them; None where unedited weights are put back for a while.
    saved : dict of str to Tensor
        Bits before, by parameter; of a quantized weight, itself.
    masters : dict of str to Tensor
        float32 values of the half-precision weights that were written.
    hides_earlier : bool
        Whether the model is in its unedited state, so that earlier replacements do not count.
    """

    update: "WeightUpdate | None"
    saved: dict[str, Tensor]
    masters: dict[str, Tensor]
    hides_earlier: bool = False


class ReplacedWeights:
    """The replacements in one model, in their order.

    Parameters
    ----------
    model : nn.Module
        The model whose weights are replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._all: list[Replacement] = []

    @property
    def current(self) -> list[Replacement]:
        """The replacements of the applied updates, in their order; none while the unedited weights are put back."""
        hidden = max((i for i, entry in enumerate(self._all, start=1) if entry.hides_earlier), default=0)
        return [entry for entry in self._all[hidden:] if entry.update is not None]

    @property
    def depth(self) -> int:
        """Number of replacements that `undo_to` can undo."""
        return len(self._all)

    def replace(self, weights: dict[str, Tensor], update: "WeightUpdate | None" = None) -> Replacement:
        """Write whole weights, after recording what they replace; if that is interrupted, nothing is changed.

        Parameters
        ----------
        weights : dict of str to Tensor
            New values by parameter, which are rounded to its dtype.
        update : WeightUpdate, optional
            The update that they come from.

        Returns
        -------
        Replacement
        """
        parameters = {name: self._model.get_parameter(name) for name in weights}
        saved = {name: copy_of(parameter) for name, parameter in parameters.items()}
        half = {name for name, parameter in parameters.items() if parameter.dtype in HALF_PRECISION}
        masters = {} if update is None else {name: weights[name] for name in weights if name in half}
        entry, depth = Replacement(update, saved, masters), self.depth
        try:
            self._all.append(entry)
            self._put(weights)
        except BaseException:
            self.undo_to(depth)
            raise
        return entry

    def lift(self) -> None:
        """Put back the bits from before the first replacement, and record those of the current weights."""
        original = {name: value for entry in reversed(self.current) for name, value in entry.saved.items()}
        self.replace(original).hides_earlier = True

    def undo_to(self, depth: int) -> None:
        """Put back what all but the first `depth` replacements replaced, last to first.

        An interrupt in the meantime is raised after everything is back.
        """
        try:
            self._undo_to(depth)
        except BaseException:
            self._undo_to(depth)
            raise

    def undo_through(self, entry: Replacement) -> None:
        """Put back what a replacement replaced, and whatever came after it."""
        self.undo_to(self._all.index(entry))

    def _undo_to(self, depth: int) -> None:
        while len(self._all) > depth:
            entry = self._all[-1]
            entry.hides_earlier = False
            self._put(entry.saved)
            self._all.pop()

    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, value in weights.items():
            put_weight(self._model, name, value)


class Restored(AbstractContextManager[Value], Generic[Value]):
    """A ``with`` block at whose end the weights are what they were at its beginning, also after an error.

    It is not a generator with a decorator: an interrupt may leave a generator suspended, which would then change the
    weights when its memory is freed, at any later time.

    Parameters
    ----------
    replaced : ReplacedWeights
        The replacements in the model.
    value : object
        What the ``with`` statement binds.
    change : callable, optional
        Function that replaces weights at the beginning of the block.
    check : callable, optional
        Function that is called at the end of a block without error, and may raise one; nothing is put back then.
    """

    def __init__(
        self,
        replaced: ReplacedWeights,
        value: Value,
        *,
        change: Callable[[], object] | None = None,
        check: Callable[[], object] | None = None,
    ) -> None:
        self._replaced, self._value, self._change, self._check = replaced, value, change, check
        self._depth = 0

    def __enter__(self) -> Value:
        self._depth = self._replaced.depth
        try:
            if self._change is not None:
                self._change()
            return self._value
        except BaseException:
            self._replaced.undo_to(self._depth)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        try:
            if kind is None and self._check is not None:
                self._check()
            self._replaced.undo_to(self._depth)
        except KeyboardInterrupt:
            self._replaced.undo_to(self._depth)
            raise
        return False
