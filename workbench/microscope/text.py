"""A text read token by token by the unedited and the edited model: what each predicts, and how far edits move it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.data.records import BUNDLED
from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import encode, opening_ids
from workbench.errors import DataError, SpecError
from workbench.evaluation.decoding import continue_greedily, decode_text
from workbench.evaluation.perplexity import read_bundled_text
from workbench.forward import pad_rows, widen
from workbench.inputs import require_text
from workbench.lm import LanguageModel
from workbench.storage.cache import compute_missing

WINDOW = 512  # tokens
N_TOP = 5  # most probable tokens at each position
_LOGITS_AT_ONCE = 2**24  # 64 MiB in float32, whatever the size of the vocabulary
_LOWEST = -700.0  # mean log-probability whose perplexity a float still holds
_MEMO_ENTRIES = 256  # windows of the unedited model that are kept, of a few kilobytes each


@dataclass(frozen=True, eq=False)
class TextComparison:
    """What the unedited and the edited model predict along a text.

    Attributes
    ----------
    tokens : DataFrame
        One row per token of the text; columns position (from 0), token (the piece of the text), log_prob_before,
        log_prob_after and change (after − before), in nats. They are NaN for a first token that nothing predicts.
    top : DataFrame
        The most probable tokens at each position that is predicted; columns position, model ("before" or "after"),
        rank (from 1), token (as text) and probability.
    """

    tokens: pd.DataFrame
    top: pd.DataFrame

    @property
    def n_predicted(self) -> int:
        """Number of tokens that the model predicts: all, or all but the first."""
        return int(self.tokens["log_prob_before"].notna().sum())

    @property
    def mean_before(self) -> float:
        """Mean log-probability per token of the unedited model, in nats."""
        return self._mean("log_prob_before")

    @property
    def mean_after(self) -> float:
        """Mean log-probability per token of the edited model, in nats."""
        return self._mean("log_prob_after")

    @property
    def perplexity_before(self) -> float:
        """Perplexity of the unedited model on the text."""
        return _perplexity(self.mean_before)

    @property
    def perplexity_after(self) -> float:
        """Perplexity of the edited model on the text; infinite where a token has no probability."""
        return _perplexity(self.mean_after)

    def _mean(self, column: str) -> float:
        predicted = self.tokens[column].iloc[len(self.tokens) - self.n_predicted :]
        return float(predicted.mean(skipna=False))  # a broken model predicts no numbers


def _perplexity(mean: float) -> float:
    return math.inf if mean < _LOWEST else math.exp(-mean)


class _Window(NamedTuple):
    """Token ids of one pass, and the positions in it after which the next token is predicted."""

    ids: tuple[int, ...]
    first: int  # the positions are `first` to len(ids) − 2


class _Reading(NamedTuple):
    """Predictions of a model at the R positions of a window, on the CPU."""

    log_probs: Tensor  # (R,), of the token that follows
    top_ids: Tensor  # (R, n_top)
    top_log_probs: Tensor  # (R, n_top)


class _Pieces(NamedTuple):
    """A text in tokens."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]  # together the text
    opening: tuple[int, ...]  # special tokens before it


@checked
@torch.no_grad()
def compare_text(lm: LanguageModel, text: str, *, window: int = WINDOW, n_top: int = N_TOP) -> TextComparison:
    """Compare the predictions of the current model and of the unedited one, token by token of a text.

    A text of more than `window` tokens is read in windows that overlap by half: each token is predicted once, and after
    the first window from at least `window` / 2 − 1 tokens before it. What the unedited model says to a window is kept
    in the memo of `lm`. The head is applied to the positions that are read, some of them at a time, so that a large
    vocabulary needs no more memory than a small one.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed. Without an applied update both sides are the same.
    text : str
        The text, of at least one token that is predicted.
    window : int
        Largest number of tokens in a forward pass, special tokens included: at least 4, at most what the model takes.
        A model with fewer positions than the default reads in windows of all its positions.
    n_top : int
        Number of most probable tokens per position.

    Returns
    -------
    TextComparison

    Raises
    ------
    SpecError
        If `window` or `n_top` is out of range.
    DataError
        If the text has too few tokens, or cannot be encoded.
    """
    require_text(text, "the text", DataError)
    window = _check_sizes(lm, window, n_top)
    pieces = _cut_into_tokens(lm, text)
    if len(pieces.ids) + bool(pieces.opening) < 2:
        raise DataError(f"the text {text!r} has no token that is predicted; give a longer one.")
    windows = _windows_of(pieces, window)
    before = _read_unedited(lm, windows, n_top)
    after = [_read(lm, each, n_top) for each in windows] if lm.applied_updates else before
    return _comparison(lm, pieces, before, after)


def held_out_passages() -> list[str]:
    """Return the paragraphs that come with the package, which no second moment and no editor has read."""
    return read_bundled_text(BUNDLED).decode("utf-8").splitlines()


@checked
def continued(lm: LanguageModel, prompt: str, n_tokens: int) -> str:
    """Return a prompt with its greedy continuation by the current model.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    prompt : str
        The text to continue.
    n_tokens : int
        Largest number of tokens of the continuation.

    Returns
    -------
    str

    Raises
    ------
    SpecError
        If prompt and continuation are longer than what the model takes.
    DataError
        If the prompt has no token.
    """
    ids = encode(lm.tokenizer, prompt).ids
    if not ids:
        raise DataError(f"the prompt {prompt!r} has no token; give a text to continue.")
    if lm.max_tokens and len(ids) + n_tokens > lm.max_tokens:
        raise SpecError(
            f"prompt and continuation have {len(ids) + n_tokens} tokens; {lm.name} takes {lm.max_tokens}; "
            "shorten the prompt."
        )
    [written] = continue_greedily(lm, [ids], [()], [n_tokens])
    whole, read = (decode_text(lm, tokens) for tokens in ((*ids, *written), ids))
    return prompt + whole[len(read) :]


