"""Held-out text: perplexity, and KL from the unedited model, of the current model in one forward pass.

Unlike `wb.perplexity` and `wb.drift`, which read whole paragraphs for tables, this reads eight windows of 32 tokens, so
that a slider can ask for it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.data.records import BUNDLED
from workbench.evaluation.drift import divergence
from workbench.evaluation.perplexity import read_windows
from workbench.forward import compute_logits
from workbench.lm import LanguageModel
from workbench.storage.cache import compute_missing

WINDOWS, WINDOW = 8, 32  # windows, and their tokens
_LOGITS_AT_ONCE = 2**24  # 64 MiB in float32
_COMPARED = 8  # last tokens of each window whose whole distribution is compared: 13 MB for 49,152 words


@dataclass(frozen=True)
class HeldOut:
    """What a model predicts on text that has nothing to do with its edits.

    Attributes
    ----------
    perplexity, unedited : float
        Perplexity of the current model and of the unedited one; the number of `wb.perplexity` on these windows.
    kl : float
        Mean KL(before ‖ after) of the predictions after the last eight tokens of each window, in nats.
    """

    perplexity: float
    unedited: float
    kl: float

    @property
    def factor(self) -> float:
        """Perplexity as a multiple of that of the unedited model."""
        return self.perplexity / self.unedited


@dataclass(frozen=True, eq=False)
class _Reading:
    nll: float  # in nats, mean per token or summed
    log_probs: Tensor  # (windows · compared, V)


@checked
def measure_held_out(lm: LanguageModel, *, windows: int = WINDOWS, window: int = WINDOW) -> HeldOut:
    """Measure the current model on the first windows of the bundled paragraphs.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights. What the unedited model predicts is computed once and kept in its memo.
    windows : int
        Number of windows.
    window : int
        Number of tokens per window.

    Returns
    -------
    HeldOut

    Raises
    ------
    SpecError
        If `windows` or `window` is out of range.
    """
    known = lm.memo.section("held-out text", max_entries=2)

    def read_unedited(_: object) -> list[_Reading]:
        with lm.unedited():
            return [_read(lm, windows, window)]

    [before] = compute_missing(known, ((windows, window),), read_unedited)
    after = _read(lm, windows, window) if lm.applied_updates else before
    kl = float(divergence(before.log_probs, after.log_probs).mean())
    return HeldOut(_exp(after.nll), _exp(before.nll), kl)


def _exp(nll: float) -> float:
    return float(torch.tensor(nll, dtype=torch.float64).exp())  # infinite where math.exp would raise


def _read(lm: LanguageModel, windows: int, window: int) -> _Reading:
    rows = read_windows(lm, BUNDLED, window=window, limit=windows)
    at_once = max(1, _LOGITS_AT_ONCE // (window * lm.vocabulary_size))
    parts = [_read_rows(lm, rows[i : i + at_once]) for i in range(0, len(rows), at_once)]
    nll = sum(part.nll for part in parts) / sum(len(row) - 1 for row in rows)
    return _Reading(nll, torch.cat([part.log_probs for part in parts]))


def _read_rows(lm: LanguageModel, rows: list[tuple[int, ...]]) -> _Reading:
    sizes = [len(row) - 1 for row in rows]
    log_probs = compute_logits(lm, rows, list(map(range, sizes))).log_softmax(dim=-1)  # (R, V)
    follows = torch.tensor([token for row in rows for token in row[1:]], device=log_probs.device)
    nll = -float(log_probs.gather(1, follows[:, None]).double().sum())
    return _Reading(nll, torch.cat([part[-_COMPARED:] for part in log_probs.split(sizes)]))
