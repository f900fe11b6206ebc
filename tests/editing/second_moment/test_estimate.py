"""C = E[k kᵀ] of the unedited model against the naive sum; budgets, errors, and solving with it."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from tests.editing.second_moment.moments import (
    LENGTH,
    assert_moment,
    count_passes,
    forbid_passes,
    naive,
    same_as,
    write_text,
)
from tests.helpers import error_of
from tests.tiny_models import D_FF, build_tiny_lm
from workbench.editing.second_moment import own_text
from workbench.editing.second_moment import sums as key_sums
from workbench.editing.second_moment.estimate import SecondMoment, estimate_condition_number, solve
from workbench.errors import EditError

_BESIDE_THE_REPOSITORY = Path(__file__).parents[3] / ".." / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache_always(own_cache):
    """Give each test here an empty cache."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Sample two texts per batch where the model writes its own."""
    monkeypatch.setattr(own_text, "BLOCK", 2)


@pytest.fixture
def text(tmp_path):
    """Give a text file of a little more than four chunks in any of the tokenizers."""
    return write_text(tmp_path / "text.txt", 60)


@pytest.fixture
def long_text(tmp_path):
    """Give a text file of more than eight chunks."""
    return write_text(tmp_path / "long.txt", 150)


# what it is


def test_it_is_the_naive_mean_over_the_chunks_of_the_text(every_tiny_lm, text):
    every_tiny_lm.memo.clear()
    moments = SecondMoment(source=str(text), n_tokens=700).compute(every_tiny_lm, [0, 2])  # two whole chunks
    every_tiny_lm.memo.clear()
    for layer, C in moments.items():
        assert_moment(C, naive(every_tiny_lm, layer, text, 700))
    assert list(moments) == [0, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_products_are_in_float64_whatever_the_weights_are_in(text, dtype):
    lm = build_tiny_lm("llama", dtype=dtype)
    C = SecondMoment(source=str(text), n_tokens=512).compute(lm, [1])[1]
    # batches of bfloat16 round otherwise than single chunks
    assert_moment(C, naive(lm, 1, text, 512), atol=1e-14 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize(("model_type", "name"), [("gpt2", "n_positions"), ("llama", "max_position_embeddings")])
def test_chunks_are_no_longer_than_the_model_takes(text, model_type, name):
    lm = build_tiny_lm(model_type, **{name: 40})
    assert_moment(
        SecondMoment(source=str(text), n_tokens=512).compute(lm, [1])[1], naive(lm, 1, text, n_tokens=512, length=40)
    )


def test_it_is_exactly_symmetric_and_positive_semidefinite(tiny_lm, text):
    C = SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [1])[1]
    assert torch.equal(C, C.T)
    assert torch.linalg.eigvalsh(C).min() > -1e-12 * C.norm()


def test_a_long_text_is_the_naive_mean_over_several_passes(tiny_lm, long_text, monkeypatch):
    monkeypatch.setattr(key_sums, "TOKENS_PER_PASS", 3 * LENGTH)
    passes = count_passes(tiny_lm)
    C = SecondMoment(source=str(long_text), n_tokens=8 * LENGTH).compute(tiny_lm, [1])[1]
    assert passes == [3, 3, 2]
    assert_moment(C, naive(tiny_lm, 1, long_text, 8 * LENGTH))


def test_one_pass_collects_all_layers_and_stops_at_the_last_of_them(tiny_lm, text):
    passes, reached = count_passes(tiny_lm), []
    for layer, block in enumerate(tiny_lm.blocks):
        block.register_forward_pre_hook(lambda module, args, layer=layer: reached.append(layer))
    moments = SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [2, 0])
    assert passes == [2]
    assert reached == [0, 1, 2]
    alone = SecondMoment(source=str(text), n_tokens=513).compute(tiny_lm, [0])[0]  # not in the cache
    assert torch.equal(moments[0], alone)


def test_it_is_that_of_the_unedited_model_while_an_update_is_applied(tiny_lm, text):
    source = SecondMoment(source=str(text), n_tokens=512)
    expected = naive(tiny_lm, 2, text, 512)
    name = tiny_lm.arch.mlp_out_weight(0)
    update = wb.WeightUpdate({name: torch.ones_like(tiny_lm.weight(name))})
    with update.applied(tiny_lm):
        edited = tiny_lm.weight(name).clone()
        (key,) = source.compute(tiny_lm, [2])
        assert_moment(source.compute(tiny_lm, [2])[key], expected)
        assert torch.equal(tiny_lm.model.get_parameter(name), edited)
        path = source.files(tiny_lm, [2])[2].path
    assert source.files(same_as(tiny_lm), [2])[2].path == path


def test_random_state_gradients_and_hooks_are_left_alone(tiny_lm, text):
    before = torch.random.get_rng_state()
    SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [1])
    SecondMoment(n_tokens=512).compute(tiny_lm, [1])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(not module._forward_pre_hooks for module in tiny_lm.model.modules())
    assert all(p.grad is None and not p.requires_grad for p in tiny_lm.model.parameters())


# the budget


@pytest.mark.parametrize(("width", "budget"), [(D_FF, 16_384), (1700, 17_000)])
def test_the_default_budget_is_ten_tokens_a_dimension_and_at_least_16384(tmp_path, caplog, width, budget):
    path = write_text(tmp_path / "text.txt", 150)
    lm = build_tiny_lm("llama", intermediate_size=width)
    with caplog.at_level(logging.WARNING, logger="workbench.editing.second_moment.estimate"):
        SecondMoment(source=str(path)).compute(lm, [0])
    n_ids = len(lm.tokenizer(path.read_text(), add_special_tokens=False)["input_ids"])
    used = n_ids // (LENGTH - 1) * LENGTH
    assert caplog.messages[0] == (
        f"{path} holds {used} tokens in whole chunks of 256, not the {budget} asked for; all are used."
    )
    record = SecondMoment(source=str(path)).files(lm, [0])[0].record
    assert (record["n_tokens"], record["n_tokens_asked"]) == (used, budget)


