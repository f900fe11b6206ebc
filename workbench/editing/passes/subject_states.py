"""Keys and hidden states at the subjects' last tokens, while the blocks between are being edited."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.editing.passes.hooks import Reached, hooked
from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import Encoded, encode_request, pad
from workbench.forward import like_lengths
from workbench.lm import LanguageModel
from workbench.request import EditRequest

_ROWS = 128  # texts in a forward pass


@dataclass(frozen=True, eq=False)
class _Part:
    """Texts that end with their subjects, of like length."""

    index: list[int]
    blocks: UpperBlocks


class SubjectStates:
    """The texts of N requests in P contexts, cut after their subjects and computed up to the first edited block.

    Parameters
    ----------
    lm : LanguageModel
        Its blocks below the first of `layers` must stay as they are while this object is used.
    requests : sequence of EditRequest
        N facts.
    contexts : sequence of str
        P templates, the bare prompt first.
    layers : sequence of int
        The edited blocks, ascending.
    """

    def __init__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], contexts: Sequence[str], layers: Sequence[int]
    ) -> None:
        self._lm, self._last, self._n = lm, layers[-1], len(requests)
        bare, *others = [[_upto_subject(lm, request, context) for request in requests] for context in contexts]
        self._bare = _parts(lm, bare, layers[0])
        self._others = _parts(lm, [text for texts in others for text in texts], layers[0])

    def at(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys of one block and hidden states after the last edited one, with the weights as they are now.

        Parameters
        ----------
        layer : int
            An edited block.

        Returns
        -------
        keys : Tensor (N, d_ff)
            The mean of the bare prompt's key and of the mean key over the other contexts, as in MEMIT's code.
        hidden : Tensor (N, d_model)
            After the last of the edited blocks, in the bare prompt.
        """
        keys, hidden = self._run(self._bare, layer, hidden=True)
        if self._others:
            in_context, _ = self._run(self._others, layer, hidden=False)
            keys = (keys + in_context.reshape(-1, self._n, keys.shape[1]).mean(dim=0)) / 2
        return keys, hidden

    def _run(self, parts: list[_Part], layer: int, *, hidden: bool) -> tuple[Tensor, Tensor | None]:
        """Keys (B, d_ff) and, if wanted, hidden states (B, d_model) of each part's texts, in the texts' order."""
        keys, states = [], []

        def keep_keys(module, args):
            keys.append(args[0].reshape(part.blocks.ids.shape + (-1,))[:, -1])
            if not hidden:
                raise Reached

        def keep_hidden(module, args, output):
            states.append((output[0] if isinstance(output, tuple) else output)[:, -1])
            raise Reached

        for part in parts:
            with ExitStack() as stack, torch.no_grad():
                stack.enter_context(hooked(self._lm.mlp_out(layer), keep_keys, before=True))
                stack.enter_context(hooked(self._lm.blocks[self._last], keep_hidden))
                stack.enter_context(suppress(Reached))
                part.blocks.logits()
        order = torch.tensor([i for part in parts for i in part.index]).argsort()
        return torch.cat(keys)[order], torch.cat(states)[order] if hidden else None


def _upto_subject(lm: LanguageModel, request: EditRequest, context: str) -> Encoded:
    encoded = encode_request(lm.tokenizer, request, context=context, target="")
    return replace(encoded, ids=encoded.ids[: encoded.subject_last + 1])


def _parts(lm: LanguageModel, texts: list[Encoded], layer: int) -> list[_Part]:
    lengths = [len(text.ids) for text in texts]
    parts = []
    for index in like_lengths(lengths, _ROWS):
        ends = [lengths[i] - 1 for i in index]
        pad_id = lm.tokenizer.pad_token_id or 0
        batch = pad([texts[i].ids for i in index], align=ends, pad_id=pad_id, device=lm.device)
        nothing_read = torch.zeros_like(batch.ids, dtype=torch.bool)
        parts.append(_Part(index, UpperBlocks.of(lm, batch, nothing_read, layer)))
    return parts
