"""What a subject tail leaves out changes nothing: it agrees with the model's own whole forward pass, text by text."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from tests.helpers import assert_same_bits, error_of, hooks_and_forwards, weights_of
from tests.tiny_models import D_FF, D_MODEL, FLOAT32_INSIDE, MODEL_TYPES, build_tiny_lm
from workbench.editing.passes.hooks import hooked
from workbench.editing.passes.subject_tail import HiddenTail, TailRow, ValueTail
from workbench.encoding import Encoded
from workbench.errors import EditError

# (tokens, index of the subject's last, indices read): prefixes from none to longer than the sliding windows
MIXED = [(5, 1, (1, 3, 4)), (23, 14, (14, 22)), (1, 0, (0,)), (12, 2, (2, 11)), (16, 9, (10, 11, 12))]
AT_THE_START = [(4, 0, (0, 3)), (11, 0, (10,))]
ALIGNED = [(9, 3, (8,)), (9, 3, (3, 4))]
SHAPES = {"mixed": MIXED, "at the start": AT_THE_START, "aligned": ALIGNED}


@cache
def double_lm(model_type):
    # transformers' plain attention gives NaN for what is padded on the left in float64 (the mask overflows in its
    # float32 softmax), and Gemma 2 has no other
    return build_tiny_lm(model_type, dtype=torch.float32 if model_type == "gemma2" else torch.float64)


def tolerance(model_type):
    return {"rtol": 1e-5, "atol": 1e-5} if model_type in FLOAT32_INSIDE else {"rtol": 1e-9, "atol": 1e-9}


def rows_of(lm, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vocabulary = len(lm.tokenizer)
    return [
        TailRow(Encoded(tuple(torch.randint(4, vocabulary, (n,), generator=generator).tolist()), n, last), read)
        for n, last, read in SHAPES[shape]
    ]


def an_offset(dtype=torch.float64):
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1), dtype=dtype)


def logits_of(tail, offset):
    """The tail's logits with one offset (d_model,) for all texts."""
    return tail.logits(offset.expand(len(tail.start), -1))


def whole_forward_of_blocks(lm, rows, layer, offsets):
    """Logits and hidden states by one unpadded pass for each text, with an offset on the output of a whole block."""
    logits, states = [], []
    for row, offset in zip(rows, offsets, strict=True):
        last = row.encoded.subject_last

        def add(module, args, output, last=last, offset=offset):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            states.append(hidden[0, last].clone())
            hidden[0, last] += offset
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = lm.blocks[layer].register_forward_hook(add)
        logits.append(lm.model(torch.tensor([row.encoded.ids])).logits[0, list(row.read)])
        handle.remove()
    return torch.cat(logits), torch.stack(states)


def whole_forward(lm, rows, layer, offset):
    """Logits, keys and values by one unpadded pass through everything for each text."""
    logits, keys, values = [], [], []
    for row in rows:
        n, last = len(row.encoded.ids), row.encoded.subject_last

        def add(module, args, output, n=n, last=last):
            keys.append(args[0].reshape(n, D_FF)[last].detach())
            values.append(output.reshape(n, D_MODEL)[last].detach())
            here = torch.zeros(n, 1, dtype=output.dtype)
            here[last] = 1
            return (output.reshape(n, D_MODEL) + here * offset).reshape(output.shape)

        handle = lm.mlp_out(layer).register_forward_hook(add)
        logits.append(lm.model(torch.tensor([row.encoded.ids])).logits[0, list(row.read)])
        handle.remove()
    return torch.cat(logits), torch.stack(keys), torch.stack(values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_logits_keys_and_values_are_those_of_the_whole_forward_pass(model_type, layer, shape):
    lm = double_lm(model_type)
    rows, offset = rows_of(lm, shape), an_offset(lm.model.dtype)
    with torch.no_grad():
        logits, keys, values = whole_forward(lm, rows, layer, offset)
        tail = ValueTail.compute(lm, rows, layer)
        torch.testing.assert_close(logits_of(tail, offset), logits, **tolerance(model_type))
    torch.testing.assert_close(tail.keys, keys, **tolerance(model_type))
    torch.testing.assert_close(tail.start, values, **tolerance(model_type))


@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_hidden_states_and_each_texts_own_offset_are_those_of_the_whole_forward_pass(model_type, layer):
    lm = double_lm(model_type)
    rows = rows_of(lm, "mixed")
    offsets = torch.randn(len(rows), D_MODEL, generator=torch.Generator().manual_seed(3)).to(lm.model.dtype)
    with torch.no_grad():
        logits, states = whole_forward_of_blocks(lm, rows, layer, offsets)
        tail = HiddenTail.compute(lm, rows, layer)
        torch.testing.assert_close(tail.logits(offsets), logits, **tolerance(model_type))
    torch.testing.assert_close(tail.start, states, **tolerance(model_type))


@pytest.mark.parametrize("kind", [ValueTail, HiddenTail])
def test_some_of_the_texts_give_the_logits_they_give_among_all(every_tiny_lm, kind):
    rows = rows_of(every_tiny_lm, "mixed")
    tail, index = kind.compute(every_tiny_lm, rows, 1), torch.tensor([3, 1])
    offsets = torch.randn(len(rows), D_MODEL, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        whole = tail.logits(offsets).split([len(row.read) for row in rows])
        some = tail.select(index).logits(offsets[index])
    torch.testing.assert_close(some, torch.cat([whole[3], whole[1]]), rtol=1e-5, atol=1e-5)
    assert torch.equal(tail.select(index).start, tail.start[index])


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_gradient_is_that_of_the_whole_forward_pass(model_type, layer):
    lm = double_lm(model_type)
    rows = rows_of(lm, "mixed")
    gradients = []
    tail = ValueTail.compute(lm, rows, layer)
    for compute in (lambda d: logits_of(tail, d), lambda d: whole_forward(lm, rows, layer, d)[0]):
        offset = an_offset(lm.model.dtype).requires_grad_()
        logits = compute(offset)
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=logits.dtype)
        (logits.log_softmax(dim=-1) * weights).sum().backward()
        gradients.append(offset.grad)
    scale = gradients[1].norm()
    torch.testing.assert_close(gradients[0] / scale, gradients[1] / scale, **tolerance(model_type))


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "opt", "phi"])
def test_the_gradient_is_that_of_finite_differences(model_type):
    lm = double_lm(model_type)
    tail = ValueTail.compute(lm, rows_of(lm, "mixed"), 1)
    inputs = (an_offset().requires_grad_(),)
    assert torch.autograd.gradcheck(lambda d: logits_of(tail, d)[:, :7], inputs, eps=1e-6, atol=1e-6)