@pytest.mark.parametrize("n_tokens", [0, 255])
def test_a_budget_below_one_chunk_is_refused(n_tokens):
    assert error_of(EditError, SecondMoment, n_tokens=n_tokens) == (
        f"n_tokens must be a whole number of at least 256 or None; got {n_tokens}."
    )


def test_a_budget_that_can_only_give_a_singular_moment_is_refused_before_any_pass(text):
    lm = build_tiny_lm("gpt2", n_inner=300)
    forbid_passes(lm)
    for moment in (SecondMoment(n_tokens=511), SecondMoment(source=str(text), n_tokens=511)):
        assert error_of(EditError, moment.compute, lm, [1]) == (
            "n_tokens must be at least 512, since a mean over fewer tokens than the 300 dimensions of a key is "
            "singular; got 511."
        )


def test_a_text_that_can_only_give_a_singular_moment_is_refused(tmp_path):
    lm, path = build_tiny_lm("llama", intermediate_size=300), write_text(tmp_path / "short.txt", 15)
    n_ids = len(lm.tokenizer(path.read_text(), add_special_tokens=False)["input_ids"])
    assert 256 <= n_ids < 510
    assert error_of(EditError, SecondMoment(source=str(path)).compute, lm, [1]) == (
        f"{path} holds 256 tokens in whole chunks of 256; at least 512 are needed, since a mean over fewer tokens "
        "than the 300 dimensions of a key is singular."
    )


# what is refused


def test_a_layer_out_of_range_is_refused(tiny_lm, text):
    assert error_of(EditError, SecondMoment(source=str(text)).compute, tiny_lm, [4]) == (
        f"layer 4 is out of range: {tiny_lm.name} has layers 0 to 3."
    )


def test_a_source_that_does_not_exist_is_refused_before_any_pass(tiny_lm):
    forbid_passes(tiny_lm)
    assert error_of(EditError, SecondMoment(source="nowhere.txt").compute, tiny_lm, [1]).startswith(
        "no text source 'nowhere.txt': it is neither a file nor a folder, nor one of wikitext, wikipedia, "
    )


def test_a_file_that_is_not_utf8_is_refused(tiny_lm, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Süden ".encode("latin-1") * 1000)
    sentence = error_of(EditError, SecondMoment(source=str(path)).compute, tiny_lm, [1])
    assert sentence.startswith(f"{path} cannot be read ('utf-8' codec can't decode byte 0xfc in position 1")
    assert sentence.endswith("); give UTF-8 text or a Parquet file.")


# solving with it


def a_moment(n_keys, d=20):
    keys = torch.randn(n_keys, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return keys.T @ keys / n_keys


def test_solve_is_numpys_in_float64(caplog):
    C, key = a_moment(100), torch.randn(20, generator=torch.Generator().manual_seed(1))
    with caplog.at_level(logging.INFO, logger="workbench.editing.second_moment.estimate"):
        solved = solve(C, key)
    np.testing.assert_allclose(solved.numpy(), np.linalg.solve(C.numpy(), key.double().numpy()), rtol=1e-10)
    assert len(caplog.messages) == 1
    number = float(caplog.messages[0].removeprefix("second moment: condition number about "))
    assert 0.8 < number / np.linalg.cond(C.numpy()) < 1.01


@pytest.mark.parametrize("n_keys", [5, 15])
def test_a_singular_moment_is_refused(n_keys):
    assert error_of(EditError, solve, a_moment(n_keys), torch.ones(20)) == (
        "the second moment of 20 dimensions is singular; estimate it from more tokens."
    )


@pytest.mark.parametrize("spread", [0, 3, 8])
def test_the_condition_number_is_numpys_within_a_fifth(spread):
    Q = torch.linalg.qr(a_moment(300, d=200)).Q
    values = torch.logspace(0, spread, 200, dtype=torch.float64)
    C = (Q * values) @ Q.T
    C = (C + C.T) / 2
    assert estimate_condition_number(C) == pytest.approx(np.linalg.cond(C.numpy()), rel=0.2)
    assert estimate_condition_number(torch.diag(torch.tensor([1.0, 0.0, 2.0]))) == float("inf")


# the embedded model on real text


@pytest.mark.slow
def test_on_real_text_the_embedded_models_moment_can_be_solved_with(smollm2):
    folder = Path(os.environ.get("WORKBENCH_TEST_DATA") or _BESIDE_THE_REPOSITORY).resolve()
    text = folder / "wikitext2" / "wiki.valid.tokens"
    if not text.is_file():
        pytest.skip("no slices of the real data sets: set WORKBENCH_TEST_DATA to their folder.")
    C = SecondMoment(source=str(text), n_tokens=3072).compute(smollm2, [5])[5]
    ids = smollm2.tokenizer(text.read_text(encoding="utf-8")[:40_000])["input_ids"]
    seen = []
    handle = smollm2.mlp_out(5).register_forward_pre_hook(lambda module, args: seen.append(args[0][0].double()))
    with torch.no_grad():
        for i in range(12):
            smollm2.model(torch.tensor([ids[i * LENGTH : (i + 1) * LENGTH]]), logits_to_keep=1)
    handle.remove()
    keys = torch.cat(seen)
    assert_moment(C, keys.T @ keys / len(keys))
    key = keys[100]
    assert float((C @ solve(C, key) - key).norm() / key.norm()) < 1e-8
