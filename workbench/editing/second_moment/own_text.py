"""Text that a model writes itself, for when there is no data at hand: sampled with a seed, block by block."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from workbench.editing.contexts import OPENINGS
from workbench.encoding import encode
from workbench.lm import LanguageModel
from workbench.storage.checked import read_checked, write_checked

BLOCK = 32  # texts written together: more are faster on a GPU and take more memory, and are lost if a run is killed


def own_text(lm: LanguageModel, *, n_chunks: int, length: int, seed: int, folder: Path) -> Tensor:
    """Texts sampled from the model at temperature 1, after common openings.

    Each block of texts has its own seed and its own file, so a run that was killed goes on with the block that it
    was at, and more text begins with the same text.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    n_chunks, length : int
        How many texts, of how many tokens.
    seed : int
        Draws the tokens; global random state is not touched.
    folder : Path
        Where the blocks are kept; of this model, length and seed alone.

    Returns
    -------
    Tensor (n_chunks, length)
        Token ids.
    """
    blocks: list[Tensor] = []
    n_blocks = -(-n_chunks // BLOCK)
    n_tokens = n_blocks * BLOCK * length
    with tqdm(total=n_tokens, desc="Writing text", unit="tok", unit_scale=True, leave=False) as bar:
        for number in range(n_blocks):
            path = folder / f"{number:05d}.safetensors"
            found = read_checked(path)
            if found is None:
                block = _write_block(lm, number, length, seed, bar)
                write_checked(path, block.int(), {"model": lm.name, "seed": seed, "block": number})
            else:
                block = found[0].long()
                bar.update(block.numel())
            blocks.append(block)
    return torch.cat(blocks)[:n_chunks]


@torch.no_grad()
def _write_block(lm: LanguageModel, number: int, length: int, seed: int, bar: tqdm) -> Tensor:
    generator = torch.Generator().manual_seed(_block_seed(seed, number))
    starts = [encode(lm.tokenizer, OPENINGS[i % len(OPENINGS)]).ids for i in range(BLOCK)]
    width = min(map(len, starts))
    ids = torch.empty(BLOCK, length, dtype=torch.long)
    ids[:, :width] = torch.tensor([start[:width] for start in starts])
    fresh, cache = ids[:, :width], DynamicCache()
    bar.update(fresh.numel())
    for at in range(width, length):
        output = lm.model(fresh.to(lm.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        # drawn on the CPU, whose generator gives the same numbers everywhere
        chances = output.logits[:, -1].float().cpu().softmax(dim=-1)
        fresh = torch.multinomial(chances, 1, generator=generator)
        ids[:, at : at + 1] = fresh
        bar.update(BLOCK)
    return ids


def _block_seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "big")
