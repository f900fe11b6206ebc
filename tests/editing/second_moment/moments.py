"""Helpers of the tests of the second moment: a text, the naive sum, and ways to watch a model."""

import torch

from tests.tiny_models import D_FF, SENTENCES, build_tiny_lm

LENGTH = 256


def write_text(path, n_sentences):
    generator = torch.Generator().manual_seed(0)
    order = torch.randint(len(SENTENCES), (n_sentences,), generator=generator).tolist()
    path.write_text(" ".join(f"{i} {SENTENCES[i]}" for i in order), encoding="utf-8")
    return path


def naive(lm, layer, path, n_tokens, length=LENGTH):
    """Return E[k kᵀ] by a hook, one chunk and one token at a time, in float64."""
    ids = lm.tokenizer(path.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    opening = [lm.tokenizer.bos_token_id] if lm.tokenizer("a")["input_ids"][0] == lm.tokenizer.bos_token_id else []
    body = length - len(opening)
    total, count = torch.zeros(D_FF, D_FF, dtype=torch.float64), 0
    for i in range(n_tokens // length):
        chunk, seen = opening + ids[i * body : (i + 1) * body], []
        assert len(chunk) == length
        handle = lm.mlp_out(layer).register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            lm.model(torch.tensor([chunk]))
        handle.remove()
        for key in seen[0].reshape(-1, D_FF).double():
            total += torch.outer(key, key)
            count += 1
    return total / count


def assert_moment(actual, expected, atol=1e-7):
    assert actual.dtype == torch.float64
    assert actual.device.type == "cpu"
    torch.testing.assert_close(actual / expected.norm(), expected / expected.norm(), rtol=0, atol=atol)


def same_as(lm):
    """Build another object of the same model."""
    return build_tiny_lm(lm.model.config.model_type)


def forbid_passes(lm):
    """Make any forward pass of this model fail."""

    def refuse(module, args, kwargs):
        raise AssertionError("the model ran")

    lm.model.register_forward_pre_hook(refuse, with_kwargs=True)


def count_passes(lm):
    passes = []
    lm.model.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    return passes


def files_of(own_cache, suffix=".safetensors"):
    return sorted(path.name for path in (own_cache / "second-moments").glob(f"*{suffix}"))


def change(lm, name):
    """Change one entry of a weight, as in another checkpoint, and the name of the model."""
    lm.model.get_parameter(name).data.reshape(-1)[3] += 1.0
    lm.name = "other"
