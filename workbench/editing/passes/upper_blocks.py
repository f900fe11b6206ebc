"""The part of a forward pass from one block up, run alone as often as an optimisation needs it.

Whatever an editor changes in a block, the blocks below it stay as they are: their output is computed once. Everything
goes through the model's own forward pass, so masks, rotary angles, final norm, soft caps and scales are the model's.
"""

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache

from workbench.editing.passes.hooks import Reached, forward_replaced, hooked
from workbench.encoding import Batch
from workbench.lm import LanguageModel

Prefix = tuple[tuple[Tensor, Tensor], ...]  # keys and values (B, heads, T before, d_head) of each block


@dataclass(frozen=True, eq=False)
class UpperBlocks:
    """Texts, computed up to the input of one block.

    Attributes
    ----------
    lm : LanguageModel
        The weights of blocks below `layer` must stay as they are while this object is used.
    ids, positions : Tensor (B, T)
        Token ids, and each token's position in its own text.
    mask : Tensor (B, T before + T)
        1 for a token and 0 for padding, those of the prefix included.
    read : Tensor (B, T)
        Boolean: where next-token logits are wanted.
    layer : int
        The first block that is run, from 0 to n_layers; n_layers leaves only the final norm and the head.
    block_input : Tensor (B, T, d_model)
        What that block is given.
    prefix : tuple or None
        Attention keys and values of earlier tokens.
    """

    lm: LanguageModel
    ids: Tensor
    positions: Tensor
    mask: Tensor
    read: Tensor
    layer: int
    block_input: Tensor
    blocks_return_tuples: bool
    prefix: Prefix | None = None

    @classmethod
    def of(
        cls, lm: LanguageModel, batch: Batch, read: Tensor, layer: int, *, prefix: Prefix | None = None
    ) -> "UpperBlocks":
        """Run texts up to a block, without gradients.

        Parameters
        ----------
        lm : LanguageModel
            The model as it is now.
        batch : Batch
            ids and positions (B, T); the mask also covers the prefix.
        read : Tensor (B, T)
            Boolean: where next-token logits are wanted.
        layer : int
            The first block that `logits` runs, from 0 to n_layers.
        prefix : tuple, optional
            Attention keys and values of earlier tokens, as `prefix_of` gives.

        Returns
        -------
        UpperBlocks
        """
        seen = {}

        def keep_input(module, args):
            seen["input"] = args[0]
            raise Reached

        def keep_kind(module, args, output):
            seen["tuples"] = isinstance(output, tuple)

        def keep_output(module, args, output):
            seen["input"] = output[0] if isinstance(output, tuple) else output
            raise Reached

        below = cls(lm, batch.ids, batch.positions, batch.mask, read, 0, torch.empty(0), False, prefix)
        with ExitStack() as stack, torch.no_grad():
            stack.enter_context(hooked(lm.blocks[0], keep_kind))
            if layer < lm.n_layers:
                stack.enter_context(hooked(lm.blocks[layer], keep_input, before=True))
            else:
                stack.enter_context(hooked(lm.blocks[-1], keep_output))
            stack.enter_context(suppress(Reached))
            below._forward()
        return replace(below, layer=layer, block_input=seen["input"], blocks_return_tuples=seen.get("tuples", False))

    def rows(self, index: Tensor) -> "UpperBlocks":
        """Some of the texts: `index` (B',) of row numbers."""
        mask = self.mask[index]
        prefix = self.prefix and tuple((k[index.to(k.device)], v[index.to(v.device)]) for k, v in self.prefix)
        return replace(
            self,
            ids=self.ids[index],
            positions=self.positions[index],
            mask=mask,
            read=self.read[index],
            block_input=self.block_input[index.to(self.block_input.device)],
            prefix=prefix,
        )

    def logits(self, block_input: Tensor | None = None) -> Tensor:
        """Logits where they are read, with the weights of the upper blocks as they are now.

        Parameters
        ----------
        block_input : Tensor (B, T, d_model), optional
            Instead of what the blocks below gave; gradients flow to it.

        Returns
        -------
        Tensor (R, V)
            R = number of places read, row by row, in order of position.
        """
        given = self.block_input if block_input is None else block_input

        def stand_in(hidden_states, *args, **kwargs):
            return (given, None) if self.blocks_return_tuples else given

        def start_here(module, args):
            return (given, *args[1:])

        with ExitStack() as stack:
            for block in self.lm.blocks[: self.layer]:
                stack.enter_context(forward_replaced(block, stand_in))
            if self.layer == 0:
                stack.enter_context(hooked(self.lm.blocks[0], start_here, before=True))
            return self._forward()

    def _forward(self) -> Tensor:
        cache = DynamicCache(list(self.prefix)) if self.prefix else None  # a fresh one: the pass appends to it
        return self.lm.model(
            self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=self.read,
        ).logits


@torch.no_grad()
def prefix_of(lm: LanguageModel, batch: Batch, n_tokens: int) -> Prefix | None:
    """Attention keys and values of the first columns of a batch.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    batch : Batch
        (B, T).
    n_tokens : int
        How many columns.

    Returns
    -------
    tuple of (Tensor, Tensor) or None
        (B, heads, n_tokens, d_head) each, for each block; zero where there is padding. None for no columns.
    """
    if n_tokens == 0:
        return None
    inputs = {name: tensor[:, :n_tokens] for name, tensor in batch.model_inputs.items()}
    cache = DynamicCache()
    lm.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    real = inputs["attention_mask"].bool()[:, None, :, None]  # what padding computes may be NaN: 0 · NaN = NaN
    return tuple(
        (keys.where(real.to(keys.device), 0), values.where(real.to(values.device), 0)) for keys, values, *_ in cache
    )