def _check_sizes(lm: LanguageModel, window: int, n_top: int) -> int:
    """Return the window to use: the given one, or all positions of a model with fewer than the default."""
    longest = lm.max_tokens or window
    if window == WINDOW:
        window = min(window, longest)
    if not 4 <= window <= longest:
        raise SpecError(f"window must lie in 4 to {longest}, what {lm.name} takes; got {window}.")
    if not 1 <= n_top <= lm.vocabulary_size:
        raise SpecError(f"n_top must lie in 1 to {lm.vocabulary_size}, the size of the vocabulary; got {n_top}.")
    return window


def _cut_into_tokens(lm: LanguageModel, text: str) -> _Pieces:
    """Cut a text into tokens and the pieces of it that they stand for.

    A token that ends within a character, as one of several bytes, stands for nothing; the last of them for all of it.
    """
    encoding = lm.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids, ends = tuple(encoding["input_ids"]), [end for _, end in encoding["offset_mapping"]]
    shown, texts = 0, []
    for i, end in enumerate(ends):
        is_split = i + 1 < len(ends) and ends[i + 1] == end
        end = shown if is_split else len(text) if i + 1 == len(ends) else max(end, shown)
        texts.append(text[shown:end])
        shown = end
    return _Pieces(ids, tuple(texts), opening_ids(lm.tokenizer))


def _windows_of(pieces: _Pieces, window: int) -> list[_Window]:
    """Cut tokens into windows in which each is predicted once; each opens as the tokenizer opens a text."""
    opening = pieces.opening
    body, n_open = window - len(opening), len(opening)
    windows, start, done = [], 0, 0 if opening else 1  # `done`: number of tokens that are predicted, or never will be
    while done < len(pieces.ids):
        end = min(start + body, len(pieces.ids))
        windows.append(_Window((*opening, *pieces.ids[start:end]), n_open + done - start - 1))
        done, start = end, end - body // 2
    return windows


def _read_unedited(lm: LanguageModel, windows: Sequence[_Window], n_top: int) -> list[_Reading]:
    """Read windows with the unedited model, each once."""

    def compute(missing: list[tuple[_Window, int]]) -> list[_Reading]:
        with lm.unedited():
            return [_read(lm, window, n_top) for window, _ in missing]

    return compute_missing(
        lm.memo.section("text readings", _MEMO_ENTRIES), [(window, n_top) for window in windows], compute
    )


def _read(lm: LanguageModel, window: _Window, n_top: int) -> _Reading:
    """Read a window with the current model: one pass through the blocks, then the head on a part of the positions."""
    row, reads = window.ids, range(window.first, len(window.ids) - 1)
    batch, read = pad_rows(lm, [row], [reads])
    upper = UpperBlocks.compute(lm, batch, read, lm.n_layers)
    at_once = max(1, _LOGITS_AT_ONCE // lm.vocabulary_size)
    parts = []
    for start in range(reads.start, reads.stop, at_once):
        places = range(start, min(start + at_once, reads.stop))
        mask = torch.zeros_like(read)
        mask[0, list(places)] = True
        logits = widen(replace(upper, read=mask).logits())  # (places, V)
        total = logits.logsumexp(dim=-1, keepdim=True)
        follows = torch.tensor([[row[i + 1]] for i in places], device=logits.device)
        top = logits.topk(n_top, dim=-1)
        parts.append(((logits.gather(1, follows) - total)[:, 0], top.indices, top.values - total))
    return _Reading(*(torch.cat(each).cpu() for each in zip(*parts, strict=True)))


def _comparison(
    lm: LanguageModel, pieces: _Pieces, before: Sequence[_Reading], after: Sequence[_Reading]
) -> TextComparison:
    n_tokens, first = len(pieces.ids), 0 if pieces.opening else 1
    columns: dict[str, list[float]] = {}
    tops = []
    for side, readings in {"before": before, "after": after}.items():
        log_probs = torch.cat([each.log_probs for each in readings])
        columns[f"log_prob_{side}"] = [math.nan] * first + log_probs.tolist()
        ids = torch.cat([each.top_ids for each in readings])
        chances = torch.cat([each.top_log_probs for each in readings]).exp()
        tops.append(_top_table(lm, side, first, ids, chances))
    tokens = pd.DataFrame({"position": range(n_tokens), "token": pieces.texts, **columns})
    tokens["change"] = tokens["log_prob_after"] - tokens["log_prob_before"]
    top = pd.concat(tops).sort_values(["position"], kind="stable", ignore_index=True)
    return TextComparison(tokens, top)


def _top_table(lm: LanguageModel, side: str, first: int, ids: Tensor, chances: Tensor) -> pd.DataFrame:
    """Tidy table of the most probable tokens (R, n_top) at the positions from `first`."""
    n_rows, n_top = ids.shape
    known = {token: lm.tokenizer.decode([token]) for token in set(ids.reshape(-1).tolist())}
    return pd.DataFrame(
        {
            "position": [first + i for i in range(n_rows) for _ in range(n_top)],
            "model": side,
            "rank": [rank for _ in range(n_rows) for rank in range(1, n_top + 1)],
            "token": [known[token] for token in ids.reshape(-1).tolist()],
            "probability": chances.reshape(-1).tolist(),
        }
    )
