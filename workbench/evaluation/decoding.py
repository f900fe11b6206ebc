"""Greedy continuations of texts, and log-likelihoods of given continuations, from texts that are run once.

Rows are padded on the right when they are run, so that no padding comes before a row's first token. The keys and values
that are kept are shifted so that the last tokens of all rows are in the last column, because attention windows are
counted in columns. Texts can be run piece by piece, so that a shared prefix is run once. Everything goes through the
model's own forward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from workbench.encoding import pad
from workbench.evaluation.row_updates import RowUpdates
from workbench.forward import batch_by_length, widen
from workbench.growing_cache import KeysValues, growing_cache, keys_values_of
from workbench.lm import LanguageModel

_OPTIONS_AT_ONCE = 32  # a copy of their texts' keys and values is in memory
_LOGITS_AT_ONCE = 2**26  # of the tokens of options: 256 MiB in float32; a large vocabulary makes smaller passes


@dataclass(frozen=True, eq=False)
class Prefilled:
    """B texts that the model has read, from which decoding can continue.

    Attributes
    ----------
    lm : LanguageModel
        The model. Its weights must not change while this object is used.
    keys_values : list of (Tensor, Tensor)
        Keys and values of each block, (B, heads, T, d_head) each, where T is the length of the longest text. The last
        tokens are in the last column. Empty if they were not kept.
    mask : Tensor (B, T)
        1 for a token and 0 for padding, which comes first. On the CPU, like `lengths`: which tokens there are decides
        what is run next, and a device would have to be waited for.
    lengths : Tensor (B,)
        Number of tokens of each text.
    logits : Tensor (B, V)
        Logits after each text's last token, float32 or wider.
    updates : RowUpdates
        The update with which each text is run.
    """

    lm: LanguageModel
    keys_values: KeysValues
    mask: Tensor
    lengths: Tensor
    logits: Tensor
    updates: RowUpdates

    @classmethod
    def empty(cls, lm: LanguageModel, n: int) -> "Prefilled":
        """Return `n` texts without tokens, to be extended."""
        return cls.empty_with(RowUpdates.none(lm, n))

    @classmethod
    def empty_with(cls, updates: RowUpdates) -> "Prefilled":
        """Return a text without tokens for each row of `updates`, with whose update it will be run."""
        n = len(updates.update_of)
        mask = torch.ones(n, 0, dtype=torch.long)
        return cls(updates.lm, [], mask, mask.sum(dim=1), torch.empty(n, 0), updates)

    @torch.no_grad()
    def extend(self, rows: Sequence[tuple[int, ...]], *, keep: bool = True) -> "Prefilled":
        """Run more tokens after each text.

        Parameters
        ----------
        rows : sequence of tuple of int
            Token ids, at least one for each of the B texts.
        keep : bool
            Whether keys and values are kept, which decoding needs; without them there are only the logits.

        Returns
        -------
        Prefilled
            The longer texts; this object is not changed.
        """
        batch, device = pad(list(rows), pad_id=self.lm.tokenizer.pad_token_id or 0), self.lm.device
        n_new = batch.mask.sum(dim=1)
        self.lm.check_length(int((self.lengths + n_new).max()))
        mask = torch.cat([self.mask, batch.mask], dim=1)
        cache = DynamicCache(self.keys_values) if keep or self.keys_values else None
        with self.updates.running():
            logits = self.lm.model(
                batch.ids.to(device),
                attention_mask=mask.to(device),
                position_ids=(self.lengths[:, None] + batch.positions).to(device),
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=torch.zeros_like(batch.mask, dtype=torch.bool).scatter(1, n_new[:, None] - 1, True),
            ).logits
        lengths, width = self.lengths + n_new, mask.shape[1]
        # source column of each column, so that padding comes first; columns of padding only are dropped
        columns = torch.arange(width - int(lengths.max()), width)
        source = (columns - (batch.ids.shape[1] - n_new)[:, None]) % width  # (B, T)
        pairs = keys_values_of(cache) if cache is not None and keep else []
        kept = [(_take_columns(keys, source), _take_columns(values, source)) for keys, values in pairs]
        return Prefilled(self.lm, kept, mask.gather(1, source), lengths, widen(logits), self.updates)

    def select(self, index: Tensor) -> "Prefilled":
        """Return the texts with the row numbers `index` (B',), which may repeat; it is on the CPU."""
        kept = _select_rows(self.keys_values, index)
        mask, lengths, logits = self.mask[index], self.lengths[index], self.logits[index]
        return Prefilled(self.lm, kept, mask, lengths, logits, self.updates.select(index))

    @torch.no_grad()
    def log_likelihoods(self, options: Sequence[Sequence[tuple[int, ...]]]) -> list[list[float]]:
        """Return the log-likelihood of each option after its text.

        Parameters
        ----------
        options : sequence of sequence of tuple of int
            Token ids of each text's options, none of them empty.

        Returns
        -------
        list of list of float
            Summed over the tokens of each option, in nats.
        """
        first = self.logits.log_softmax(dim=-1)
        rows = torch.tensor([i for i, given in enumerate(options) for _ in given], dtype=torch.long)
        tokens = torch.tensor([ids[0] for given in options for ids in given], dtype=torch.long)
        starts = iter(first[rows, tokens].tolist())
        totals = [[next(starts) for _ in given] for given in options]
        longer = [(i, j) for i, given in enumerate(options) for j, ids in enumerate(given) if len(ids) > 1]
        most_tokens = _LOGITS_AT_ONCE // self.logits.shape[-1]
        for part in _split_options(longer, [len(options[i][j]) - 1 for i, j in longer], most_tokens):
            texts = self.select(torch.tensor([i for i, _ in part]))
            rest = texts._log_probs_of_rest([options[i][j] for i, j in part])
            for (i, j), log_prob in zip(part, rest, strict=True):
                totals[i][j] += log_prob
        return totals

    def _log_probs_of_rest(self, continuations: list[tuple[int, ...]]) -> list[float]:
        """Summed log-probability of all tokens but the first, of one continuation per text."""
        batch, device = pad([ids[:-1] for ids in continuations]), self.lm.device
        self.lm.check_length(int((self.lengths + batch.mask.sum(dim=1)).max()))
        with self.updates.running():
            logits = self.lm.model(
                batch.ids.to(device),
                attention_mask=torch.cat([self.mask, batch.mask], dim=1).to(device),
                position_ids=(self.lengths[:, None] + batch.positions).to(device),
                past_key_values=DynamicCache(self.keys_values),
                use_cache=True,
                logits_to_keep=batch.mask.bool(),
            ).logits  # (tokens of all, V)
        tokens = torch.tensor([token for ids in continuations for token in ids[1:]], device=logits.device)
        log_probs = widen(logits).log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
        parts = log_probs.split([len(ids) - 1 for ids in continuations])
        return torch.stack([part.sum() for part in parts]).tolist()

    @torch.no_grad()
    def continue_greedily(self, is_finished: Callable[[int, list[int]], bool]) -> list[list[int]]:
        """Append the most probable token to each text repeatedly, until all are finished.

        Parameters
        ----------
        is_finished : callable
            Function of the row number and the tokens written so far; returns whether the text is complete.

        Returns
        -------
        list of list of int
            Continuation of each text, at least one token.
        """
        tokens = self.logits.argmax(dim=-1)
        written = [[token] for token in tokens.tolist()]
        alive = [i for i, text in enumerate(written) if not is_finished(i, text)]
        if not alive:
            return written
        index = torch.tensor(alive)
        left, tokens = self.select(index), tokens[index]
        cache, device = growing_cache(left.keys_values), self.lm.device
        mask, positions, updates = left.mask, left.lengths, left.updates
        while True:
            self.lm.check_length(int(positions.max()) + 1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            with updates.running():
                logits = self.lm.model(
                    tokens[:, None],
                    attention_mask=mask.to(device),
                    position_ids=positions[:, None].to(device),
                    past_key_values=cache,
                    use_cache=True,
                ).logits
            tokens, positions = logits[:, -1].argmax(dim=-1), positions + 1
            for i, token in zip(alive, tokens.tolist(), strict=True):
                written[i].append(token)
            going = [k for k, i in enumerate(alive) if not is_finished(i, written[i])]
            if not going:
                return written
            if len(going) < len(alive):
                alive = [alive[k] for k in going]
                index = torch.tensor(going)
                mask, positions, tokens = mask[index], positions[index], tokens[index]
                updates = updates.select(index)
                cache = growing_cache(_select_rows(keys_values_of(cache), index))


def _split_options(
    places: list[tuple[int, int]], sizes: list[int], most_tokens: int
) -> Iterator[list[tuple[int, int]]]:
    """Yield parts of `places` with at most `_OPTIONS_AT_ONCE` options and, unless it is one, `most_tokens` tokens."""
    part: list[tuple[int, int]] = []
    n_tokens = 0
    for place, size in zip(places, sizes, strict=True):
        if part and (len(part) == _OPTIONS_AT_ONCE or n_tokens + size > most_tokens):
            yield part
            part, n_tokens = [], 0
        part.append(place)
        n_tokens += size
    if part:
        yield part


def continue_greedily(
    lm: LanguageModel,
    prompts: Sequence[tuple[int, ...]],
    written: Sequence[tuple[int, ...]],
    lengths: Sequence[int],
    *,
    batch_size: int = 64,
    is_complete: Callable[[Sequence[int]], bool] = lambda tokens: False,
    updates: RowUpdates | None = None,
) -> list[tuple[int, ...]]:
    """Continue texts greedily, each up to its length or to the end-of-text token, as `generate` does.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    prompts : sequence of tuple of int
        Token ids of each text.
    written : sequence of tuple of int
        First tokens of each continuation, as far as they are known; may be empty.
    lengths : sequence of int
        Largest number of tokens of each continuation, those known included.
    batch_size : int
        Number of texts per forward pass.
    is_complete : callable
        Function of the tokens of a continuation; returns whether it ends there, before its length. Never by default.
    updates : RowUpdates, optional
        The update with which each text is run; the current weights by default.

    Returns
    -------
    list of tuple of int
        Continuation of each text, with the end-of-text token if there is one.
    """
    ends, continuations = end_ids(lm), [list(tokens) for tokens in written]
    run_with = RowUpdates.none(lm, len(prompts)) if updates is None else updates

    def is_finished(i: int, tokens: list[int]) -> bool:
        return len(tokens) >= lengths[i] or not ends.isdisjoint(tokens[-1:]) or is_complete(tokens)

    unfinished = [i for i, tokens in enumerate(continuations) if not is_finished(i, tokens)]
    rows = [(*prompts[i], *continuations[i]) for i in unfinished]
    for batch in batch_by_length([len(row) for row in rows], batch_size):
        chosen = [unfinished[j] for j in batch]
        texts = Prefilled.empty_with(run_with.select(torch.tensor(chosen))).extend([rows[j] for j in batch])

        def is_row_finished(row: int, new: list[int], chosen: list[int] = chosen) -> bool:
            return is_finished(chosen[row], continuations[chosen[row]] + new)

        for i, tokens in zip(chosen, texts.continue_greedily(is_row_finished), strict=True):
            continuations[i] += tokens
    return [tuple(tokens) for tokens in continuations]


def continue_texts(lm: LanguageModel, prompts: Sequence[tuple[int, ...]], n_tokens: int) -> list[str]:
    """Return the greedy continuations of prompts as text, without special tokens.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    prompts : sequence of tuple of int
        Token ids of each prompt.
    n_tokens : int
        Largest number of tokens per continuation.

    Returns
    -------
    list of str
        One per prompt.
    """
    written = continue_greedily(lm, prompts, [()] * len(prompts), [n_tokens] * len(prompts))
    return [decode_text(lm, tokens) for tokens in written]


def decode_text(lm: LanguageModel, tokens: Sequence[int]) -> str:
    """Return tokens as text, without special tokens."""
    [text] = lm.tokenizer.batch_decode([list(tokens)], skip_special_tokens=True)
    return text


def end_ids(lm: LanguageModel) -> set[int]:
    """Return the ids of the tokens that end a text, as `generate` reads them from the model."""
    ends = lm.model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def _take_columns(tensor: Tensor, source: Tensor) -> Tensor:
    """Columns `source` (B, T') of keys or values (B, heads, T, d_head), chosen for each row."""
    index = source.to(tensor.device)[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)


def _select_rows(keys_values: KeysValues, index: Tensor) -> KeysValues:
    return [(keys[index], values[index]) for keys, values in keys_values]
