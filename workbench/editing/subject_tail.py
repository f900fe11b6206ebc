"""The part of a forward pass that an edit at the subject's last token can change, run alone.

While ROME optimises a value vector at one layer and one token, the layers below that layer and the tokens before
that token stay as they are: a decoder looks only backwards. `SubjectTail` computes them once, then runs only the
tokens from the subject's last on, only the blocks from the edited one up, and asks for logits only where they are
read. Everything goes through the model's own forward pass, so masks, rotary angles, final norm, soft caps and
scales are the model's.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from workbench.encoding import Encoded, pad
from workbench.lm import LanguageModel


@dataclass(frozen=True)
class TailRow:
    """One text, and the tokens after which its next-token logits are read."""

    encoded: Encoded  # with `subject_last`
    read: tuple[int, ...]  # indices into its ids, none before the subject's last token


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
def _forward_replaced(module: nn.Module, forward: Callable) -> Iterator[None]:
    own = module.__dict__.get("forward")  # accelerate puts its device hooks here
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


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
        self._lm, self._layer, self._projection = lm, layer, lm.mlp_out(layer)
        starts = [row.encoded.subject_last for row in rows]
        pad_id = lm.tokenizer.pad_token_id or 0
        batch = pad([row.encoded.ids for row in rows], align=starts, pad_id=pad_id, device=lm.device)
        self._start = max(starts)  # the column of the subject's last token
        self._tail_ids = batch.ids[:, self._start :]  # (B, T)
        self._inputs = {"attention_mask": batch.mask, "position_ids": batch.positions[:, self._start :]}
        self._read = torch.zeros_like(self._tail_ids, dtype=torch.bool)  # (B, T)
        for i, row in enumerate(rows):
            self._read[i, [at - starts[i] for at in row.read]] = True
        with torch.no_grad():
            self._prefix = self._compute_prefix(batch) if self._start else None
            self._compute_below()

    def _compute_prefix(self, batch) -> list[tuple[Tensor, Tensor]]:
        inputs = {name: tensor[:, : self._start] for name, tensor in batch.model_inputs.items()}
        cache = DynamicCache()
        self._lm.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        real = inputs["attention_mask"].bool()[:, None, :, None]  # what padding computes may be NaN: 0 · NaN = NaN
        return [
            (keys.where(real.to(keys.device), 0), values.where(real.to(values.device), 0)) for keys, values, *_ in cache
        ]

    def _compute_below(self) -> None:
        """Input of the edited block, and the key and value at the subject's last token."""

        def keep_input(module, args):
            self._block_input = args[0]

        def keep_ends(module, args, output):
            shape = (*self._tail_ids.shape, -1)  # OPT flattens (B, T) for its MLP
            self.keys, self.values = args[0].reshape(shape)[:, 0], output.reshape(shape)[:, 0]
            raise Reached

        def keep_kind(module, args, output):
            self._blocks_return_tuples = isinstance(output, tuple)

        blocks = self._lm.blocks
        with ExitStack() as stack:
            stack.enter_context(hooked(blocks[0], keep_kind))
            stack.enter_context(hooked(blocks[self._layer], keep_input, before=True))
            stack.enter_context(hooked(self._projection, keep_ends))
            stack.enter_context(suppress(Reached))
            self._forward()

    def _forward(self) -> Tensor:
        cache = DynamicCache(self._prefix) if self._prefix else None  # a fresh one: the pass appends to it
        return self._lm.model(
            self._tail_ids,
            **self._inputs,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=self._read,
        ).logits

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

        def skip(hidden_states, *args, **kwargs):
            return (hidden_states, None) if self._blocks_return_tuples else hidden_states

        def start_here(module, args):
            return (self._block_input, *args[1:])

        def add_offset(module, args, output):
            shaped = output.reshape(*self._tail_ids.shape, -1)  # (B, T, d_model)
            offset = value_offset.to(output.device, output.dtype)
            return torch.cat([shaped[:, :1] + offset, shaped[:, 1:]], dim=1).reshape(output.shape)

        with ExitStack() as stack:
            for block in self._lm.blocks[: self._layer]:
                stack.enter_context(_forward_replaced(block, skip))
            stack.enter_context(hooked(self._lm.blocks[self._layer], start_here, before=True))
            stack.enter_context(hooked(self._projection, add_offset))
            return self._forward()
