"""The part of a forward pass from one block up, run alone as often as an optimization needs it.

Whatever an editor changes in a block, the blocks below it stay as they are: their output is computed once. Everything
goes through the model's own forward pass, so masks, rotary angles, final norm, soft caps and scales are the model's.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from workbench.editing.passes.hooks import Hook, Hooks, StopForward, first_output
from workbench.encoding import Batch
from workbench.lm import LanguageModel

Prefix = tuple[tuple[Tensor, Tensor], ...]  # keys and values (B, heads, T before, d_head) of each block
BlockOutput = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class UpperBlocks:
    """Texts, computed up to the input of one block.

    Attributes
    ----------
    lm : LanguageModel
        The model; the weights of its blocks below `layer` must not change while this object is used.
    ids, positions : Tensor (B, T)
        Token ids, and each token's position in its own text.
    mask : Tensor (B, T before + T)
        1 for a token and 0 for padding, the tokens of the prefix included.
    read : Tensor (B, T)
        Boolean, on the CPU: the tokens after which next-token logits are wanted.
    layer : int
        The first block that is run, from 0 to n_layers; n_layers leaves only the final norm and the head.
    block_input : Tensor (B, T, d_model)
        The input of that block.
    blocks_return_tuples : bool
        Whether the model's blocks return tuples of tensors.
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
    def compute(
        cls, lm: LanguageModel, batch: Batch, read: Tensor, layer: int, *, prefix: Prefix | None = None
    ) -> "UpperBlocks":
        """Run texts up to a block, without gradients.

        Parameters
        ----------
        lm : LanguageModel
            The model with its current weights.
        batch : Batch
            ids and positions (B, T); the mask also covers the prefix.
        read : Tensor (B, T)
            Boolean, on the CPU: the tokens after which next-token logits are wanted.
        layer : int
            The first block that `logits` runs, from 0 to n_layers.
        prefix : tuple, optional
            Attention keys and values of earlier tokens, as returned by `compute_prefix`.

        Returns
        -------
        UpperBlocks
        """
        inputs: list[Tensor] = []
        returns_tuples: list[bool] = []

        def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs.append(args[0])
            raise StopForward

        def keep_kind(module: nn.Module, args: tuple[Tensor, ...], output: BlockOutput) -> None:
            returns_tuples.append(isinstance(output, tuple))

        def keep_output(module: nn.Module, args: tuple[Tensor, ...], output: BlockOutput) -> None:
            inputs.append(first_output(output))
            raise StopForward

        below = cls(lm, batch.ids, batch.positions, batch.mask, read, 0, torch.empty(0), False, prefix)
        inner = layer < lm.n_layers
        keep = Hook(lm.blocks[layer], keep_input, before=True) if inner else Hook(lm.blocks[-1], keep_output)
        with torch.no_grad(), Hooks([Hook(lm.blocks[0], keep_kind), keep]), suppress(StopForward):
            below._forward()
        return replace(below, layer=layer, block_input=inputs[0], blocks_return_tuples=any(returns_tuples))

    def select(self, index: Tensor) -> "UpperBlocks":
        """Return the texts of the row numbers `index` (B',), which is on the CPU."""
        prefix = self.prefix and tuple((k[index], v[index]) for k, v in self.prefix)
        return replace(
            self,
            ids=self.ids[index],
            positions=self.positions[index],
            mask=self.mask[index],
            read=self.read[index],
            block_input=self.block_input[index],
            prefix=prefix,
        )

    def logits(self, block_input: Tensor | None = None) -> Tensor:
        """Return the logits that `read` asks for, with the current weights of the upper blocks.

        Parameters
        ----------
        block_input : Tensor (B, T, d_model), optional
            Replaces the output of the blocks below; gradients flow to it.

        Returns
        -------
        Tensor (R, V)
            R = number of tokens read, row by row, in order of position.
        """
        states = self.block_input if block_input is None else block_input

        def return_states(hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor | tuple[Tensor, None]:
            return (states, None) if self.blocks_return_tuples else states

        def replace_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (states, *args[1:])

        first = [Hook(self.lm.blocks[0], replace_input, before=True)] if self.layer == 0 else []
        with Hooks(first) as hooks:
            for block in self.lm.blocks[: self.layer]:
                hooks.replace_forward(block, return_states)
            return self._forward()

    def _forward(self) -> Tensor:
        cache = DynamicCache(list(self.prefix)) if self.prefix else None  # a new one: the pass appends to it
        return self.lm.model(
            self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=self.read,
        ).logits


@torch.no_grad()
def compute_prefix(lm: LanguageModel, batch: Batch, n_tokens: int) -> Prefix | None:
    """Return the attention keys and values of the first columns of a batch.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    batch : Batch
        Padded texts (B, T).
    n_tokens : int
        Number of columns.

    Returns
    -------
    tuple of (Tensor, Tensor) or None
        Keys and values (B, heads, n_tokens, d_head) of each block, zero where there is padding. None for no columns.
    """
    if n_tokens == 0:
        return None
    inputs = {name: tensor[:, :n_tokens] for name, tensor in batch.model_inputs.items()}
    cache, nothing_read = DynamicCache(), torch.zeros(inputs["input_ids"].shape, dtype=torch.bool)
    lm.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=nothing_read)
    real = inputs["attention_mask"].bool()[:, None, :, None]  # what padding computes may be NaN: 0 · NaN = NaN
    return tuple(
        (keys.where(real.to(keys.device), 0), values.where(real.to(values.device), 0)) for keys, values, *_ in cache
    )
