"""Texts run once and then continued: greedily, or by given options whose likelihood is wanted.

Rows are run padded on the right, so that no token stands before a row's first; what is kept of them is shifted so that
their last tokens line up, since windows of attention are counted in columns. Texts can be run piece by piece, so that
a beginning that several share is run once. Everything goes through the model's own forward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, DynamicLayer

from workbench.encoding import pad
from workbench.forward import like_lengths, widened
from workbench.lm import LanguageModel

KeysValues = list[tuple[Tensor, Tensor]]  # (B, heads, T, d_head) each, for each block

_OPTIONS_AT_ONCE = 32  # logits of all their tokens are held, and a copy of their texts' keys and values
_ROOM = 16  # tokens that a cache makes room for at a time: growing by one copies everything at every token


class _RoomyLayer(DynamicLayer):
    """Keys and values of one block, in buffers with room for tokens to come."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._buffers = (keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Append, and return all keys and values so far."""
        n, n_new = self.keys.shape[-2], key_states.shape[-2]
        if self._buffers[0].shape[-2] < n + n_new:
            self._buffers = tuple(_with_room(b[..., :n, :], n_new + _ROOM) for b in self._buffers)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., n : n + n_new, :] = new
        self.keys, self.values = (buffer[..., : n + n_new, :] for buffer in self._buffers)
        return self.keys, self.values


def _with_room(tensor: Tensor, room: int) -> Tensor:
    grown = tensor.new_empty((*tensor.shape[:-2], tensor.shape[-2] + room, tensor.shape[-1]))
    grown[..., : tensor.shape[-2], :] = tensor
    return grown


