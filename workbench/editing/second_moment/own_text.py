"""Text that a model writes itself where no data are given: sampled with a seed, block by block."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import Cache, DynamicCache

from workbench.editing.contexts import OPENINGS
from workbench.encoding import encode
from workbench.growing_cache import growing_cache, keys_values_of
from workbench.lm import LanguageModel
from workbench.storage.checked import read_checked, write_checked

BLOCK = 32  # texts per batch: more are faster on a GPU, take more memory, and are lost if a run is interrupted


def sample_own_text(lm: LanguageModel, *, n_chunks: int, length: int, seed: int, folder: Path) -> Tensor:
    """Sample texts from the model at temperature 1, after common openings.

    Each block of texts has its own seed and its own file, so an interrupted run resumes with the block that it had
    reached, and a longer sample begins with the shorter one.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    n_chunks, length : int
        Number of texts, and number of tokens of each.
    seed : int
        Seed of the sampling; the global random state is not touched.
    folder : Path
        Folder of the blocks, which belongs to this model, length and seed alone.

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
            saved = read_checked(path)
            if saved is None:
                block = _sample_block(lm, _block_seed(seed, number), length, bar.update)
                write_checked(path, block.int(), {"model": lm.name, "seed": seed, "block": number})
            else:
                block = saved[0].long()
                bar.update(block.numel())
            blocks.append(block)
    return torch.cat(blocks)[:n_chunks]


@torch.no_grad()
def _sample_block(lm: LanguageModel, seed: int, length: int, advance: Callable[[int], object]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = [encode(lm.tokenizer, OPENINGS[i % len(OPENINGS)]).ids for i in range(BLOCK)]
    width = min(map(len, starts))
    ids = torch.empty(BLOCK, length, dtype=torch.long)
    ids[:, :width] = torch.tensor([start[:width] for start in starts])
    new = ids[:, :width]
    cache: Cache = DynamicCache()
    advance(new.numel())
    for at in range(width, length):
        output = lm.model(new.to(lm.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        if at == width:
            cache = growing_cache(keys_values_of(cache))
        # sampled on the CPU, whose generator gives the same numbers on every machine
        probabilities = output.logits[:, -1].float().cpu().softmax(dim=-1)
        new = torch.multinomial(probabilities, 1, generator=generator)
        ids[:, at : at + 1] = new
        advance(BLOCK)
    return ids


def _block_seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "big")
