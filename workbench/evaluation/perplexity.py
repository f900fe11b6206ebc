"""Perplexity on held-out text: a cheap early sign of collapse, next to the eight tasks."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from workbench.arguments import checked
from workbench.data.records import BUNDLED
from workbench.encoding import Encoded, encode, opening_ids
from workbench.errors import DataError, SpecError
from workbench.evaluation.statistics import bootstrap_interval
from workbench.forward import batch_by_length, score_targets
from workbench.inputs import require_path
from workbench.lm import LanguageModel
from workbench.storage.cache import compute_missing

WINDOW = 512  # tokens
ARTICLES = "articles"  # the text of the package that fills windows of `WINDOW`
BUNDLED_TEXTS = {BUNDLED: "paragraphs.txt", ARTICLES: "articles.txt"}  # one text per line
# in a forward pass, whose logits are all kept: no more tokens than this, and no more logits (0.5 GB in float32), which
# is fewer tokens for the 262,144 words of Gemma
_TOKENS_AT_ONCE, _LOGITS_AT_ONCE = 2048, 2**27


@checked
def perplexity(
    lm: LanguageModel,
    text: str | Path = BUNDLED,
    *,
    window: int = WINDOW,
    limit: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the perplexity of the current model on a text.

    Perplexity is exp of the mean NLL per token (Jelinek et al. 1977). Each paragraph, each article or a whole file is
    encoded by itself and cut into consecutive windows without overlap, so that no window crosses two texts. Each
    window is run by itself, and opens as the tokenizer opens any text (with ``<bos>`` where it does that). Its first
    token does not count, because nothing predicts it. So the number compares models on the same text, with the same
    tokenizer and window, and nothing else.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed. Results of the unedited model are kept in its memo.
    text : str or Path
        - ``"bundled"``: the 60 paragraphs that come with the package, of about 110 tokens each. No window is longer
          than its paragraph.
        - ``"articles"``: the articles that come with the package, of more than 512 tokens each. What remains of an
          article after its last full window is left out, so that all windows have exactly `window` tokens.
        - A file of UTF-8 text. The last window holds what remains, if it is at least two tokens.
    window : int
        Largest number of tokens per window, at least 2 and at most what the model takes.
    limit : int, optional
        Number of windows: the first `limit`; all by default.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row with the columns of `evaluate_tasks`: task and metric are ``perplexity``, protocol says how many tokens
        the windows have, such as ``windows of 100 to 122 tokens``, source names the text, n is the number of windows,
        low and high are the ends of the 95 % bootstrap interval over windows.

    Raises
    ------
    SpecError
        If `window` or `limit` is out of range.
    DataError
        If the text cannot be read or is too short for a window.
    """
    windows = read_windows(lm, text, window=window, limit=limit)
    nll = np.array(_window_nll(lm, windows))  # (windows,), summed, in nats
    counts = np.array([len(row) - 1 for row in windows])
    low, high = bootstrap_interval(nll / counts, weights=counts, seed=seed)
    row = {
        "task": "perplexity",
        "metric": "perplexity",
        **describe_windows(text, windows),
        "value": float(np.exp(nll.sum() / counts.sum())),
        "n": len(windows),
        "low": float(np.exp(low)),
        "high": float(np.exp(high)),
    }
    return pd.DataFrame([row])


def read_windows(lm: LanguageModel, text: str | Path, *, window: int, limit: int | None) -> list[tuple[int, ...]]:
    """Return the token ids of the windows of a text, each of at least two tokens; those of articles are all full.

    Parameters
    ----------
    lm : LanguageModel
        The model whose tokenizer cuts the text into tokens.
    text : str or Path
        ``"bundled"``, ``"articles"`` or a file.
    window : int
        Number of tokens per window.
    limit : int or None
        Number of windows; None for all.

    Returns
    -------
    list of tuple of int

    Raises
    ------
    SpecError
        If `window` or `limit` is out of range.
    DataError
        If the text cannot be read or is too short for a window.
    """
    longest = lm.max_tokens or window
    if not 2 <= window <= longest:
        raise SpecError(f"window must lie in 2 to {longest}, what {lm.name} takes; got {window}.")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise SpecError(f"limit must be a whole number of at least 1; got {limit!r}.")
    documents = _read_documents(text)
    shortest = window if text == ARTICLES else 2
    windows = [row for row in _cut_into_windows(lm, documents, window) if len(row) >= shortest][:limit]
    if not windows:
        raise DataError(f"{text} has fewer than {'two' if shortest == 2 else shortest} tokens; give a longer text.")
    return windows


def describe_windows(text: str | Path, windows: Sequence[tuple[int, ...]]) -> dict[str, str]:
    """Return the columns protocol, source and split of scores on windows of a text: what the windows are."""
    low, high = min(map(len, windows)), max(map(len, windows))
    source, split = _source_and_split(text)
    protocol = f"windows of {high} tokens" if low == high else f"windows of {low} to {high} tokens"
    return {"protocol": protocol, "source": source, "split": split}


def read_bundled_text(text: str) -> bytes:
    """Return the content of a text of `BUNDLED_TEXTS`: UTF-8, one paragraph or article per line."""
    return resources.files("workbench.data").joinpath(BUNDLED, BUNDLED_TEXTS[text]).read_bytes()


def _source_and_split(text: str | Path) -> tuple[str, str]:
    if text in BUNDLED_TEXTS:
        return f"{BUNDLED} {Path(BUNDLED_TEXTS[str(text)]).stem}", BUNDLED
    return Path(text).name, "unknown"


def _read_documents(text: str | Path) -> list[str]:
    if text in BUNDLED_TEXTS:
        return read_bundled_text(str(text)).decode("utf-8").splitlines()
    require_path(text, "the text", DataError)
    try:
        return [Path(text).read_text(encoding="utf-8-sig")]
    except OSError as err:
        raise DataError(
            f"{text} cannot be read ({err.strerror or err}); give a file of text, {BUNDLED!r} or {ARTICLES!r}."
        ) from err
    except UnicodeDecodeError as err:
        raise DataError(f"{text} is not UTF-8 text: byte {err.start}; save it as UTF-8.") from err


def _cut_into_windows(lm: LanguageModel, documents: Sequence[str], window: int) -> list[tuple[int, ...]]:
    opening = opening_ids(lm.tokenizer)
    body = max(1, window - len(opening))
    texts = [encode(lm.tokenizer, document).ids[len(opening) :] for document in documents]
    windows = [(*opening, *ids[i : i + body]) for ids in texts for i in range(0, len(ids), body)]
    return [row for row in windows if len(row) > 1]


def _window_nll(lm: LanguageModel, windows: Sequence[tuple[int, ...]]) -> list[float]:
    """Summed NLL of the tokens after the first of each window."""

    def compute(missing: list[tuple[int, ...]]) -> list[float]:
        nll: dict[int, float] = {}
        n_tokens = min(_TOKENS_AT_ONCE, _LOGITS_AT_ONCE // lm.vocabulary_size)
        at_once = max(1, n_tokens // max(map(len, windows)))
        with tqdm(total=len(missing), desc="Perplexity", unit="window") as bar:
            for batch in batch_by_length([len(row) for row in missing], at_once):
                texts = [Encoded(missing[i], n_prompt=1) for i in batch]
                for i, scores in zip(batch, score_targets(lm, texts), strict=True):
                    nll[i] = -float(scores.log_probs.double().sum())
                bar.update(len(batch))
        return [nll[i] for i in range(len(missing))]

    return compute_missing(lm.unedited_memo("window_nll"), windows, compute)
