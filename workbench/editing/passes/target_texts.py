"""Prompts with their targets: run from some block up, read where the targets' tokens are predicted."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import Batch, Encoded, pad
from workbench.forward import widened
from workbench.lm import LanguageModel


def padded(lm: LanguageModel, texts: Sequence[Encoded]) -> tuple[Batch, Tensor]:
    """Texts without their last token, which is predicted and never read, padded on the right.

    Parameters
    ----------
    lm : LanguageModel
        Says where the tensors go.
    texts : sequence of Encoded
        Prompts with their targets.

    Returns
    -------
    batch, read : Batch, Tensor
        (B, T); `read` is true after which the targets' tokens are predicted.
    """
    batch = pad([text.ids[:-1] for text in texts], pad_id=lm.tokenizer.pad_token_id or 0, device=lm.device)
    read = torch.zeros_like(batch.ids, dtype=torch.bool)
    for i, text in enumerate(texts):
        read[i, list(text.before_targets)] = True
    return batch, read


def upper_blocks(lm: LanguageModel, texts: Sequence[Encoded], layer: int) -> UpperBlocks:
    """Texts up to the input of block `layer`, read where their targets' tokens are predicted.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    texts : sequence of Encoded
        Prompts with their targets.
    layer : int
        The first block that is run again and again.

    Returns
    -------
    UpperBlocks
        (B, T), padded on the right.
    """
    return UpperBlocks.of(lm, *padded(lm, texts), layer)


def target_nll(logits: Tensor, targets: Sequence[tuple[int, ...]]) -> Tensor:
    """Mean NLL of each text's target tokens, −log p(y|x) / tokens of y.

    Parameters
    ----------
    logits : Tensor (R, V)
        Where the targets' tokens are predicted, text by text.
    targets : sequence of tuple of int
        The target's token ids of each of B texts.

    Returns
    -------
    Tensor (B,)
        float32 or wider.
    """
    logits = widened(logits)
    tokens = torch.tensor([token for ids in targets for token in ids], device=logits.device)
    lengths = torch.tensor([len(ids) for ids in targets], device=logits.device)
    nll = cross_entropy(logits, tokens, reduction="none")
    texts = torch.arange(len(targets), device=nll.device).repeat_interleave(lengths)
    return nll.new_zeros(len(targets)).index_add(0, texts, nll) / lengths
