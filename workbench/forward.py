"""Logits of many texts in one padded forward pass, only where they are read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.encoding import Encoded, pad
from workbench.lm import LanguageModel


@torch.no_grad()
def logits_at(lm: LanguageModel, rows: list[tuple[int, ...]], reads: list[tuple[int, ...]]) -> Tensor:
    """Next-token logits of texts at chosen tokens.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    rows : list of tuple of int
        Token ids, B texts of any lengths.
    reads : list of tuple of int
        For each text the indices of the tokens after which the logits are wanted, ascending.

    Returns
    -------
    Tensor (R, V)
        float32 or wider, on the CPU or the model's device; R = number of reads, text by text.
    """
    batch = pad(rows, pad_id=lm.tokenizer.pad_token_id or 0, device=lm.device)
    wanted = torch.zeros_like(batch.ids, dtype=torch.bool)
    for i, read in enumerate(reads):
        wanted[i, list(read)] = True
    logits = lm.model(**batch.model_inputs, logits_to_keep=wanted, use_cache=False).logits
    return widened(logits)


def widened(tensor: Tensor) -> Tensor:
    """The same numbers in float32, or as they are where they are wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def read_targets(lm: LanguageModel, texts: Sequence[Encoded]) -> list[tuple[Tensor, Tensor]]:
    """What a model makes of each target token, given the true tokens before it, in one forward pass.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    texts : sequence of Encoded
        Prompts with their targets.

    Returns
    -------
    list of (Tensor, Tensor)
        For each text the most probable tokens and the log-probabilities of the true ones, (target tokens,) each.
    """
    logits = logits_at(lm, [text.ids[:-1] for text in texts], [text.before_targets for text in texts])
    tokens = torch.tensor([token for text in texts for token in text.target_ids], device=logits.device)
    log_probs = -torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
    sizes = [len(text.target_ids) for text in texts]
    return list(zip(logits.argmax(dim=-1).split(sizes), log_probs.split(sizes), strict=True))


def like_lengths(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of like lengths, so that little is padding.

    Parameters
    ----------
    lengths : sequence of int
        Length of each text.
    batch_size : int
        Texts in a batch at most.

    Returns
    -------
    list of list of int
        Each index once.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
