"""Drift: how far edits move a model's predictions on held-out text, from those of the unedited model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.arguments import checked
from workbench.data.records import BUNDLED
from workbench.encoding import encode
from workbench.errors import DataError
from workbench.evaluation.perplexity import WINDOW, describe_windows, read_windows
from workbench.evaluation.statistics import bootstrap_interval
from workbench.forward import batch_by_length, compute_logits
from workbench.lm import LanguageModel

DRIFT, KL = "drift", "kl"  # in the columns task and metric
_TOKENS_AT_ONCE = 1024  # in a forward pass
_LOGITS_AT_ONCE = 2**26  # of each of the two models: 256 MiB in float32, so that a large vocabulary takes more passes
_PROBABILITIES_AT_ONCE = 2**24  # of each of the two models


@checked
def drift(
    lm: LanguageModel,
    text: str | Path = BUNDLED,
    *,
    window: int = WINDOW,
    limit: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the mean KL divergence of the current model's predictions from the unedited model's, per token.

    KL(before ‖ after) = Σ_w p_before(w) · (ln p_before(w) − ln p_after(w)) (Kullback and Leibler 1951), over the whole
    vocabulary, after each token of a text but the last of its window. It is 0 for no edit, never negative, and uses all
    that the model predicts, where perplexity uses the probability of one token: an edit that trades one good prediction
    for another changes it too.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed. The unedited weights are put back for every second pass.
    text : str or Path
        ``"bundled"``, the paragraphs that come with the package, or a file of UTF-8 text; cut into windows as by
        `perplexity`.
    window : int
        Number of tokens per window, at least 2 and at most what the model takes.
    limit : int, optional
        Number of windows: the first `limit`; all by default.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row with the columns of `evaluate_tasks`: task is ``drift``, metric is ``kl``, value is the mean over tokens
        in nats, n is the number of windows, low and high are the ends of the 95 % bootstrap interval over windows.

    Raises
    ------
    SpecError
        If `window` or `limit` is out of range.
    DataError
        If the file cannot be read or has fewer than two tokens.
    """
    windows = read_windows(lm, text, window=window, limit=limit)
    sums = np.array([float(part.kl.double().sum()) for part in _compare(lm, windows)])  # (windows,)
    counts = np.array([len(row) - 1 for row in windows])
    # the unedited model does not drift from itself on any text: there is nothing to estimate
    low, high = bootstrap_interval(sums / counts, weights=counts, seed=seed) if sums.any() else (0.0, 0.0)
    value = float(sums.sum() / counts.sum())
    row = {"task": DRIFT, "metric": KL, **describe_windows(text, windows), "value": value}
    return pd.DataFrame([{**row, "n": len(windows), "low": low, "high": high}])


def drift_tokens(lm: LanguageModel, texts: str | Sequence[str]) -> pd.DataFrame:
    """Compute, for each token of texts, how far the prediction of it has moved from the unedited model's.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed.
    texts : str or sequence of str
        The texts, each of at least two tokens and at most as many as the model takes.

    Returns
    -------
    DataFrame
        One row per token but the first of each text, which nothing predicts; columns text (index), position (of the
        token in its text, special tokens included), token (as text), kl (KL(before ‖ after) of the distribution that
        predicts this token, in nats), log_prob_before and log_prob_after (of this token, in nats).

    Raises
    ------
    DataError
        If a text has fewer than two tokens, or more than the model takes.
    """
    rows = [encode(lm.tokenizer, text).ids for text in ([texts] if isinstance(texts, str) else texts)]
    for i, row in enumerate(rows):
        if not 2 <= len(row) <= (lm.max_tokens or len(row)):
            most = f" to {lm.max_tokens}" if lm.max_tokens else " or more"
            raise DataError(f"text {i} must have 2{most} tokens; it has {len(row)}.")
    columns = ["text", "position", "token", KL, "log_prob_before", "log_prob_after"]
    parts: list[tuple[int, int, str, float, float, float]] = []
    for i, (row, part) in enumerate(zip(rows, _compare(lm, rows), strict=True)):
        tokens = lm.tokenizer.batch_decode([[token] for token in row[1:]])
        numbers = (values.tolist() for values in (part.kl, part.log_prob_before, part.log_prob_after))
        parts += zip([i] * len(tokens), range(1, len(row)), tokens, *numbers, strict=True)
    return pd.DataFrame(parts, columns=columns)


