"""Keys and hidden states at the subjects' last tokens, while the blocks between are being edited."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.editing.passes.hooks import Hook, Hooks, StopForward, first_output, hooked
from workbench.editing.passes.subject_tail import encode_up_to_subject
from workbench.editing.passes.upper_blocks import BlockOutput, UpperBlocks
from workbench.encoding import Encoded
from workbench.forward import batch_by_length, pad_texts
from workbench.lm import LanguageModel
from workbench.request import EditRequest

_TEXTS_PER_PASS = 128


@dataclass(frozen=True, eq=False)
class _TextBatch:
    """Texts of similar length that end with their subjects."""

    index: list[int]  # of each text among all
    blocks: UpperBlocks


class SubjectStates:
    """The texts of N requests in P contexts, cut after their subjects and computed up to the first edited block.

    Parameters
    ----------
    lm : LanguageModel
        The model; its blocks below the first of `layers` must not change while this object is used.
    requests : sequence of EditRequest
        N facts.
    contexts : sequence of str
        P templates, the bare prompt's first.
    layers : sequence of int
        The edited blocks, in ascending order.
    """

    def __init__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], contexts: Sequence[str], layers: Sequence[int]
    ) -> None:
        self._lm, self._last, self._n = lm, layers[-1], len(requests)
        bare, *others = [[encode_up_to_subject(lm, request, context) for request in requests] for context in contexts]
        self._bare = _compute_batches(lm, bare, layers[0])
        self._others = _compute_batches(lm, [text for texts in others for text in texts], layers[0])

    def keys_and_hidden(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the keys of one block and the hidden states after the last edited one, with the current weights.

        Parameters
        ----------
        layer : int
            An edited block.

        Returns
        -------
        keys : Tensor (N, d_ff)
            Mean of the bare prompt's key and the mean key over the other contexts, as in MEMIT's code.
        hidden : Tensor (N, d_model)
            Hidden states after the last edited block, in the bare prompt.
        """
        keys, hidden = self._run(self._bare, layer, with_hidden=True)
        if self._others:
            in_context, _ = self._run(self._others, layer, with_hidden=False)
            keys = (keys + in_context.reshape(-1, self._n, keys.shape[1]).mean(dim=0)) / 2
        return keys, hidden

    def values(self, layer: int) -> Tensor:
        """Return the values (N, d_model) of one block in the bare prompts, with the current weights."""
        values: list[Tensor] = []

        def keep_values(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            values.append(output.reshape(batch.blocks.ids.shape + (-1,))[:, -1])
            raise StopForward

        for batch in self._bare:
            with torch.no_grad(), hooked(self._lm.mlp_out(layer), keep_values), suppress(StopForward):
                batch.blocks.logits()
        return torch.cat(values)[_order_of(self._bare)]

    def _run(self, batches: list[_TextBatch], layer: int, *, with_hidden: bool) -> tuple[Tensor, Tensor]:
        """Keys (B, d_ff) and hidden states (B, d_model), which are empty if not wanted, in the order of the texts."""
        keys: list[Tensor] = []
        states: list[Tensor] = []

        def keep_keys(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            keys.append(args[0].reshape(batch.blocks.ids.shape + (-1,))[:, -1])
            if not with_hidden:
                raise StopForward

        def keep_hidden(module: nn.Module, args: tuple[Tensor, ...], output: BlockOutput) -> None:
            states.append(first_output(output)[:, -1])
            raise StopForward

        hooks = [
            Hook(self._lm.mlp_out(layer), keep_keys, before=True),
            Hook(self._lm.blocks[self._last], keep_hidden),
        ]
        for batch in batches:
            with torch.no_grad(), Hooks(hooks), suppress(StopForward):
                batch.blocks.logits()
        order = _order_of(batches)
        return torch.cat(keys)[order], torch.cat(states)[order] if with_hidden else torch.empty(0)


def _order_of(batches: list[_TextBatch]) -> Tensor:
    """Places of the texts among those of all batches, in the order of the texts."""
    return torch.tensor([i for batch in batches for i in batch.index]).argsort()


def _compute_batches(lm: LanguageModel, texts: list[Encoded], layer: int) -> list[_TextBatch]:
    lengths = [len(text.ids) for text in texts]
    batches = []
    for index in batch_by_length(lengths, _TEXTS_PER_PASS):
        ends = [lengths[i] - 1 for i in index]
        padded = pad_texts(lm, [texts[i].ids for i in index], align=ends)
        nothing_read = torch.zeros(padded.ids.shape, dtype=torch.bool)
        batches.append(_TextBatch(index, UpperBlocks.compute(lm, padded, nothing_read, layer)))
    return batches
