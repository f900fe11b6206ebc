"""Padded forward passes of many texts, and the teacher-forced scores of targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from workbench.encoding import Batch, Encoded, pad
from workbench.lm import LanguageModel


@dataclass(frozen=True, eq=False)
class TargetScores:
    """Predictions of a model at the tokens of one target, given the true tokens before each.

    Attributes
    ----------
    argmax : Tensor (target tokens,)
        Ids of the most probable tokens.
    log_probs : Tensor (target tokens,)
        Log-probabilities of the true tokens, float32 or wider.
    """

    argmax: Tensor
    log_probs: Tensor


def pad_texts(lm: LanguageModel, rows: Sequence[tuple[int, ...]], *, align: list[int] | None = None) -> Batch:
    """Pad texts for a forward pass.

    Parameters
    ----------
    lm : LanguageModel
        The model on whose device the tensors go.
    rows : sequence of tuple of int
        Token ids of B texts.
    align : list of int, optional
        Index in each text of the token that is aligned, as for `workbench.encoding.pad`.

    Returns
    -------
    Batch

    Raises
    ------
    RequestError
        If a text is longer than the model's table of positions.
    """
    lm.check_length(max(map(len, rows)))
    return pad(list(rows), align=align, pad_id=lm.tokenizer.pad_token_id or 0, device=lm.device)


def pad_rows(
    lm: LanguageModel, rows: Sequence[tuple[int, ...]], positions: Sequence[Sequence[int]]
) -> tuple[Batch, Tensor]:
    """Pad texts on the right, and mark the tokens at which logits are needed.

    Parameters
    ----------
    lm : LanguageModel
        The model on whose device the tensors go.
    rows : sequence of tuple of int
        Token ids of B texts.
    positions : sequence of sequence of int
        For each text, the indices of the tokens at which logits are needed.

    Returns
    -------
    batch, mask : Batch, Tensor
        Both (B, T); `mask` is true at the tokens of `positions`. It is on the CPU, as indices of any device may be.
    """
    batch = pad_texts(lm, rows)
    mask = torch.zeros(batch.ids.shape, dtype=torch.bool)
    for i, of_text in enumerate(positions):
        mask[i, list(of_text)] = True
    return batch, mask


@torch.no_grad()
def compute_logits(lm: LanguageModel, rows: Sequence[tuple[int, ...]], positions: Sequence[Sequence[int]]) -> Tensor:
    """Compute next-token logits at chosen tokens of several texts, in one forward pass.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    rows : sequence of tuple of int
        Token ids of B texts, of any lengths.
    positions : sequence of sequence of int
        For each text, the indices of the tokens after which the next token is predicted, ascending.

    Returns
    -------
    Tensor (R, V)
        float32 or wider, on the CPU or the model's device; R is the number of positions, text by text.
    """
    batch, mask = pad_rows(lm, rows, positions)
    return widen(lm.model(**batch.model_inputs, logits_to_keep=mask, use_cache=False).logits)


def widen(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in its own dtype if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def score_targets(lm: LanguageModel, texts: Sequence[Encoded]) -> list[TargetScores]:
    """Score the target of each text by teacher forcing, in one forward pass.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    texts : sequence of Encoded
        Prompts with their targets.

    Returns
    -------
    list of TargetScores
        One per text.
    """
    logits = compute_logits(lm, [text.ids[:-1] for text in texts], [text.before_targets for text in texts])
    return score_logits(logits, [text.target_ids for text in texts])


def score_logits(logits: Tensor, targets: Sequence[tuple[int, ...]]) -> list[TargetScores]:
    """Return the scores of targets from the logits that predict their tokens.

    Parameters
    ----------
    logits : Tensor (R, V)
        Logits that predict the targets' tokens, text by text.
    targets : sequence of tuple of int
        Token ids of each target.

    Returns
    -------
    list of TargetScores
        One per target.
    """
    sizes = [len(ids) for ids in targets]
    parts = zip(logits.argmax(dim=-1).split(sizes), (-_token_nll(logits, targets)).split(sizes), strict=True)
    return [TargetScores(argmax, log_probs) for argmax, log_probs in parts]


@dataclass(frozen=True, eq=False)
class TargetTokens:
    """The tokens of B targets (R in all) on one device, where a loop needs them again and again.

    Attributes
    ----------
    ids, texts : Tensor (R,)
        Id of each token, and the number of its text.
    lengths : Tensor (B,)
        Number of tokens of each target.
    """

    ids: Tensor
    texts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, targets: Sequence[tuple[int, ...]], device: torch.device) -> "TargetTokens":
        """Return the tokens of targets, given by their ids, on a device."""
        lengths = torch.tensor([len(ids) for ids in targets])
        texts = torch.arange(len(targets)).repeat_interleave(lengths)
        ids = torch.tensor([token for ids in targets for token in ids])
        return cls(ids.to(device), texts.to(device), lengths.to(device))

    def mean_nll(self, logits: Tensor) -> Tensor:
        """Return the mean NLL (B,) of each target's tokens, −log p(y|x) / tokens of y; differentiable.

        In float32 or wider, from the logits (R, V) that predict the tokens.
        """
        nll = cross_entropy(widen(logits), self.ids, reduction="none")
        return nll.new_zeros(len(self.lengths)).index_add(0, self.texts, nll) / self.lengths

    def are_predicted(self, logits: Tensor) -> Tensor:
        """Return whether (B,) every token of each target is the most probable one, from the logits (R, V)."""
        misses = (logits.detach().argmax(dim=-1) != self.ids).long()
        return misses.new_zeros(len(self.lengths)).index_add(0, self.texts, misses) == 0


def target_nll(logits: Tensor, targets: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the mean NLL (B,) of each target's tokens, as `TargetTokens.mean_nll` does.

    Parameters
    ----------
    logits : Tensor (R, V)
        Logits that predict the targets' tokens, text by text.
    targets : sequence of tuple of int
        Token ids of the target of each of B texts.

    Returns
    -------
    Tensor (B,)
        float32 or wider.
    """
    return TargetTokens.of(targets, logits.device).mean_nll(logits)


def _token_nll(logits: Tensor, targets: Sequence[tuple[int, ...]]) -> Tensor:
    """NLL of each token of the targets, (R,), float32 or wider."""
    tokens = torch.tensor([token for ids in targets for token in ids], device=logits.device)
    return cross_entropy(widen(logits), tokens, reduction="none")


def batch_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Group texts of similar lengths, so that batches need little padding.

    Parameters
    ----------
    lengths : sequence of int
        Length of each text.
    batch_size : int
        Largest number of texts in a batch.

    Returns
    -------
    list of list of int
        Indices of the texts of each batch; every index occurs once.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
