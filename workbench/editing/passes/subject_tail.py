"""The part of a forward pass that an edit at the subject's last token can change.

While ROME or MEMIT optimizes a vector at one block and one token, the blocks below and the tokens before stay as they
are, since a decoder attends only to earlier tokens. They are computed once; each step runs only the tokens from the
subject's last on, only the blocks from the edited one up, and computes logits only where they are read.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from workbench.editing.passes.hooks import StopForward, hooked
from workbench.editing.passes.upper_blocks import UpperBlocks, compute_prefix
from workbench.encoding import Batch, Encoded, encode_request
from workbench.forward import pad_texts
from workbench.lm import LanguageModel
from workbench.request import PLACEHOLDER, EditRequest


@dataclass(frozen=True)
class TailRow:
    """One text, and the tokens after which its next-token logits are read."""

    encoded: Encoded  # with `subject_last`
    read: tuple[int, ...]  # indices into its ids, none before the subject's last token

    @property
    def subject_last(self) -> int:
        """Index of the subject's last token."""
        assert self.encoded.subject_last is not None
        return self.encoded.subject_last


class SubjectTail(Protocol):
    """Texts whose first column holds their subjects' last tokens, with a site there to which an offset is added."""

    @property
    def lm(self) -> LanguageModel:
        """The model."""

    @property
    def start(self) -> Tensor:
        """Value (B, d_model) at the site of each text, without an offset."""

    def select(self, index: Tensor) -> Self:
        """Return the texts of the row numbers `index` (B',), which is on the CPU."""

    def logits(self, offsets: Tensor) -> Tensor:
        """Return the logits (R, V) that the rows read, row by row, with an offset (B, d_model) for each text."""


def encode_up_to_subject(lm: LanguageModel, request: EditRequest, context: str = PLACEHOLDER) -> Encoded:
    """Return the tokens of a request's prompt in a context up to the subject's last token."""
    encoded = encode_request(lm.tokenizer, request, context=context, target="")
    assert encoded.subject_last is not None
    return replace(encoded, ids=encoded.ids[: encoded.subject_last + 1])


def _compute_from_subject(lm: LanguageModel, rows: list[TailRow], layer: int) -> UpperBlocks:
    """Texts from their subjects' last tokens on, and from block `layer` up."""
    starts = [row.subject_last for row in rows]
    whole = pad_texts(lm, [row.encoded.ids for row in rows], align=starts)
    column = max(starts)  # of the subject's last token
    tail = Batch(whole.ids[:, column:], whole.mask, whole.positions[:, column:])
    read = torch.zeros(tail.ids.shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        read[i, [at - starts[i] for at in row.read]] = True
    return UpperBlocks.compute(lm, tail, read, layer, prefix=compute_prefix(lm, whole, column))


@dataclass(frozen=True, eq=False)
class ValueTail:
    """A tail with its site at the output of one block's MLP, as in ROME.

    Attributes
    ----------
    upper : UpperBlocks
        The texts from their subjects' last tokens on, and from the edited block up.
    layer : int
        The edited block.
    keys : Tensor (B, d_ff)
        Input of its MLP's output projection at the subject's last token.
    start : Tensor (B, d_model)
        Output of the projection there, the value.
    """

    upper: UpperBlocks
    layer: int
    keys: Tensor
    start: Tensor

    @classmethod
    def compute(cls, lm: LanguageModel, rows: list[TailRow], layer: int) -> "ValueTail":
        """Run texts up to the site.

        Parameters
        ----------
        lm : LanguageModel
            The model, which is not changed; its weights must not change while the tail is used.
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
        projection = lm.mlp_out(layer)
        upper = _compute_from_subject(lm, rows, layer)
        shape = (*upper.ids.shape, -1)  # (B, T, d); OPT flattens (B, T) for its MLP
        ends: list[Tensor] = []

        def keep_ends(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            ends.extend((args[0].reshape(shape)[:, 0], output.reshape(shape)[:, 0]))
            raise StopForward

        with torch.no_grad(), hooked(projection, keep_ends), suppress(StopForward):
            upper.logits()
        keys, start = ends
        return cls(upper, layer, keys, start)

    @property
    def lm(self) -> LanguageModel:
        """The model."""
        return self.upper.lm

    def select(self, index: Tensor) -> "ValueTail":
        """Return the texts of the row numbers `index` (B',), which is on the CPU."""
        return replace(self, upper=self.upper.select(index), keys=self.keys[index], start=self.start[index])

    def logits(self, offsets: Tensor) -> Tensor:
        """Return the logits (R, V) with an offset (B, d_model) added to each text's value; gradients flow to it."""

        def add_offsets(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shaped = output.reshape(*self.upper.ids.shape, -1)
            return _add_to_first(shaped, offsets).reshape(output.shape)

        with hooked(self.upper.lm.mlp_out(self.layer), add_offsets):
            return self.upper.logits()


@dataclass(frozen=True, eq=False)
class HiddenTail:
    """A tail with its site at the output of a whole block, the hidden state after it, as in MEMIT.

    Attributes
    ----------
    upper : UpperBlocks
        The texts from their subjects' last tokens on, and from the block after the site up.
    start : Tensor (B, d_model)
        The hidden state at the subject's last token.
    """

    upper: UpperBlocks

    @classmethod
    def compute(cls, lm: LanguageModel, rows: list[TailRow], layer: int) -> "HiddenTail":
        """Run texts up to the site, as `ValueTail.compute` does."""
        lm.check_layer(layer)
        return cls(_compute_from_subject(lm, rows, layer + 1))

    @property
    def lm(self) -> LanguageModel:
        """The model."""
        return self.upper.lm

    @property
    def start(self) -> Tensor:
        """The hidden state (B, d_model) at the subject's last token."""
        return self.upper.block_input[:, 0]

    def select(self, index: Tensor) -> "HiddenTail":
        """Return the texts of the row numbers `index` (B',), which is on the CPU."""
        return HiddenTail(self.upper.select(index))

    def logits(self, offsets: Tensor) -> Tensor:
        """Return the logits (R, V) with an offset (B, d_model) added to each hidden state; gradients flow to it."""
        return self.upper.logits(_add_to_first(self.upper.block_input, offsets))


def _add_to_first(states: Tensor, offsets: Tensor) -> Tensor:
    """States (B, T, d_model) with an offset (B, d_model) added to each text's first token, the subject's last."""
    first = states[:, :1] + offsets[:, None].to(states.device, states.dtype)
    return torch.cat([first, states[:, 1:]], dim=1)
