"""The cache of second moments: nothing stale is found, and nothing is computed twice."""

import json
import logging
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import workbench as wb
from tests.editing.second_moment.moments import (
    LENGTH,
    assert_moment,
    change,
    files_of,
    forbid_passes,
    naive,
    same_as,
    write_text,
)
from tests.helpers import error_of
from tests.tiny_models import D_FF, build_tiny_lm, byte_level_tokenizer, tiny_config
from workbench import model_digest
from workbench.editing.second_moment import own_text
from workbench.editing.second_moment.estimate import SecondMoment, estimate_condition_number
from workbench.errors import EditError
from workbench.lm import LanguageModel


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


# the cache


def test_a_second_call_reads_the_file_and_gives_the_same_bits(tiny_lm, text):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.compute(tiny_lm, [1, 2])
    again = same_as(tiny_lm)
    forbid_passes(again)
    second = source.compute(again, [1, 2])
    assert all(torch.equal(second[layer], first[layer]) for layer in (1, 2))


def test_only_layers_that_are_missing_are_computed(tiny_lm, text, own_cache):
    source = SecondMoment(source=str(text), n_tokens=512)
    source.compute(tiny_lm, [2])
    again, reached = same_as(tiny_lm), []
    again.blocks[2].register_forward_pre_hook(lambda module, args: reached.append(2))
    source.compute(again, [1, 2])
    assert not reached
    assert len(files_of(own_cache)) == 2


def test_the_same_model_object_does_not_even_read_the_file(tiny_lm, text):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.compute(tiny_lm, [1])[1]
    forbid_passes(tiny_lm)
    text.unlink()
    assert source.compute(tiny_lm, [1])[1] is first


@pytest.mark.parametrize("damage", [lambda content: content[:1000], lambda c: c[:-9] + bytes([c[-9] ^ 4]) + c[-8:]])
def test_a_damaged_cache_file_is_computed_again_and_that_is_logged(tiny_lm, text, own_cache, caplog, damage):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.compute(tiny_lm, [1])[1]
    path = own_cache / "second-moments" / files_of(own_cache)[0]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(source.compute(same_as(tiny_lm), [1])[1], first)
    assert caplog.messages[0].startswith(f"the cached file {path} is damaged (")
    assert caplog.messages[0].endswith("); it is rebuilt.")
    assert path.read_bytes() == whole


EMBEDDING = {"Llama": "model.embed_tokens.weight", "GPT-2": "transformer.wte.weight"}


@pytest.mark.parametrize(
    "of_arch",
    [
        lambda arch: EMBEDDING[arch.name],
        lambda arch: arch.mlp_out_weight(0),
        lambda arch: f"{arch.block(1)}.{arch.mlp_in[0]}.weight",
    ],
    ids=["embedding", "a block below", "the layer's own input projection"],
)
def test_a_weight_that_the_keys_depend_on_gives_another_file(tiny_lm, text, own_cache, of_arch):
    source = SecondMoment(source=str(text), n_tokens=512)
    source.compute(tiny_lm, [1])
    other = same_as(tiny_lm)
    change(other, of_arch(other.arch))
    assert_moment(source.compute(other, [1])[1], naive(other, 1, text, 512))
    assert len(files_of(own_cache)) == 2


@pytest.mark.parametrize(
    "of_arch", [lambda arch: arch.mlp_out_weight(1), lambda arch: arch.mlp_out_weight(2)], ids=["the edited", "above"]
)
def test_a_weight_that_the_keys_do_not_depend_on_gives_the_same_file(tiny_lm, text, own_cache, of_arch):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.compute(tiny_lm, [1])[1]
    other = same_as(tiny_lm)
    change(other, of_arch(other.arch))
    forbid_passes(other)
    assert torch.equal(source.compute(other, [1])[1], first)
    assert len(files_of(own_cache)) == 1


def test_another_text_budget_layer_or_dtype_gives_another_file(tiny_lm, text, own_cache):
    SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [1])
    SecondMoment(source=str(text), n_tokens=256).compute(tiny_lm, [1])
    SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [2])
    other = text.with_name("other.txt")
    other.write_text(text.read_text().replace("Rome", "Bern"))
    SecondMoment(source=str(other), n_tokens=512).compute(tiny_lm, [1])
    double = build_tiny_lm(tiny_lm.model.config.model_type, dtype=torch.float64)
    SecondMoment(source=str(text), n_tokens=512).compute(double, [1])
    assert len(files_of(own_cache)) == 5


