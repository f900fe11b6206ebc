"""Second moment C = E[k kᵀ] of the keys of a layer, what ROME and MEMIT call the covariance (it is not centered)."""

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from workbench.editing.second_moment.own_text import own_text
from workbench.editing.second_moment.sums import TOKENS_AT_ONCE, float64_place, sum_products
from workbench.editing.second_moment.texts import CHUNK, TextSource, find_source, token_chunks
from workbench.embedded import cache_dir
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.model_digest import digest_of_model, digest_up_to_keys
from workbench.storage.checked import read_checked, read_record, write_checked

log = logging.getLogger(__name__)

# Measured on the embedded model (d_ff 1536), layer 5, C of WikiText-2's training text: the median cosine between
# C⁻¹ k of 40 subjects and the same by 131,072 tokens of the validation text is 0.56 at 2.7 tokens a dimension, 0.63 at
# 4, 0.80 at 10.7 and 0.91 at 85; the condition number of C falls from 3.1e4 to 9.4e3, 1.1e3 and 4.0e2.
MIN_TOKENS, TOKENS_PER_DIMENSION = 16_384, 10

_POWER_STEPS = 10  # the estimate is then 3 to 10 % too low, where measured
_VERSION = 2  # of what a cache key stands for


@dataclass(frozen=True)
class MomentFile:
    """The cache file of the second moment of one layer.

    Attributes
    ----------
    path : Path
        A safetensors file with C.
    record : dict
        `model`, `layer`, `source`, `seed`, `n_tokens` (that C is the mean over), `n_tokens_asked`, `chunk`, `dtype`
        and `condition_number` (estimated; None where C is singular), as the file's metadata have them.
    """

    path: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class SecondMoment:
    """How C = E[k kᵀ] is estimated: from which text, from how many tokens.

    The text is cut into chunks of 256 tokens (`workbench.editing.second_moment.texts.token_chunks`), and C is the mean over all
    their tokens, as in the published code, which takes 100,000 articles of a dump of Wikipedia. C is of the
    unedited model. It is cached in ``second-moments`` of the cache folder, under the hash of all that it depends on:
    weights and configuration up to the layer, tokenizer, text and budget. A run that is killed goes on where it was.

    Attributes
    ----------
    source : str or None
        A text file, a folder of them, ``wikitext``, ``wikipedia`` or another data set of the hub, as
        `workbench.editing.second_moment.texts.find_source` reads it; None for text that the model writes itself.
    n_tokens : int or None
        Token budget; None for 10 a dimension of the keys, at least 16,384. A source with less is used whole.
    seed : int
        Draws the model's own text; without effect where there is a source.

    Raises
    ------
    EditError
        If n_tokens is below 256, the length of one chunk.
    """

    source: str | None = None
    n_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source is not None:
            object.__setattr__(self, "source", str(self.source))  # a Path is no JSON value
        if self.n_tokens is not None and self.n_tokens < CHUNK:
            raise EditError(f"n_tokens must be at least {CHUNK}; got {self.n_tokens}.")

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
            float64, on the CPU; positive definite unless the log says that it is singular.

        Raises
        ------
        EditError
            If a layer is out of range, there is no such source or it cannot be read, budget or source have fewer
            tokens than the keys have dimensions, or keys are not finite.
        """
        memo = {layer: lm.memo.get((self, layer)) for layer in layers}
        if missing := [layer for layer, C in memo.items() if C is None]:
            with lm.unedited():
                memo |= _Estimate(self, lm).load_or_compute(missing)
            lm.memo.update({(self, layer): memo[layer] for layer in missing})
        return memo

    def files(self, lm: LanguageModel, layers: list[int]) -> dict[int, MomentFile]:
        """The cache files of those layers whose C has been computed, by any process.

        Parameters
        ----------
        lm : LanguageModel
            The model.
        layers : list of int
            Any.

        Returns
        -------
        dict of int to MomentFile

        Raises
        ------
        EditError
            If a layer is out of range, there is no such source or it cannot be read, or the budget is below the number
            of the keys' dimensions.
        """
        with lm.unedited():
            estimate = _Estimate(self, lm)
            paths = {layer: estimate.path(layer) for layer in layers}
        records = {layer: record for layer, path in paths.items() if (record := read_record(path)) is not None}
        return {layer: MomentFile(paths[layer], record) for layer, record in records.items()}


def solve(C: Tensor, key: Tensor) -> Tensor:
    """C⁻¹ k by a Cholesky factorisation in float64; logs the condition number of C.

    Parameters
    ----------
    C : Tensor (d_ff, d_ff)
        Symmetric positive semidefinite.
    key : Tensor (d_ff,)
        k.

    Returns
    -------
    Tensor (d_ff,)
        float64, on the device of `key` (on the CPU if that has no float64).

    Raises
    ------
    EditError
        If C is singular: more tokens are needed than the keys have dimensions.
    """
    C = C.to(float64_place(key.device, 3 * 8 * C.numel()), torch.float64)
    factor, failed = torch.linalg.cholesky_ex(C)
    if failed:
        raise EditError(f"the second moment of {len(C)} dimensions is singular; estimate it from more tokens.")
    log.info("second moment: condition number about %.2e", _condition_number(C, factor))
    solved = torch.cholesky_solve(key.to(C.device).double()[:, None], factor)[:, 0]
    return solved.to(float64_place(key.device, 0))


def condition_number(C: Tensor) -> float:
    """λ_max / λ_min of a positive semidefinite matrix, by power iterations: at most a little too low.

    Parameters
    ----------
    C : Tensor (d, d)
        float64, symmetric.

    Returns
    -------
    float
        Infinite where C has no Cholesky factor.
    """
    factor, failed = torch.linalg.cholesky_ex(C)
    return float("inf") if failed else _condition_number(C, factor)


def _condition_number(C: Tensor, factor: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    largest = torch.randn(len(C), 1, generator=generator, dtype=C.dtype).to(C.device)
    inverse = largest
    for _ in range(_POWER_STEPS):
        largest = C @ (largest / largest.norm())
        inverse = torch.cholesky_solve(inverse / inverse.norm(), factor)
    return float(largest.norm() * inverse.norm())


class _Estimate:
    """One way of estimating C, for one unedited model."""

    def __init__(self, moment: SecondMoment, lm: LanguageModel) -> None:
        self._lm, self._seed = lm, moment.seed
        self._source: TextSource | None = None if moment.source is None else find_source(moment.source)
        self._width, _ = lm.linear_shape(lm.arch.mlp_out_weight(0))  # d_ff
        self._length = min(CHUNK, getattr(lm.model.config, "max_position_embeddings", None) or CHUNK)
        self._n_tokens = moment.n_tokens or max(MIN_TOKENS, TOKENS_PER_DIMENSION * self._width)
        self._needed = -(-self._width // self._length) * self._length
        self._why = f"since a mean over fewer tokens than the {self._width} dimensions of a key is singular"
        if self._n_tokens < self._needed:
            raise EditError(f"n_tokens must be at least {self._needed}, {self._why}; got {self._n_tokens}.")

    def path(self, layer: int) -> Path:
        """The cache file, whose name is the hash of all that C depends on."""
        name = _short_hash(
            digest_up_to_keys(self._lm, layer),
            self._text_digest,
            (_VERSION, TOKENS_AT_ONCE, self._n_tokens, self._length, layer, self._lm.arch.name),
        )
        return cache_dir() / "second-moments" / f"{name}.safetensors"

    def load_or_compute(self, layers: list[int]) -> dict[int, Tensor]:
        paths = {layer: self.path(layer) for layer in layers}
        found = _load(paths)
        if len(found) < len(layers):
            with _alone(paths[layers[0]].with_suffix(".lock")):
                found |= _load({layer: path for layer, path in paths.items() if layer not in found})
                if missing := {layer: path for layer, path in paths.items() if layer not in found}:
                    found |= self._compute(missing)
        return found

    def _compute(self, paths: dict[int, Path]) -> dict[int, Tensor]:
        chunks = self._chunks()
        partial_files = {layer: path.with_suffix(".partial") for layer, path in paths.items()}
        sums, found = sum_products(self._lm, chunks, partial_files), {}
        for layer, path in paths.items():
            total = sums.pop(layer)
            if not total.isfinite().all():
                raise EditError(
                    f"keys of layer {layer} of {self._lm.name} are not finite in {_dtype(self._lm)}; load the model in "
                    "a wider dtype."
                )
            found[layer] = (total + total.T).div_(2 * chunks.numel())  # a product in blocks may miss symmetry by a bit
            write_checked(path, found[layer], self._record(layer, chunks.numel(), condition_number(found[layer])))
            partial_files[layer].unlink(missing_ok=True)
        return found

    @cached_property
    def _text_digest(self) -> bytes:
        if self._source is not None:
            return self._source.digest()
        return digest_of_model(self._lm) + f"self-written {self._seed}".encode()

    def _chunks(self) -> Tensor:
        """Token ids (B, T)."""
        n_chunks = self._n_tokens // self._length
        if self._source is None:
            folder = cache_dir() / "own-texts" / _short_hash(self._text_digest, (_VERSION, self._length))
            return own_text(self._lm, n_chunks=n_chunks, length=self._length, seed=self._seed, folder=folder)
        chunks = token_chunks(self._lm.tokenizer, self._source, n_tokens=self._n_tokens, length=self._length)
        given = f"{self._source.name} holds {chunks.numel()} tokens in whole chunks of {self._length}"
        if chunks.numel() < self._needed:
            raise EditError(f"{given}; at least {self._needed} are needed, {self._why}.")
        if len(chunks) < n_chunks:
            log.warning("%s, not the %d asked for; all are used.", given, self._n_tokens)
        return chunks

    def _record(self, layer: int, n_tokens: int, number: float) -> dict[str, Any]:
        record = {
            "model": self._lm.name,
            "layer": layer,
            "source": self._source.name if self._source else None,
            "seed": None if self._source else self._seed,
            "n_tokens": n_tokens,
            "n_tokens_asked": self._n_tokens,
            "chunk": self._length,
            "dtype": _dtype(self._lm),
            "condition_number": number if math.isfinite(number) else None,  # JSON has no infinity
        }
        _tell(record)
        return record


def _dtype(lm: LanguageModel) -> str:
    return str(lm.model.dtype).removeprefix("torch.")


def _tell(record: dict[str, Any]) -> None:
    what = f"second moment of layer {record['layer']} of {record['model']}, {record['n_tokens']} tokens"
    if record["condition_number"] is None:
        log.warning("%s: singular, so nothing can be solved with it.", what)
    else:
        log.info("%s: condition number about %.2e", what, record["condition_number"])


def _load(paths: dict[int, Path]) -> dict[int, Tensor]:
    found = {}
    for layer, path in paths.items():
        if (content := read_checked(path)) is not None:
            found[layer], record = content
            _tell(record)
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time computes; the others wait for what it makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("another process is estimating this second moment; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _short_hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