@dataclass(frozen=True, eq=False)
class Prefilled:
    """B texts, run to their last tokens, ready to be gone on with.

    Attributes
    ----------
    lm : LanguageModel
        Its weights must stay as they are while this object is used.
    keys_values : list of (Tensor, Tensor)
        (B, heads, T, d_head) each, for each block, T being the longest text; the last tokens stand in the last column.
        Empty where they were not kept.
    mask : Tensor (B, T)
        1 for a token and 0 for padding, which comes first.
    lengths : Tensor (B,)
        Tokens of each text.
    logits : Tensor (B, V)
        After each text's last token, float32 or wider.
    """

    lm: LanguageModel
    keys_values: KeysValues
    mask: Tensor
    lengths: Tensor
    logits: Tensor

    @classmethod
    def nothing(cls, lm: LanguageModel, n: int) -> "Prefilled":
        """As many texts without a token, to be extended."""
        mask = torch.ones(n, 0, dtype=torch.long, device=lm.device)
        return cls(lm, [], mask, mask.sum(dim=1), torch.empty(n, 0))

    @torch.no_grad()
    def extended(self, rows: Sequence[tuple[int, ...]], *, keep: bool = True) -> "Prefilled":
        """Run what comes after each text.

        Parameters
        ----------
        rows : sequence of tuple of int
            Token ids, at least one for each of the B texts.
        keep : bool
            Whether keys and values are kept for a continuation; without them there are only the logits.

        Returns
        -------
        Prefilled
            The texts as they are then.
        """
        batch = pad(list(rows), pad_id=self.lm.tokenizer.pad_token_id or 0, device=self.lm.device)
        own = batch.mask.sum(dim=1)
        mask = torch.cat([self.mask, batch.mask], dim=1)
        cache = DynamicCache(self.keys_values) if keep or self.keys_values else None
        logits = self.lm.model(
            batch.ids,
            attention_mask=mask,
            position_ids=self.lengths[:, None] + batch.positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=torch.zeros_like(batch.mask, dtype=torch.bool).scatter(1, own[:, None] - 1, True),
        ).logits
        lengths, width = self.lengths + own, mask.shape[1]
        # the column that goes to each column, so that padding comes first; columns of padding alone are dropped
        columns = torch.arange(width - int(lengths.max()), width, device=mask.device)
        source = (columns - (batch.ids.shape[1] - own)[:, None]) % width  # (B, T)
        kept = [tuple(_columns(t, source) for t in pair) for pair in _keys_values(cache)] if keep else []
        return Prefilled(self.lm, kept, mask.gather(1, source), lengths, widened(logits))

    def rows(self, index: Tensor) -> "Prefilled":
        """Some of the texts, or texts repeatedly: `index` (B',) of row numbers."""
        kept = _selected(self.keys_values, index)
        logits = self.logits[index.to(self.logits.device)]
        return Prefilled(self.lm, kept, self.mask[index], self.lengths[index], logits)

    @torch.no_grad()
    def log_likelihoods(self, options: Sequence[Sequence[tuple[int, ...]]]) -> list[list[float]]:
        """Log-probability of each option's tokens after its text.

        Parameters
        ----------
        options : sequence of sequence of tuple of int
            Token ids of the options of each text, none of them empty.

        Returns
        -------
        list of list of float
            Sums over tokens, in nats.
        """
        first = self.logits.log_softmax(dim=-1)
        found = [[float(first[i, ids[0]]) for ids in given] for i, given in enumerate(options)]
        longer = [(i, j) for i, given in enumerate(options) for j, ids in enumerate(given) if len(ids) > 1]
        for start in range(0, len(longer), _OPTIONS_AT_ONCE):
            part = longer[start : start + _OPTIONS_AT_ONCE]
            texts = self.rows(torch.tensor([i for i, _ in part], device=self.mask.device))
            rest = texts._log_probs_of_rest([options[i][j] for i, j in part])
            for (i, j), log_prob in zip(part, rest, strict=True):
                found[i][j] += log_prob
        return found

    def _log_probs_of_rest(self, continuations: list[tuple[int, ...]]) -> list[float]:
        """Summed log-probability of the tokens after the first of one continuation a text."""
        batch = pad([ids[:-1] for ids in continuations], device=self.mask.device)
        logits = self.lm.model(
            batch.ids,
            attention_mask=torch.cat([self.mask, batch.mask], dim=1),
            position_ids=self.lengths[:, None] + batch.positions,
            past_key_values=DynamicCache(self.keys_values),
            use_cache=True,
            logits_to_keep=batch.mask.bool(),
        ).logits  # (tokens of all, V)
        wanted = torch.tensor([token for ids in continuations for token in ids[1:]], device=logits.device)
        log_probs = widened(logits).log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0]
        return [float(part.sum()) for part in log_probs.split([len(ids) - 1 for ids in continuations])]

    @torch.no_grad()
    def continue_greedily(self, finished: Callable[[int, list[int]], bool]) -> list[list[int]]:
        """The most probable token after each text, again and again, until all are finished.

        Parameters
        ----------
        finished : callable
            Takes the row number and what was written after it; whether that is all that is wanted.

        Returns
        -------
        list of list of int
            Each text's continuation, at least one token.
        """
        tokens = self.logits.argmax(dim=-1)
        written = [[token] for token in tokens.tolist()]
        alive = [i for i, text in enumerate(written) if not finished(i, text)]
        if not alive:
            return written
        index = torch.tensor(alive, device=self.mask.device)
        left, tokens = self.rows(index), tokens[index.to(tokens.device)]
        cache = _roomy(left.keys_values)
        mask, positions = left.mask, left.lengths
        while True:
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self.lm.model(
                tokens[:, None],
                attention_mask=mask,
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits
            tokens, positions = logits[:, -1].argmax(dim=-1), positions + 1
            for i, token in zip(alive, tokens.tolist(), strict=True):
                written[i].append(token)
            going = [k for k, i in enumerate(alive) if not finished(i, written[i])]
            if not going:
                return written
            if len(going) < len(alive):
                alive = [alive[k] for k in going]
                index = torch.tensor(going, device=mask.device)
                mask, positions, tokens = mask[index], positions[index], tokens[index.to(tokens.device)]
                cache = _roomy(_selected(_keys_values(cache), index))


def continue_greedily(
    lm: LanguageModel,
    prompts: Sequence[tuple[int, ...]],
    written: Sequence[tuple[int, ...]],
    lengths: Sequence[int],
    *,
    batch_size: int = 32,
) -> list[tuple[int, ...]]:
    """Greedy continuations, each up to its length or until the model ends its text, as `generate` does.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    prompts : sequence of tuple of int
        Token ids, B texts.
    written : sequence of tuple of int
        What is known of each continuation already; may be empty.
    lengths : sequence of int
        Tokens to write at most, those known included.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    list of tuple of int
        Each continuation, the end-of-text token included if it came.
    """
    ends, whole = ends_of_text(lm), [list(tokens) for tokens in written]

    def finished(i: int, tokens: list[int]) -> bool:
        return len(tokens) >= lengths[i] or not ends.isdisjoint(tokens[-1:])

    short = [i for i, tokens in enumerate(whole) if not finished(i, tokens)]
    rows = [(*prompts[i], *whole[i]) for i in short]
    for batch in like_lengths([len(row) for row in rows], batch_size):
        chosen = [short[j] for j in batch]
        texts = Prefilled.nothing(lm, len(batch)).extended([rows[j] for j in batch])
        more = texts.continue_greedily(lambda k, new, of=chosen: finished(of[k], whole[of[k]] + new))
        for i, tokens in zip(chosen, more, strict=True):
            whole[i] += tokens
    return [tuple(tokens) for tokens in whole]


def continued_texts(lm: LanguageModel, prompts: Sequence[tuple[int, ...]], n_tokens: int) -> list[str]:
    """How prompts go on greedily, as text, special tokens left out.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    prompts : sequence of tuple of int
        Token ids.
    n_tokens : int
        Tokens to write at most.

    Returns
    -------
    list of str
        One a prompt.
    """
    written = continue_greedily(lm, prompts, [()] * len(prompts), [n_tokens] * len(prompts))
    return lm.tokenizer.batch_decode(written, skip_special_tokens=True)


def ends_of_text(lm: LanguageModel) -> set[int]:
    """Ids of the tokens that end a text, as `generate` takes them."""
    ends = lm.model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def _keys_values(cache: Cache) -> KeysValues:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _columns(tensor: Tensor, source: Tensor) -> Tensor:
    """Columns `source` (B, T') of keys or values (B, heads, T, d_head), row by row."""
    index = source.to(tensor.device)[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)


def _selected(keys_values: KeysValues, index: Tensor) -> KeysValues:
    return [(keys[index.to(keys.device)], values[index.to(values.device)]) for keys, values in keys_values]


def _roomy(keys_values: KeysValues) -> Cache:
    return Cache(layers=[_RoomyLayer(keys, values) for keys, values in keys_values])