@dataclass(frozen=True, eq=False)
class _TokenDrift:
    """The predictions of the tokens of one text, before and after the edits.

    Attributes
    ----------
    kl : Tensor (tokens − 1,)
        KL(before ‖ after) of each prediction, in nats, on the CPU.
    log_prob_before, log_prob_after : Tensor (tokens − 1,)
        Log-probability of the token that follows.
    """

    kl: Tensor
    log_prob_before: Tensor
    log_prob_after: Tensor


def _compare(lm: LanguageModel, rows: Sequence[tuple[int, ...]]) -> list[_TokenDrift]:
    """Compare the current model with the unedited one on texts; only the logits of one batch are kept at a time."""
    longest = max(map(len, rows))
    parts: list[list[Tensor]] = [[] for _ in rows]
    with tqdm(total=sum(len(row) - 1 for row in rows), desc="Drift", unit="token") as bar:
        for batch in batch_by_length([len(row) for row in rows], max(1, _TOKENS_AT_ONCE // longest)):
            for places in _split_positions([len(rows[i]) - 1 for i in batch], _LOGITS_AT_ONCE // lm.vocabulary_size):
                compared = _compare_at(lm, [rows[i] for i in batch], places).split([len(of_row) for of_row in places])
                for i, of_row in zip(batch, compared, strict=True):
                    parts[i].append(of_row)
                bar.update(sum(map(len, places)))
    return [_TokenDrift(*torch.cat(of_row).unbind(dim=1)) for of_row in parts]


def _split_positions(sizes: Sequence[int], at_once: int) -> Iterator[list[range]]:
    """Yield ranges of positions of each of several texts, with at most `at_once` positions in all, in their order."""
    starts = np.cumsum([0, *sizes])
    for start in range(0, int(starts[-1]), max(1, at_once)):
        cut = np.clip(starts, start, start + max(1, at_once))
        yield [
            range(int(low - first), int(high - first))
            for first, low, high in zip(starts[:-1], cut[:-1], cut[1:], strict=True)
        ]


@torch.no_grad()
def _compare_at(lm: LanguageModel, rows: Sequence[tuple[int, ...]], positions: Sequence[range]) -> Tensor:
    """KL, and log-probability of the next token before and after, at positions of several texts: (R, 3), on the CPU."""
    after = compute_logits(lm, rows, positions)  # (R, V)
    with lm.unedited():
        before = compute_logits(lm, rows, positions)
    follows = torch.tensor(
        [row[i + 1] for row, of_row in zip(rows, positions, strict=True) for i in of_row], device=after.device
    )
    at_once = max(1, _PROBABILITIES_AT_ONCE // after.shape[1])
    pieces = zip(before.split(at_once), after.split(at_once), follows.split(at_once), strict=True)
    return torch.cat([_compare_logits(*piece) for piece in pieces]).cpu()


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) in nats (R,), from log-probabilities (R, V); never negative."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).clamp(min=0)  # rounding may leave −1e-7


def _compare_logits(before: Tensor, after: Tensor, follows: Tensor) -> Tensor:
    """KL, and log-probability of the tokens `follows` before and after, from logits (R, V): (R, 3)."""
    log_p, log_q = before.log_softmax(dim=-1), after.log_softmax(dim=-1)
    kl = divergence(log_p, log_q)
    chosen = (log_probs.gather(1, follows[:, None])[:, 0] for log_probs in (log_p, log_q))
    return torch.stack([kl, *chosen], dim=1)