def test_another_configuration_or_tokenizer_of_the_same_weights_gives_another_file(text, own_cache):
    source, lm = SecondMoment(source=str(text), n_tokens=512), build_tiny_lm("llama")
    source.compute(lm, [1])
    rotated = build_tiny_lm("llama", rope_parameters={"rope_type": "default", "rope_theta": 100.0})
    assert_moment(source.compute(rotated, [1])[1], naive(rotated, 1, text, 512))
    assert tiny_config("llama").vocab_size >= len(byte_level_tokenizer())
    respelled = LanguageModel("respelled", build_tiny_lm("llama").model, byte_level_tokenizer(), lm.arch)
    assert_moment(source.compute(respelled, [1])[1], naive(respelled, 1, text, 512))
    assert len(files_of(own_cache)) == 3


def test_a_call_of_the_tokenizer_with_padding_leaves_the_file_the_same(tiny_lm, text):
    source, other = SecondMoment(source=str(text), n_tokens=512), same_as(tiny_lm)
    path = source.compute(tiny_lm, [1]) and source.files(tiny_lm, [1])[1].path
    other.tokenizer.pad_token = other.tokenizer.eos_token
    other.tokenizer(["Rome", "The city of Rome"], padding=True, truncation=True, max_length=3)
    assert source.files(other, [1])[1].path == path


def test_the_same_model_from_another_folder_gives_the_same_file(tiny_lm, text, tmp_path):
    source, paths = SecondMoment(source=str(text), n_tokens=512), set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        tiny_lm.model.save_pretrained(folder)
        tiny_lm.tokenizer.save_pretrained(folder)
        lm = wb.load(str(folder), device="cpu")
        source.compute(lm, [1])
        paths.add(source.files(lm, [1])[1].path)
    assert len(paths) == 1


def test_the_same_text_at_another_place_gives_the_same_file(tiny_lm, text, own_cache):
    first = SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [1])[1]
    text.rename(text.with_name("moved.txt"))
    again = same_as(tiny_lm)
    forbid_passes(again)
    assert torch.equal(SecondMoment(source=text.with_name("moved.txt"), n_tokens=512).compute(again, [1])[1], first)


def test_the_seed_determines_the_models_own_text_and_is_without_effect_on_a_file(tiny_lm, text, own_cache):
    first = SecondMoment(n_tokens=512).compute(tiny_lm, [1])[1]
    other_seed = SecondMoment(n_tokens=512, seed=1).compute(tiny_lm, [1])[1]
    assert not torch.allclose(other_seed, first)
    for path in own_cache.rglob("*.safetensors"):
        path.unlink()
    assert torch.equal(SecondMoment(n_tokens=512).compute(same_as(tiny_lm), [1])[1], first)
    SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [1])
    forbid_passes(tiny_lm)
    SecondMoment(source=str(text), n_tokens=512, seed=1).compute(tiny_lm, [1])


def test_of_the_models_own_text_it_is_the_naive_mean(tiny_lm, own_cache, tmp_path):
    C = SecondMoment(n_tokens=512).compute(tiny_lm, [1])[1]
    (folder,) = (own_cache / "own-texts").iterdir()
    ids = own_text.sample_own_text(tiny_lm, n_chunks=2, length=LENGTH, seed=0, folder=folder)
    seen = []
    handle = tiny_lm.mlp_out(1).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        for row in ids:
            tiny_lm.model(row[None])
    handle.remove()
    keys = torch.cat([keys.reshape(-1, D_FF) for keys in seen]).double().numpy()
    assert_moment(C, torch.from_numpy(np.einsum("ni,nj->ij", keys, keys) / len(keys)))


def test_without_a_source_any_weight_gives_another_file(tiny_lm, own_cache):
    SecondMoment(n_tokens=256).compute(tiny_lm, [1])
    other = same_as(tiny_lm)
    change(other, other.arch.mlp_out_weight(3))
    SecondMoment(n_tokens=256).compute(other, [1])
    assert len(files_of(own_cache)) == 2


def test_each_weight_is_hashed_once_for_all_layers_and_calls(tiny_lm, text, monkeypatch):
    hashed, weight_digest = [], model_digest._weight_digest
    monkeypatch.setattr(
        model_digest, "_weight_digest", lambda weight: hashed.append(id(weight)) or weight_digest(weight)
    )
    SecondMoment(source=str(text), n_tokens=512).compute(tiny_lm, [0, 1, 2])
    SecondMoment(n_tokens=512).compute(tiny_lm, [2])
    assert sorted(hashed) == sorted(id(weight) for weight in tiny_lm.model.parameters())


