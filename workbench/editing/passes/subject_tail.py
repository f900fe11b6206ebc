"""The part of a forward pass that an edit at the subject's last token can change.

While ROME or MEMIT optimise a vector at one block and one token, the blocks below and the tokens before stay as they
are: a decoder looks only backwards. They are computed once; each step runs only the tokens from the subject's last on,
only the blocks from the edited one up, and asks for logits only where they are read.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from workbench.editing.passes.hooks import Reached, hooked
from workbench.editing.passes.upper_blocks import UpperBlocks, prefix_of
from workbench.encoding import Batch, Encoded, pad
from workbench.lm import LanguageModel


@dataclass(frozen=True)
class TailRow:
    """One text, and the tokens after which its next-token logits are read."""

    encoded: Encoded  # with `subject_last`
    read: tuple[int, ...]  # indices into its ids, none before the subject's last token


class SubjectTail(Protocol):
    """Texts whose subjects' last tokens stand in the first column, and a place there that takes an offset."""

    start: Tensor  # (B, d_model): what stands at that place in each text

    def rows(self, index: Tensor) -> Self:
        """Some of the texts: `index` (B',) of row numbers."""

    def logits(self, offsets: Tensor) -> Tensor:
        """Logits (R, V) where they are read, row by row, with an offset (B, d_model) for each text."""


def _from_subject_on(lm: LanguageModel, rows: list[TailRow], layer: int) -> UpperBlocks:
    """Texts from their subjects' last tokens on, and from block `layer` up."""
    starts = [row.encoded.subject_last for row in rows]
    ids, pad_id = [row.encoded.ids for row in rows], lm.tokenizer.pad_token_id or 0
    whole = pad(ids, align=starts, pad_id=pad_id, device=lm.device)
    column = max(starts)  # of the subject's last token
    tail = Batch(whole.ids[:, column:], whole.mask, whole.positions[:, column:])
    read = torch.zeros_like(tail.ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        read[i, [at - starts[i] for at in row.read]] = True
    return UpperBlocks.of(lm, tail, read, layer, prefix=prefix_of(lm, whole, column))


@dataclass(frozen=True, eq=False)
class ValueTail:
    """The place is the output of one block's MLP: ROME's.

    Attributes
    ----------
    layer : int
        The edited block.
    keys : Tensor (B, d_ff)
        Input of its MLP's output projection at the subject's last token.
    start : Tensor (B, d_model)
        Its output there, the value.
    """

    upper: UpperBlocks
    layer: int
    keys: Tensor
    start: Tensor

    @classmethod
    def of(cls, lm: LanguageModel, rows: list[TailRow], layer: int) -> "ValueTail":
        """Run texts up to the place.

        Parameters
        ----------
        lm : LanguageModel
            Not changed; its weights must stay as they are while the tail is used.
        rows : list of TailRow
            B texts.
        layer : int
            The edited block.

        Returns
        -------
        ValueTail

        Raises
        ------
        EditError
            If the layer is out of range.
        """
        projection, ends = lm.mlp_out(layer), {}
        upper = _from_subject_on(lm, rows, layer)
        shape = (*upper.ids.shape, -1)  # (B, T, d); OPT flattens (B, T) for its MLP

        def keep_ends(module, args, output):
            ends["keys"], ends["start"] = args[0].reshape(shape)[:, 0], output.reshape(shape)[:, 0]
            raise Reached

        with torch.no_grad(), hooked(projection, keep_ends), suppress(Reached):
            upper.logits()
        return cls(upper, layer, **ends)

    def rows(self, index: Tensor) -> "ValueTail":
        """Some of the texts: `index` (B',) of row numbers."""
        return replace(self, upper=self.upper.rows(index), keys=self.keys[index], start=self.start[index])

    def logits(self, offsets: Tensor) -> Tensor:
        """Logits (R, V) where they are read, with an offset (B, d_model) on each text's value; gradients flow to it."""

        def add_offsets(module, args, output):
            shaped = output.reshape(*self.upper.ids.shape, -1)
            return _add_to_first(shaped, offsets).reshape(output.shape)

        with hooked(self.upper.lm.mlp_out(self.layer), add_offsets):
            return self.upper.logits()


@dataclass(frozen=True, eq=False)
class HiddenTail:
    """The place is the output of a whole block, the hidden state after it: MEMIT's.

    Attributes
    ----------
    start : Tensor (B, d_model)
        The hidden state at the subject's last token.
    """

    upper: UpperBlocks

    @classmethod
    def of(cls, lm: LanguageModel, rows: list[TailRow], layer: int) -> "HiddenTail":
        """Run texts up to the place, as `ValueTail.of` does."""
        lm.check_layer(layer)
        return cls(_from_subject_on(lm, rows, layer + 1))

    @property
    def start(self) -> Tensor:
        """The hidden state (B, d_model) at the subject's last token."""
        return self.upper.block_input[:, 0]

    def rows(self, index: Tensor) -> "HiddenTail":
        """Some of the texts: `index` (B',) of row numbers."""
        return HiddenTail(self.upper.rows(index))

    def logits(self, offsets: Tensor) -> Tensor:
        """Logits (R, V) where they are read, with an offset (B, d_model) on each hidden state; gradients flow to it."""
        return self.upper.logits(_add_to_first(self.upper.block_input, offsets))


def _add_to_first(states: Tensor, offsets: Tensor) -> Tensor:
    """States (B, T, d_model) with an offset (B, d_model) on each text's first token, the subject's last."""
    first = states[:, :1] + offsets[:, None].to(states.device, states.dtype)
    return torch.cat([first, states[:, 1:]], dim=1)
