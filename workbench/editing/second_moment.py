"""Second moment C = E[k kᵀ] of the keys of a layer, what ROME and MEMIT call the covariance (it is not centered)."""

import hashlib
import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from workbench.atomic import write_atomically
from workbench.editing.contexts import OPENINGS
from workbench.editing.hooks import Reached, hooked
from workbench.embedded import cache_dir
from workbench.errors import EditError
from workbench.lm import LanguageModel

log = logging.getLogger(__name__)

_ROWS = 64  # texts of the model's own that are sampled together
_LENGTH = 256  # tokens of one text


@dataclass(frozen=True)
class SecondMoment:
    """How C is estimated: from which text, from how many tokens.

    Attributes
    ----------
    source : str or None
        A UTF-8 text file; None for text that the model writes itself, sampled with `seed`.
    n_tokens : int
        Token budget.
    seed : int
        Draws the model's own text; without effect for a file.

    Raises
    ------
    EditError
        If n_tokens is below 256, the length of one text.
    """

    source: str | None = None
    n_tokens: int = 16_384
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_tokens < _LENGTH:
            raise EditError(f"n_tokens must be at least {_LENGTH}; got {self.n_tokens}.")

    def of(self, lm: LanguageModel, layers: list[int]) -> dict[int, Tensor]:
        """C of each layer, of the unedited model, from the cache where it has been computed before.

        Parameters
        ----------
        lm : LanguageModel
            What is applied to it is lifted for the time of the computation.
        layers : list of int
            One pass collects all, and stops at the last of them.

        Returns
        -------
        dict of int to Tensor (d_ff, d_ff)
            float64, on the CPU.

        Raises
        ------
        EditError
            If a layer is out of range, or the text cannot be read or is shorter than one text of 256 tokens.
        """
        memo = {layer: lm.memo.get((self, layer)) for layer in layers}
        if missing := [layer for layer, C in memo.items() if C is None]:
            with lm.unedited():
                memo |= self._load_or_compute(lm, missing)
            lm.memo.update({(self, layer): memo[layer] for layer in missing})
        return memo

    def _load_or_compute(self, lm: LanguageModel, layers: list[int]) -> dict[int, Tensor]:
        folder = cache_dir() / "second-moments"
        paths = {layer: folder / f"{self._key(lm, layer)}.safetensors" for layer in layers}
        found = {layer: C for layer, path in paths.items() if (C := _read(path)) is not None}
        if missing := [layer for layer in layers if layer not in found]:
            found |= _collect(lm, missing, self._texts(lm))
            for layer in missing:
                write_atomically(paths[layer], partial(save_file, {"second_moment": found[layer]}))
        return found

    def _key(self, lm: LanguageModel, layer: int) -> str:
        """Hash of all that C depends on: the weights up to this layer's keys, the text, and the budget."""
        lm.check_layer(layer)
        digest = hashlib.sha256(repr((self.n_tokens, layer, lm.arch.name)).encode())
        digest.update(_file_digest(self.source) if self.source else f"self-written {self.seed}".encode())
        later = tuple(f"{lm.arch.block(i)}." for i in range(layer + 1, lm.n_layers)) + (lm.arch.mlp_out_weight(layer),)
        # the model's own text hangs on all weights
        for name, parameter in lm.model.named_parameters():
            if self.source is None or not name.startswith(later):
                digest.update(name.encode())
                digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    def _texts(self, lm: LanguageModel) -> Tensor:
        if self.source is None:
            return _write_own(lm, self.n_tokens, self.seed)
        try:
            ids = lm.tokenizer(Path(self.source).read_text(encoding="utf-8"))["input_ids"][: self.n_tokens]
        except (OSError, UnicodeDecodeError) as err:
            raise EditError(f"{self.source} cannot be read ({err}); give a UTF-8 text file.") from err
        if len(ids) < _LENGTH:
            raise EditError(f"{self.source} holds {len(ids)} tokens; at least {_LENGTH} are needed.")
        return torch.tensor(ids[: len(ids) // _LENGTH * _LENGTH]).reshape(-1, _LENGTH)


def solve(C: Tensor, key: Tensor) -> Tensor:
    """C⁻¹ k by a Cholesky factorisation in float64.

    Parameters
    ----------
    C : Tensor (d_ff, d_ff)
        Symmetric positive semidefinite.
    key : Tensor (d_ff,)
        k.

    Returns
    -------
    Tensor (d_ff,)
        float64, on the device of `key`.

    Raises
    ------
    EditError
        If C is singular: more tokens are needed than the keys have dimensions.
    """
    factor, failed = torch.linalg.cholesky_ex(C.double())
    if failed:
        raise EditError(f"the second moment of {len(C)} dimensions is singular; estimate it from more tokens.")
    log.info(
        "second moment: condition number about %.2e", float((factor.diagonal().max() / factor.diagonal().min()) ** 2)
    )
    return torch.cholesky_solve(key.double().cpu()[:, None], factor)[:, 0].to(key.device)


@torch.no_grad()
def _write_own(lm: LanguageModel, n_tokens: int, seed: int) -> Tensor:
    """Texts (B, 256) sampled from the model at temperature 1, after common openings."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in tqdm(range(-(-n_tokens // (_ROWS * _LENGTH))), desc="Writing text for the second moment"):
        starts = [lm.tokenizer(OPENINGS[i % len(OPENINGS)])["input_ids"] for i in range(_ROWS)]
        width = min(map(len, starts))
        ids, cache = torch.tensor([start[:width] for start in starts], device=lm.device), DynamicCache()
        fresh = ids
        while ids.shape[1] < _LENGTH:
            logits = lm.model(fresh, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            fresh = torch.multinomial(logits.float().cpu().softmax(dim=-1), 1, generator=generator).to(ids.device)
            ids = torch.cat([ids, fresh], dim=1)
        rows.append(ids.cpu())
    return torch.cat(rows)[: max(1, n_tokens // _LENGTH)]


@torch.no_grad()
def _collect(lm: LanguageModel, layers: list[int], texts: Tensor) -> dict[int, Tensor]:
    sums: dict[int, Tensor] = {}

    def collector(layer: int):
        def collect(module, args):
            keys = args[0].reshape(-1, args[0].shape[-1]).double()
            sums[layer] = sums.get(layer, 0) + (keys.T @ keys).cpu()
            if layer == max(layers):
                raise Reached

        return collect

    for ids in tqdm(texts.split(8), desc="Second moment of the keys"):
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(hooked(lm.mlp_out(layer), collector(layer), before=True))
            stack.enter_context(suppress(Reached))
            lm.model(ids.to(lm.device), use_cache=False, logits_to_keep=1)
    return {layer: total / texts.numel() for layer, total in sums.items()}


def _file_digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as err:
        raise EditError(f"{path} cannot be read ({err.strerror}); give a UTF-8 text file.") from err


def _read(path: Path) -> Tensor | None:
    try:
        return load_file(path)["second_moment"]
    except (OSError, SafetensorError, KeyError):
        return None  # not there, or cut short: compute it again