# the record


def test_the_file_records_what_it_was_computed_from(tiny_lm, text, own_cache):
    source = SecondMoment(source=str(text), n_tokens=700)
    assert source.files(tiny_lm, [1, 2]) == {}
    C = source.compute(tiny_lm, [1])[1]
    files = source.files(tiny_lm, [1, 2])
    assert list(files) == [1]
    assert files[1].path == own_cache / "second-moments" / files_of(own_cache)[0]
    number = files[1].record.pop("condition_number")
    assert 0.5 * np.linalg.cond(C.numpy()) < number < 1.01 * np.linalg.cond(C.numpy())
    assert files[1].record == {
        "model": tiny_lm.name,
        "layer": 1,
        "source": str(text),
        "seed": None,
        "n_tokens": 512,
        "n_tokens_asked": 700,
        "chunk": 256,
        "dtype": "float32",
    }
    own = SecondMoment(n_tokens=512, seed=3)
    own.compute(tiny_lm, [1])
    record = own.files(tiny_lm, [1])[1].record
    assert (record["source"], record["seed"], record["n_tokens"]) == (None, 3, 512)


def test_its_fields_survive_json(text):
    moment = SecondMoment(source=Path(text), seed=2)
    again = SecondMoment(**json.loads(json.dumps(asdict(moment))))
    assert again == moment
    assert hash(again) == hash(moment)


@pytest.mark.parametrize("from_cache", [False, True])
def test_the_condition_number_is_logged(tiny_lm, text, caplog, from_cache):
    source = SecondMoment(source=str(text), n_tokens=1024)
    if from_cache:
        source.compute(same_as(tiny_lm), [1])
    with caplog.at_level(logging.INFO, logger="workbench.editing.second_moment.estimate"):
        C = source.compute(tiny_lm, [1])[1]
    number = estimate_condition_number(C)
    assert caplog.messages == [
        f"second moment of layer 1 of {tiny_lm.name}, 1024 tokens: condition number about {number:.2e}"
    ]


def test_a_singular_moment_is_kept_and_reported_as_singular(text, caplog):
    lm = build_tiny_lm("opt", activation_function="relu")
    name, width = f"{lm.arch.block(1)}.fc1", 5
    lm.model.get_submodule(name).bias.data[:width] = -1e4  # units that never fire, as ReLU models have
    with caplog.at_level(logging.WARNING, logger="workbench.editing.second_moment.estimate"):
        moment = SecondMoment(source=str(text), n_tokens=512)
        C = moment.compute(lm, [1])[1]
    assert not C[:width].any()
    assert moment.files(lm, [1])[1].record["condition_number"] is None
    assert caplog.messages == [
        f"second moment of layer 1 of {lm.name}, 512 tokens: singular, so nothing can be solved with it."
    ]


def test_keys_that_overflow_are_refused_and_nothing_is_kept(text, own_cache):
    lm = build_tiny_lm("llama", dtype=torch.float16)
    lm.model.get_parameter(f"{lm.arch.block(1)}.mlp.up_proj.weight").data.fill_(6e4)
    assert error_of(EditError, SecondMoment(source=str(text), n_tokens=512).compute, lm, [1]) == (
        f"keys of layer 1 of {lm.name} are not finite in float16; load the model in a wider dtype."
    )
    assert not files_of(own_cache)


def test_a_second_process_waits_and_takes_the_result_of_the_first(tiny_lm, text, own_cache, caplog):
    moment, waiting = SecondMoment(source=str(text), n_tokens=512), same_as(tiny_lm)
    first = moment.compute(tiny_lm, [1])[1]
    path = moment.files(tiny_lm, [1])[1].path
    aside = path.rename(path.with_suffix(".aside"))
    forbid_passes(waiting)
    found = {}
    thread = threading.Thread(target=lambda: found.update(moment.compute(waiting, [1])))
    with caplog.at_level(logging.INFO, logger="workbench.editing.second_moment.estimate"):
        with FileLock(path.with_suffix(".lock")):
            thread.start()
            end = time.monotonic() + 30
            while not caplog.messages and time.monotonic() < end:
                time.sleep(0.01)
            assert caplog.messages == ["another process is estimating this second moment; waiting for it."]
            aside.rename(path)
        thread.join(30)
    assert torch.equal(found[1], first)
