"""Several updates of one model in one forward pass: each row of a batch is run with an update of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from workbench.editing.mend.factors import module_of
from workbench.editing.passes.hooks import Hook, Hooks
from workbench.lm import LanguageModel
from workbench.quantized import plain
from workbench.update import WeightUpdate


@dataclass(frozen=True, eq=False)
class RowUpdates:
    """The updates with which the rows of a batch are run; no weight of the model is written.

    Attributes
    ----------
    lm : LanguageModel
        The model with its current weights, to which each update is added by itself. They must not change meanwhile.
    weights : dict of str to tuple of Tensor
        By parameter that any update changes, the weight that each update makes of it.
    update_of : Tensor (B,)
        Number of the update of each row. On the CPU.
    """

    lm: LanguageModel
    weights: dict[str, tuple[Tensor, ...]]
    update_of: Tensor

    @classmethod
    def none(cls, lm: LanguageModel, n: int) -> "RowUpdates":
        """Return `n` rows that are run with the current weights."""
        return cls(lm, {}, torch.zeros(n, dtype=torch.long))

    @classmethod
    def of(cls, lm: LanguageModel, updates: Sequence[WeightUpdate], update_of: Sequence[int]) -> "RowUpdates":
        """Return rows that are run with updates.

        Parameters
        ----------
        lm : LanguageModel
            The model with its current weights.
        updates : sequence of WeightUpdate
            Updates of linear layers. For each, a copy of all matrices that any of them changes is in memory.
        update_of : sequence of int
            Index in `updates` for each row.

        Returns
        -------
        RowUpdates

        Raises
        ------
        UpdateError
            If an update is of another model or not finite, or makes weights that are not.
        """
        edited = [update.weights_in(lm) for update in updates]
        weights = {}
        for name in dict.fromkeys(name for of_update in edited for name in of_update):
            current = plain(lm.model.get_parameter(name))
            weights[name] = tuple(of_update.get(name, current).to(current.dtype) for of_update in edited)
        return cls(lm, weights, torch.tensor(update_of, dtype=torch.long))

    @classmethod
    def of_each(cls, lm: LanguageModel, updates: Sequence[WeightUpdate], n: int) -> "RowUpdates":
        """Return `n` rows that are run with the first of `updates`, then `n` with the next; as `of` otherwise."""
        return cls.of(lm, updates, [number for number in range(len(updates)) for _ in range(n)])

    def select(self, index: Tensor) -> "RowUpdates":
        """Return the rows with the numbers `index` (B',), which may repeat; it is on the CPU."""
        return RowUpdates(self.lm, self.weights, self.update_of[index])

    @cached_property
    def _rows_of(self) -> dict[int, Tensor]:
        """Numbers of the rows of each update."""
        return {number: (self.update_of == number).nonzero()[:, 0] for number in self.update_of.unique().tolist()}

    def running(self) -> Hooks:
        """Run each row of a batch with its update inside a ``with`` block; the batch has these rows, in this order."""
        return Hooks(
            Hook(module_of(self.lm, name), self._multiply_with(of_updates)) for name, of_updates in self.weights.items()
        )

    def _multiply_with(self, weights: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        def multiply(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            bias = cast("Tensor | None", module.bias)
            keys = args[0].reshape(len(self.update_of), -1, args[0].shape[-1])  # OPT has put all rows into one
            values = keys.new_empty(*keys.shape[:2], output.shape[-1])
            for number, rows in self._rows_of.items():
                weight = weights[number].T if self.lm.arch.conv1d else weights[number]  # (d_out, d_in)
                at = rows.to(keys.device)
                values[at] = linear(keys[at], weight, bias)
            return values.reshape(output.shape)

        return multiply