def test_the_offset_matters(every_tiny_lm):
    tail = ValueTail.compute(every_tiny_lm, rows_of(every_tiny_lm, "mixed"), 1)
    with torch.no_grad():
        change = logits_of(tail, an_offset(torch.float32)) - logits_of(tail, torch.zeros(D_MODEL))
    assert (change.abs().amax(dim=1) > 0.01).all()


def test_asking_twice_gives_the_same_bits(every_tiny_lm):
    tail = ValueTail.compute(every_tiny_lm, rows_of(every_tiny_lm, "mixed"), 1)
    with torch.no_grad():
        first = logits_of(tail, an_offset(torch.float32))
        logits_of(tail, torch.ones(D_MODEL))
        assert torch.equal(logits_of(tail, an_offset(torch.float32)), first)


def test_padding_of_any_id_gives_the_same_logits(every_tiny_lm):
    logits = []
    for pad_id in (None, 7):
        lm = replace(every_tiny_lm, tokenizer=SimpleNamespace(is_fast=True, pad_token_id=pad_id))
        with torch.no_grad():
            tail = ValueTail.compute(lm, rows_of(every_tiny_lm, "mixed"), 2)
            logits.append(logits_of(tail, an_offset(torch.float32)))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5)


def test_the_model_is_unchanged(every_tiny_lm):
    lm = every_tiny_lm
    before, weights = hooks_and_forwards(lm), weights_of(lm)
    logits = lm.model(torch.tensor([[5, 6, 7]])).logits
    tail = ValueTail.compute(lm, rows_of(lm, "mixed"), 2)
    logits_of(tail, an_offset(torch.float32).requires_grad_()).sum().backward()
    assert hooks_and_forwards(lm) == before
    assert torch.equal(lm.model(torch.tensor([[5, 6, 7]])).logits, logits)
    assert_same_bits(lm, weights)
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_the_model_is_unchanged_when_a_pass_is_interrupted(every_tiny_lm):
    lm = every_tiny_lm
    before = hooks_and_forwards(lm)
    tail = ValueTail.compute(lm, rows_of(lm, "mixed"), 2)

    def break_off(module, args):
        raise KeyboardInterrupt

    with hooked(lm.blocks[3], break_off, before=True):
        with pytest.raises(KeyboardInterrupt):
            logits_of(tail, an_offset(torch.float32))
        with pytest.raises(KeyboardInterrupt):
            ValueTail.compute(lm, rows_of(lm, "mixed"), 3)
    assert hooks_and_forwards(lm) == before


def test_a_forward_that_was_put_on_a_block_is_put_back(tiny_lm):
    def own(*args, **kwargs):
        return type(block).forward(block, *args, **kwargs)

    block = tiny_lm.blocks[0]  # accelerate puts its device hooks there
    block.forward = own
    with torch.no_grad():
        logits_of(ValueTail.compute(tiny_lm, rows_of(tiny_lm, "mixed"), 2), torch.zeros(D_MODEL))
    assert block.forward is own


def test_only_the_blocks_from_the_edited_one_up_run(tiny_lm):
    tail, ran = ValueTail.compute(tiny_lm, rows_of(tiny_lm, "mixed"), 2), []
    for i, block in enumerate(tiny_lm.blocks):
        block.mlp.register_forward_hook(lambda *_, i=i: ran.append(i))
    with torch.no_grad():
        logits_of(tail, torch.zeros(D_MODEL))
    assert ran == [2, 3]


def test_a_layer_out_of_range_is_refused(tiny_lm):
    sentence = error_of(EditError, ValueTail.compute, tiny_lm, rows_of(tiny_lm, "mixed"), 4)
    assert sentence == f"layer 4 is out of range: {tiny_lm.name} has layers 0 to 3."
