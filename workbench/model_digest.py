"""What a model's inner activations depend on, as one hash: configuration, tokenizer, and weights up to a block."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from workbench.lm import LanguageModel

_MEMO, _SETTINGS = "digests", ""  # where they are kept, and under which name that of configuration and tokenizer
_THREADS = 8  # hashing lets go of Python's lock
# entries of a configuration that say where it came from, not what it computes
_ORIGIN = ("_name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype")


def digest_up_to_keys(lm: LanguageModel, layer: int) -> bytes:
    """Hash of all that the keys of a layer depend on, given a text.

    Parameters
    ----------
    lm : LanguageModel
        Unedited: the hashes of its weights are kept in its memo.
    layer : int
        The block whose MLP keys are meant; its output projection and all later blocks are left out.

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
    """Hash of all that a model's text depends on; `lm` is unedited, as in `digest_up_to_keys`."""
    return _digest(lm, dict(lm.model.named_parameters()))


def _digest(lm: LanguageModel, weights: dict[str, nn.Parameter]) -> bytes:
    known = lm.memo.setdefault(_MEMO, {})
    new = [name for name in weights if name not in known]
    with ThreadPoolExecutor(_THREADS) as pool:
        known.update(zip(new, pool.map(_weight_digest, (weights[name] for name in new)), strict=True))
    if _SETTINGS not in known:
        known[_SETTINGS] = _settings_digest(lm)
    digest = hashlib.sha256(known[_SETTINGS])
    for name in weights:
        digest.update(name.encode() + known[name])
    return digest.digest()


def _weight_digest(weight: nn.Parameter) -> bytes:
    values = weight.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.digest()


def _settings_digest(lm: LanguageModel) -> bytes:
    config = lm.model.config.to_dict()
    tokenizer = json.loads(lm.tokenizer.backend_tokenizer.to_str())
    for name in _ORIGIN:
        config.pop(name, None)
    for name in ("padding", "truncation"):  # left behind by the last call
        tokenizer.pop(name, None)
    return hashlib.sha256(json.dumps([config, tokenizer], sort_keys=True, default=str).encode()).digest()
