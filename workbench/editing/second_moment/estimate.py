"""The second moment C = E[k kᵀ] of the keys of a layer, which ROME and MEMIT call the covariance (not centered)."""

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from workbench.editing.second_moment.own_text import sample_own_text
from workbench.editing.second_moment.sums import TOKENS_PER_PASS, float64_device, sum_products
from workbench.editing.second_moment.texts import CHUNK, TextSource, cut_into_chunks, find_source
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.model_digest import digest_of_model, digest_up_to_keys
from workbench.parameters import SEED, Interval, check_parameters
from workbench.storage.cache import cache_dir, compute_missing
from workbench.storage.checked import read_checked, read_record, write_checked
from workbench.storage.disk import disk_errors

log = logging.getLogger(__name__)

# Measured on the embedded model (d_ff 1536), layer 5, C of WikiText-2's training text: the median cosine between
# C⁻¹ k of 40 subjects and the same from 131,072 tokens of the validation text is 0.56 at 2.7 tokens per dimension, 0.63
# at 4, 0.80 at 10.7 and 0.91 at 85; the condition number of C falls from 3.1e4 to 9.4e3, 1.1e3 and 4.0e2.
MIN_TOKENS, TOKENS_PER_DIMENSION = 16_384, 10

_POWER_STEPS = 10  # the estimate was then 3 to 10 % too low in measurements
_VERSION = 2  # of the content of cached files
_KEPT = 16  # matrices in a model's memo


@dataclass(frozen=True)
class MomentFile:
    """The cache file of the second moment of one layer.

    Attributes
    ----------
    path : Path
        The safetensors file with C.
    record : dict
        Its metadata: `model`, `layer`, `source`, `seed`, `n_tokens` (over which C is the mean), `n_tokens_asked`,
        `chunk`, `dtype` and `condition_number` (estimated; None where C is singular).
    """

    path: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class SecondMoment:
    """Settings of the estimate of C = E[k kᵀ]: the text, and the number of tokens.

    The text is cut into chunks of 256 tokens (`workbench.editing.second_moment.texts.cut_into_chunks`), and C is the
    mean over all their tokens, as in the published code, which takes 100,000 articles of a dump of Wikipedia. C is
    that of the unedited model. It is cached in ``second-moments`` of the cache folder, under a hash of everything it
    depends on: weights and configuration up to the layer, tokenizer, text and budget. An interrupted run resumes
    where it stopped.

    Attributes
    ----------
    source : str or None
        A text file, a folder of them, ``wikitext``, ``wikipedia`` or another data set of the hub, as
        `workbench.editing.second_moment.texts.find_source` reads it; None for text that the model writes itself.
    n_tokens : int or None
        Budget of tokens; None for 10 per dimension of the keys, at least 16,384. A shorter source is used whole.
    seed : int
        Seed of the model's own text; without effect if there is a source.

    Raises
    ------
    EditError
        If a value is not allowed, such as n_tokens below 256, the length of one chunk.
    """

    source: Annotated[str | None, "text that C is estimated from; None: written by the model"] = None
    n_tokens: Annotated[int | None, Interval(CHUNK), "budget of tokens; None: 10 per dimension of the keys"] = None
    seed: Annotated[int, SEED, "seed of the model's own text"] = 0

    def __post_init__(self) -> None:
        if isinstance(self.source, PathLike):
            object.__setattr__(self, "source", fspath(self.source))  # a Path is no JSON value
        check_parameters(self)

    def compute(self, lm: LanguageModel, layers: list[int]) -> dict[int, Tensor]:
        """Return C of each layer of the unedited model, from the cache if it has been computed before.

        Parameters
        ----------
        lm : LanguageModel
            The model; updates applied to it are lifted during the computation.
        layers : list of int
            The layers; one pass collects the keys of all, and stops at the last of them.

        Returns
        -------
        dict of int to Tensor (d_ff, d_ff)
            float64, on the CPU; positive definite unless the log reports that it is singular.

        Raises
        ------
        EditError
            If a layer is out of range, the source does not exist or cannot be read, budget or source have fewer
            tokens than the keys have dimensions, or keys are not finite.
        DiskError
            If the cache cannot be written to, such as on a full disk; the same call resumes from what it holds.
        """

        def load_or_compute(missing: list[tuple[SecondMoment, int]]) -> list[Tensor]:
            with lm.unedited():
                found = _Estimator(self, lm).load_or_compute([layer for _, layer in missing])
            return [found[layer] for _, layer in missing]

        keys = [(self, layer) for layer in layers]
        moments = compute_missing(lm.memo.section("second moments", _KEPT), keys, load_or_compute)
        return dict(zip(layers, moments, strict=True))

    def files(self, lm: LanguageModel, layers: list[int]) -> dict[int, MomentFile]:
        """Return the cache files of those layers whose C has been computed, by any process.

        Parameters
        ----------
        lm : LanguageModel
            The model whose files are listed.
        layers : list of int
            The layers to look up.

        Returns
        -------
        dict of int to MomentFile

        Raises
        ------
        EditError
            If a layer is out of range, the source does not exist or cannot be read, or the budget is below the number
            of the keys' dimensions.
        """
        with lm.unedited():
            estimator = _Estimator(self, lm)
            paths = {layer: estimator.path(layer) for layer in layers}
        records = {layer: record for layer, path in paths.items() if (record := read_record(path)) is not None}
        return {layer: MomentFile(paths[layer], record) for layer, record in records.items()}


