"""Prompts with their targets: run from some block up, read where the targets' tokens are predicted."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import Batch, Encoded, pad
from workbench.forward import widened
from workbench.lm import LanguageModel


def pad_texts(lm: LanguageModel, texts: Sequence[Encoded]) -> tuple[Batch, Tensor]:
    """Pad texts on the right, without their last token, which is predicted but never read.

    Parameters
    ----------
    lm : LanguageModel
        The model on whose device the tensors go.
    texts : sequence of Encoded
        B prompts with their targets.

    Returns
    -------
    batch, read : Batch, Tensor
        Both (B, T); `read` is true at the tokens after which the targets' tokens are predicted.
    """
    batch = pad([text.ids[:-1] for text in texts], pad_id=lm.tokenizer.pad_token_id or 0, device=lm.device)
    read = torch.zeros_like(batch.ids, dtype=torch.bool)
    for i, text in enumerate(texts):
        read[i, list(text.before_targets)] = True
    return batch, read


def compute_upper_blocks(lm: LanguageModel, texts: Sequence[Encoded], layer: int) -> UpperBlocks:
    """Run texts up to the input of block `layer`; they are read where their targets' tokens are predicted.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    texts : sequence of Encoded
        B prompts with their targets.
    layer : int
        The first block that is run repeatedly.

    Returns
    -------
    UpperBlocks
        (B, T), padded on the right.
    """
    return UpperBlocks.compute(lm, *pad_texts(lm, texts), layer)


def target_nll(logits: Tensor, targets: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the mean NLL of each text's target tokens, −log p(y|x) / tokens of y.

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
    logits = widened(logits)
    tokens = torch.tensor([token for ids in targets for token in ids], device=logits.device)
    lengths = torch.tensor([len(ids) for ids in targets], device=logits.device)
    nll = cross_entropy(logits, tokens, reduction="none")
    texts = torch.arange(len(targets), device=nll.device).repeat_interleave(lengths)
    return nll.new_zeros(len(targets)).index_add(0, texts, nll) / lengths
