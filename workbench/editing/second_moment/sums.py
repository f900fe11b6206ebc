"""Σ k kᵀ over the keys of a text, for several layers in one pass that a killed run can go on with."""

import time
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.passes.hooks import Reached, hooked
from workbench.lm import LanguageModel
from workbench.storage.checked import read_checked, write_checked

TOKENS_AT_ONCE = 2048  # of one forward pass; another number rounds the sums otherwise
SAVE_EVERY = 30.0  # seconds, or ten times what saving takes if that is longer


def sum_products(lm: LanguageModel, chunks: Tensor, partial_files: dict[int, Path]) -> dict[int, Tensor]:
    """Σ k kᵀ over all tokens of the chunks, for each layer.

    Products are taken and added in float64, chunks in order, so a run that goes on from the partial sums of one that
    was killed ends with the same bits.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is now.
    chunks : Tensor (B, T)
        Token ids.
    partial_files : dict of int to Path
        For each layer the file of its partial sum, which is of these chunks alone. The files stay, for the caller to
        remove once the sums are safe.

    Returns
    -------
    dict of int to Tensor (d_ff, d_ff)
        float64, on the CPU.
    """
    sums = {layer: _RunningSum(path, n_sums=len(partial_files)) for layer, path in partial_files.items()}
    start = min(running.n_chunks for running in sums.values())
    step = max(1, TOKENS_AT_ONCE // chunks.shape[1])
    done, save_at = start * chunks.shape[1], time.monotonic() + SAVE_EVERY
    with tqdm(total=chunks.numel(), initial=done, desc="Second moment", unit="tok", unit_scale=True) as bar:
        for at in range(start, len(chunks), step):
            batch = chunks[at : at + step]
            # a run may have been killed between saving one layer and saving the next
            _pass(lm, batch, {layer: running for layer, running in sums.items() if running.n_chunks == at})
            bar.update(batch.numel())
            if time.monotonic() >= save_at:
                save_at = time.monotonic() + max(SAVE_EVERY, 10 * _save(sums))
    return {layer: running.total.cpu() for layer, running in sums.items()}


def float64_place(device: torch.device, n_bytes: int) -> torch.device:
    """The device itself if it has float64 and twice that much free memory, else the CPU."""
    if device.type == "mps":
        return torch.device("cpu")
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < 2 * n_bytes:
        return torch.device("cpu")
    return device


class _RunningSum:
    """Σ k kᵀ of one layer over the chunks so far."""

    def __init__(self, path: Path, *, n_sums: int) -> None:
        self._path, self._n_sums = path, n_sums
        self.total: Tensor | None = None
        self.n_chunks = 0
        if (saved := read_checked(path)) is not None:
            self.total, self.n_chunks = saved[0], saved[1]["n_chunks"]
        self._placed = False

    def add(self, keys: Tensor, n_chunks: int) -> None:
        """Add the keys (n, d_ff) of so many chunks."""
        width = keys.shape[-1]
        if not self._placed:
            place = float64_place(keys.device, self._n_sums * 8 * width**2)
            zeros = torch.zeros(width, width, dtype=torch.float64) if self.total is None else self.total
            self.total, self._placed = zeros.to(place), True
        keys = keys.to(self.total.device).double()
        self.total.addmm_(keys.T, keys)
        self.n_chunks += n_chunks

    def save(self) -> None:
        if self.total is not None:
            write_checked(self._path, self.total.cpu(), {"n_chunks": self.n_chunks})


@torch.no_grad()
def _pass(lm: LanguageModel, batch: Tensor, sums: dict[int, _RunningSum]) -> None:
    """One forward pass, up to the keys of the last of these layers."""

    def collector(layer: int):
        def collect(module, args):
            sums[layer].add(args[0].reshape(-1, args[0].shape[-1]), len(batch))
            if layer == max(sums):
                raise Reached

        return collect

    with ExitStack() as stack:
        for layer in sums:
            stack.enter_context(hooked(lm.mlp_out(layer), collector(layer), before=True))
        stack.enter_context(suppress(Reached))
        lm.model(batch.to(lm.device), use_cache=False, logits_to_keep=1)


def _save(sums: dict[int, _RunningSum]) -> float:
    """Save all partial sums; returns how long it took, in seconds."""
    start = time.monotonic()
    for running in sums.values():
        running.save()
    return time.monotonic() - start