def solve(C: Tensor, key: Tensor) -> Tensor:
    """Return C⁻¹ k, by a Cholesky factorization in float64; the condition number of C is logged.

    Parameters
    ----------
    C : Tensor (d_ff, d_ff)
        Symmetric positive semidefinite.
    key : Tensor (d_ff,)
        k.

    Returns
    -------
    Tensor (d_ff,)
        float64, on the device of `key`, or on the CPU if that device has no float64.

    Raises
    ------
    EditError
        If C is singular: more tokens are needed than the keys have dimensions.
    """
    C = C.to(float64_device(key.device, 3 * 8 * C.numel()), torch.float64)
    factor, failed = torch.linalg.cholesky_ex(C)
    if failed:
        raise EditError(f"the second moment of {len(C)} dimensions is singular; estimate it from more tokens.")
    log.info("second moment: condition number about %.2e", _iterate_powers(C, factor))
    solved = torch.cholesky_solve(key.to(C.device).double()[:, None], factor)[:, 0]
    return solved.to(float64_device(key.device, 0))


def estimate_condition_number(C: Tensor) -> float:
    """Estimate λ_max / λ_min of a positive semidefinite matrix by power iterations; the estimate is a little low.

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
    return float("inf") if failed else _iterate_powers(C, factor)


def _iterate_powers(C: Tensor, factor: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    largest = torch.randn(len(C), 1, generator=generator, dtype=C.dtype).to(C.device)
    inverse = largest
    for _ in range(_POWER_STEPS):
        largest = C @ (largest / largest.norm())
        inverse = torch.cholesky_solve(inverse / inverse.norm(), factor)
    return float(largest.norm() * inverse.norm())


class _Estimator:
    """The estimate of C by the given settings, for one unedited model."""

    def __init__(self, moment: SecondMoment, lm: LanguageModel) -> None:
        self._lm, self._seed = lm, moment.seed
        self._source: TextSource | None = None if moment.source is None else find_source(moment.source)
        self._width, _ = lm.linear_shape(lm.arch.mlp_out_weight(0))  # d_ff
        self._length = min(CHUNK, lm.max_tokens or CHUNK)
        self._n_tokens = moment.n_tokens or max(MIN_TOKENS, TOKENS_PER_DIMENSION * self._width)
        self._min_tokens = -(-self._width // self._length) * self._length
        self._reason = f"since a mean over fewer tokens than the {self._width} dimensions of a key is singular"
        if self._n_tokens < self._min_tokens:
            raise EditError(f"n_tokens must be at least {self._min_tokens}, {self._reason}; got {self._n_tokens}.")

    def path(self, layer: int) -> Path:
        """Return the cache file, whose name is a hash of everything that C depends on."""
        name = _short_hash(
            digest_up_to_keys(self._lm, layer),
            self._text_digest,
            (_VERSION, TOKENS_PER_PASS, self._n_tokens, self._length, layer, self._lm.arch.name),
        )
        return cache_dir() / "second-moments" / f"{name}.safetensors"

    def load_or_compute(self, layers: list[int]) -> dict[int, Tensor]:
        paths = {layer: self.path(layer) for layer in layers}
        found = _load_moments(paths)
        if len(found) < len(layers):
            with _hold_lock(paths[layers[0]].with_suffix(".lock")):
                found |= _load_moments({layer: path for layer, path in paths.items() if layer not in found})
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
                where = f"keys of layer {layer} of {self._lm.name} are not finite in {_dtype_name(self._lm)}"
                raise EditError(f"{where}; load the model in a wider dtype.")
            C = found[layer] = (total + total.T).div_(2 * chunks.numel())  # blocked products may miss symmetry by a bit
            write_checked(path, C, self._record(layer, chunks.numel(), estimate_condition_number(C)))
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
            return sample_own_text(self._lm, n_chunks=n_chunks, length=self._length, seed=self._seed, folder=folder)
        chunks = cut_into_chunks(self._lm.tokenizer, self._source, n_tokens=self._n_tokens, length=self._length)
        given = f"{self._source.name} holds {chunks.numel()} tokens in whole chunks of {self._length}"
        if chunks.numel() < self._min_tokens:
            raise EditError(f"{given}; at least {self._min_tokens} are needed, {self._reason}.")
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
            "dtype": _dtype_name(self._lm),
            "condition_number": number if math.isfinite(number) else None,  # JSON has no infinity
        }
        _log_condition(record)
        return record


def _dtype_name(lm: LanguageModel) -> str:
    return str(lm.model.dtype).removeprefix("torch.")


def _log_condition(record: dict[str, Any]) -> None:
    subject = f"second moment of layer {record['layer']} of {record['model']}, {record['n_tokens']} tokens"
    if record["condition_number"] is None:
        log.warning("%s: singular, so nothing can be solved with it.", subject)
    else:
        log.info("%s: condition number about %.2e", subject, record["condition_number"])


def _load_moments(paths: dict[int, Path]) -> dict[int, Tensor]:
    found = {}
    for layer, path in paths.items():
        if (content := read_checked(path)) is not None:
            found[layer], record = content
            _log_condition(record)
    return found


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Let one process at a time compute; the others wait for its result."""
    lock = FileLock(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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
