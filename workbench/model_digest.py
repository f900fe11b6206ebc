"""Hashes of what a model's inner activations depend on: configuration, tokenizer, and weights up to a block."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from workbench.lm import LanguageModel
from workbench.quantized import plain
from workbench.storage.cache import compute_missing

_SECTION, _SETTINGS = "digests", ""  # section of the memo, and key there for configuration and tokenizer
_THREADS = 8  # hashing releases Python's global lock
# entries of a configuration that say where it came from, not what it computes
_ORIGIN = ("_name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype")


def digest_up_to_keys(lm: LanguageModel, layer: int) -> bytes:
    """Return a hash of everything that the keys of a layer depend on, for a given text.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model; the hashes of its weights are kept in its memo.
    layer : int
        The block of the keys; its MLP's output projection and all later blocks are left out.

    Returns
    -------
    bytes

    Raises
    ------
    EditError
        If the layer is out of range.
    """
    lm.check_layer(layer)
    later = (f"{lm.arch.mlp_out_module(layer)}.", *(f"{lm.arch.block(i)}." for i in range(layer + 1, lm.n_layers)))
    return _digest(lm, {name: weight for name, weight in lm.model.named_parameters() if not name.startswith(later)})


def digest_of_model(lm: LanguageModel) -> bytes:
    """Return a hash of everything that a model's output depends on; `lm` is unedited, as in `digest_up_to_keys`."""
    return _digest(lm, dict(lm.model.named_parameters()))


def _digest(lm: LanguageModel, weights: dict[str, nn.Parameter]) -> bytes:
    def digest_weights(names: list[str]) -> list[bytes]:
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda name: _weight_digest(weights[name]), names))

    known = lm.memo.section(_SECTION)
    [settings] = compute_missing(known, [_SETTINGS], lambda _: [_settings_digest(lm)])
    digest = hashlib.sha256(settings)
    for name, weight_digest in zip(weights, compute_missing(known, list(weights), digest_weights), strict=True):
        digest.update(name.encode() + weight_digest)
    return digest.digest()


def _weight_digest(weight: nn.Parameter) -> bytes:
    values = plain(weight).cpu().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _settings_digest(lm: LanguageModel) -> bytes:
    config = lm.model.config.to_dict()
    tokenizer = json.loads(lm.tokenizer.backend_tokenizer.to_str())
    for name in _ORIGIN:
        config.pop(name, None)
    for name in ("padding", "truncation"):  # state left by the last call of the tokenizer
        tokenizer.pop(name, None)
    return hashlib.sha256(json.dumps([config, tokenizer], sort_keys=True, default=str).encode()).digest()
