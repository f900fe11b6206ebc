"""Σ k kᵀ over the keys of a text, for several layers in one pass that an interrupted run can resume."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from workbench.editing.passes.hooks import Hook, Hooks, StopForward
from workbench.lm import LanguageModel
from workbench.storage.checked import read_checked, write_checked

TOKENS_PER_PASS = 2048  # another number rounds the sums differently
SAVE_EVERY = 30.0  # seconds, or ten times the duration of saving if that is longer


def sum_products(lm: LanguageModel, chunks: Tensor, partial_files: dict[int, Path]) -> dict[int, Tensor]:
    """Return Σ k kᵀ over all tokens of the chunks, for each layer.

    Products are computed and added in float64, chunks in order, so a run that resumes from the partial sums of an
    interrupted one ends with the same bits.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights.
    chunks : Tensor (B, T)
        Token ids.
    partial_files : dict of int to Path
        For each layer the file of its partial sum, which belongs to these chunks alone. The files stay; the caller
        removes them once the sums are saved.

    Returns
    -------
    dict of int to Tensor (d_ff, d_ff)
        float64, on the CPU.
    """
    sums = {layer: _RunningSum(lm, layer, path, n_sums=len(partial_files)) for layer, path in partial_files.items()}
    start = min(running.n_chunks for running in sums.values())
    step = max(1, TOKENS_PER_PASS // chunks.shape[1])
    done, save_at = start * chunks.shape[1], time.monotonic() + SAVE_EVERY
    with tqdm(total=chunks.numel(), initial=done, desc="Second moment", unit="tok", unit_scale=True) as bar:
        for at in range(start, len(chunks), step):
            batch = chunks[at : at + step]
            # a run may have been interrupted between saving one layer and saving the next
            _add_keys(lm, batch, {layer: running for layer, running in sums.items() if running.n_chunks == at})
            bar.update(batch.numel())
            if time.monotonic() >= save_at:
                save_at = time.monotonic() + max(SAVE_EVERY, 10 * _save_all(sums))
    return {layer: running.total.cpu() for layer, running in sums.items()}


def float64_device(device: torch.device, n_bytes: int) -> torch.device:
    """Return the device itself if it supports float64 and has twice `n_bytes` of free memory, else the CPU."""
    if device.type == "mps":
        return torch.device("cpu")
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < 2 * n_bytes:
        return torch.device("cpu")
    return device


class _RunningSum:
    """Σ k kᵀ of one layer over the chunks so far."""

    def __init__(self, lm: LanguageModel, layer: int, path: Path, *, n_sums: int) -> None:
        width, _ = lm.linear_shape(lm.arch.mlp_out_weight(layer))  # d_ff
        self._path, self._n_bytes, self._on_device = path, n_sums * 8 * width**2, False
        if (saved := read_checked(path)) is not None:
            self.total, self.n_chunks = saved[0], int(saved[1]["n_chunks"])
        else:
            self.total, self.n_chunks = torch.zeros(width, width, dtype=torch.float64), 0

    def add(self, keys: Tensor, n_chunks: int) -> None:
        """Add the keys (n, d_ff) of this number of chunks."""
        if not self._on_device:
            self.total, self._on_device = self.total.to(float64_device(keys.device, self._n_bytes)), True
        keys = keys.to(self.total.device).double()
        self.total.addmm_(keys.T, keys)
        self.n_chunks += n_chunks

    def save(self) -> None:
        write_checked(self._path, self.total.cpu(), {"n_chunks": self.n_chunks})


@torch.no_grad()
def _add_keys(lm: LanguageModel, batch: Tensor, sums: dict[int, _RunningSum]) -> None:
    """Add the keys of a batch to these sums, in one forward pass up to the last of their layers."""

    def collector(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def collect(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            sums[layer].add(args[0].reshape(-1, args[0].shape[-1]), len(batch))
            if layer == max(sums):
                raise StopForward

        return collect

    with Hooks(Hook(lm.mlp_out(layer), collector(layer), before=True) for layer in sums), suppress(StopForward):
        lm.model(batch.to(lm.device), use_cache=False, logits_to_keep=1)


def _save_all(sums: dict[int, _RunningSum]) -> float:
    """Save all partial sums; return how long it took, in seconds."""
    start = time.monotonic()
    for running in sums.values():
        running.save()
    return time.monotonic() - start
