"""The part of a forward pass that an edit at the subject's last token can change.

While ROME or MEMIT optimise a vector at one block and one token, the blocks below and the tokens before stay as they
are: a decoder looks only backwards. They are computed once; each step runs only the tokens from the subject's last on,
only the blocks from the edited one up, and asks for logits only where they are read.
"""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.editing.hooks import Reached, hooked
from workbench.editing.upper_blocks import UpperBlocks, prefix_of
from workbench.encoding import Batch, Encoded, pad
from workbench.lm import LanguageModel


@dataclass(frozen=True)
class TailRow:
    """One text, and the tokens after which its next-token logits are read."""

    encoded: Encoded  # with `subject_last`
    read: tuple[int, ...]  # indices into its ids, none before the subject's last token


def from_subject_on(lm: LanguageModel, rows: list[TailRow], layer: int) -> UpperBlocks:
    """Texts from their subjects' last tokens on, which stand in the first column, and from block `layer` up.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    rows : list of TailRow
        B texts.
    layer : int
        From 0 to n_layers.

    Returns
    -------
    UpperBlocks
        (B, T), T the longest text's tokens from the subject's last on.
    """
    starts = [row.encoded.subject_last for row in rows]
    whole = pad(
        [row.encoded.ids for row in rows], align=starts, pad_id=lm.tokenizer.pad_token_id or 0, device=lm.device
    )
    column = max(starts)  # of the subject's last token
    tail = Batch(whole.ids[:, column:], whole.mask, whole.positions[:, column:])
    read = torch.zeros_like(tail.ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        read[i, [at - starts[i] for at in row.read]] = True
    return UpperBlocks.of(lm, tail, read, layer, prefix=prefix_of(lm, whole, column))


class SubjectTail:
    """Texts whose subjects' last tokens stand in one column, cached up to that column and up to one block.

    Parameters
    ----------
    lm : LanguageModel
        Not changed; its weights must stay as they are while this object is used.
    rows : list of TailRow
        B texts.
    layer : int
        The edited block.

    Attributes
    ----------
    keys : Tensor (B, d_ff)
        Input of the edited MLP's output projection at the subject's last token.
    values : Tensor (B, d_model)
        Its output there.

    Raises
    ------
    EditError
        If the layer is out of range.
    """

    def __init__(self, lm: LanguageModel, rows: list[TailRow], layer: int) -> None:
        self._projection = lm.mlp_out(layer)
        self._upper = from_subject_on(lm, rows, layer)
        self._shape = (*self._upper.ids.shape, -1)  # (B, T, d); OPT flattens (B, T) for its MLP

        def keep_ends(module, args, output):
            self.keys, self.values = args[0].reshape(self._shape)[:, 0], output.reshape(self._shape)[:, 0]
            raise Reached

        with torch.no_grad(), hooked(self._projection, keep_ends), suppress(Reached):
            self._upper.logits()

    def logits(self, value_offset: Tensor) -> Tensor:
        """Logits where they are read, with an offset on the MLP's output at every subject's last token.

        Parameters
        ----------
        value_offset : Tensor (d_model,)
            Added to the output of the edited MLP; gradients flow to it.

        Returns
        -------
        Tensor (R, V)
            R = number of places read, row by row, in order of position.
        """

        def add_offset(module, args, output):
            shaped = output.reshape(self._shape)
            offset = value_offset.to(output.device, output.dtype)
            return torch.cat([shaped[:, :1] + offset, shaped[:, 1:]], dim=1).reshape(output.shape)

        with hooked(self._projection, add_offset):
            return self._upper.logits()
