"""Logits of many texts in one padded forward pass, only where they are read."""

import torch
from torch import Tensor

from workbench.encoding import pad
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
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
