"""`workbench edit` refuses what cannot be done in one sentence, and leaves no file."""

import json
import os
from pathlib import Path

import pytest

import workbench as wb
from tests.helpers import FACT
from tests.tiny_models import build_tiny_lm, dropping_tokenizer, save_tiny_lm


def test_a_missing_model_is_named(refused):
    sentence = refused("edit", *FACT, "--model", "no-such/model")
    assert sentence.startswith(
        "no model 'no-such/model': it is neither an embedded model (smollm2-135m, gemma3-270m), nor a folder, nor a "
        "hub id that can be reached ("
    )


def test_a_damaged_cached_model_is_named_with_its_cure(refused, own_cache):
    model = own_cache / "models" / "smollm2-135m"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "manifest.json").write_text(json.dumps({"config.json": "0" * 64}))
    assert refused("edit", *FACT) == (
        f"the cached model file {model / 'config.json'} is damaged; "
        "`workbench models fetch smollm2-135m --again` rebuilds it."
    )


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        (
            ("Eiffel Tower", "Where is it?", "Rome"),
            "subject 'Eiffel Tower' is not in the prompt 'Where is it?'; mark its place with {}.",
        ),
        (
            ("Eiffel Tower", "The Eiffel Tower is in", "Rome"),
            "subject 'Eiffel Tower' is not marked in the prompt 'The Eiffel Tower is in'; mark its place with {}.",
        ),
        (
            ("Eiffel Tower", "{} and {} are in", "Rome"),
            "prompt '{} and {} are in' holds {} 2 times; it must mark the subject once.",
        ),
        (
            ("Eiffel Tower", "The {} is in", " "),
            "target_new is empty for 'The Eiffel Tower is in'; give the answer the edit should write.",
        ),
        ((" ", "The {} is in", "Rome"), "subject is empty for the prompt 'The {} is in'; name what the fact is about."),
    ],
)
def test_a_fact_that_is_none_is_refused_before_the_model_is_loaded(refused, fact, sentence):
    given = [word for pair in zip(("--subject", "--prompt", "--target"), fact, strict=True) for word in pair]
    assert refused("edit", *given, "--model", "not looked at") == sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--target-true", "Rome"), "target_new is the true answer 'Rome' already, for 'The Eiffel Tower is in the "),
        (("--rephrase", "{} or {}"), "rephrase '{} or {}' of 'The Eiffel Tower is in the city of' must be a text "),
        (("--locality", "The Louvre"), "--locality 'The Louvre' has no =>; write it as 'prompt => answer'."),
        (("--locality", "The Louvre =>"), "locality target is empty in "),
        (("--portability", "It is in"), "--portability 'It is in' has no =>; write it as 'prompt => answer'."),
        (("--portability", "=> Italy"), "portability prompt is empty in "),
        (("--keep", "0.4"), "--keep 0.4 has no effect; choose --regularizer rect, random or pca."),
        (("--regularizer", "rect", "--keep", "0"), "keep must lie in (0, 1]; got 0.0."),
        (("--regularizer", "random", "--keep", "1.4"), "keep must lie in (0, 1]; got 1.4."),
        (("--regularizer", "pca", "--keep", "nan"), "keep must lie in (0, 1]; got nan."),
        (("--steps", "0"), "v_num_grad_steps must be a whole number from 1 to 1000000; got 0."),
        (("--lr", "-1"), "v_lr must be a positive number; got -1.0."),
        (("--dtype", "int8"), "dtype 'int8' is unknown; known: float32, float16, bfloat16, float64."),
        (("--device", "cpu", "--device-map", "auto"), "give device or device_map, not both: device puts the whole "),
        (("--onto", "none.safetensors"), "none.safetensors cannot be read as a saved update ("),
        (("--hparams", "none.yaml"), "none.yaml does not exist; give an EasyEdit hparams file."),
        (("--save", "none/e.safetensors"), "--save none/e.safetensors: the folder none does not exist; make it first."),
        (("--save", "."), "--save . is a folder; give the name of a file in it."),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_the_model_is_loaded(refused, options, sentence):
    assert refused("edit", *FACT, *options, "--model", "not looked at").startswith(sentence)


def test_a_file_that_exists_is_not_replaced(refused, folder):
    (folder / "e.safetensors").write_text("precious")
    assert refused("edit", *FACT, "--save", "e.safetensors", "--model", "not looked at") == (
        "--save e.safetensors exists; give another name, or --force to replace it."
    )


def test_force_replaces_no_pipe(refused, folder):
    os.mkfifo("pipe")
    assert refused("edit", *FACT, "--save", "pipe", "--force", "--model", "not looked at") == (
        "--save pipe is a pipe; give the name of a file."
    )
    assert Path("pipe").is_fifo()


def test_a_layer_out_of_range_is_named_with_the_range(refused, tiny):
    options = (*FACT, "--model", tiny, "--save", "e.safetensors")
    assert refused("edit", *options, "--layer", 4) == f"layer 4 is out of range: {tiny} has layers 0 to 3."
    assert refused("edit", *options, "--layer", -1) == "layer must be a whole number of at least 0; got -1."


def test_an_unknown_method_or_regularizer_is_refused_with_the_known_ones(refused):
    known = "rome, r-rome, memit, memit-seq, encore, alphaedit, emmet, kn, mend, ft, ft-l, locft-bf, ultraedit, lora"
    assert refused("edit", *FACT, "--method", "grace") == f"no method 'grace'; known: {known}."
    known = "none, rect, rect-energy, random, pca, prune, sphere"
    assert refused("edit", *FACT, "--regularizer", "l2") == f"no regularizer 'l2'; known: {known}."


def test_a_target_without_tokens_is_refused(refused, folder):
    model = save_tiny_lm(build_tiny_lm("gpt2"), folder / "dropping", dropping_tokenizer())
    assert refused("edit", *FACT[:4], "--target", "\u200b", "--model", model, "--save", "e.safetensors") == (
        r"target '\u200b' tokenizes to nothing after 'The Eiffel Tower is in the city of'; "
        "give a target with text in it."
    )


def test_an_update_of_another_model_is_refused(refused, folder, tiny):
    other, lm = build_tiny_lm("llama", seed=1), build_tiny_lm("llama")
    name = other.arch.mlp_out_weight(1)
    update = wb.WeightUpdate({name: other.weight(name) * 0.1}, model="other", fingerprint=other.fingerprint)
    update.save(folder / "other.safetensors")
    assert refused("edit", *FACT, "--model", tiny, "--onto", "other.safetensors", "--save", "e.safetensors") == (
        f"other.safetensors: the update was computed on other (fingerprint {other.fingerprint}), not on {tiny} "
        f"(fingerprint {lm.fingerprint}); load the model it was made for."
    )


def test_an_edit_that_a_full_disk_does_not_take_leaves_what_was_there(cli, tiny, small_disk):
    path, adapter = small_disk.path / "e.safetensors", small_disk.path / "adapter"
    command = ("edit", *FACT, "--model", tiny, "--steps", 1, "--force")
    assert cli(*command, "--save", path).code == 0
    before = path.read_bytes()
    small_disk.fill()
    for option, place in (("--save", path), ("--peft", adapter)):
        result = cli(*command, option, place)
        assert (result.code, result.err.splitlines()[-1]) == (
            2,
            f"workbench: {place} cannot be written (No space left on device); free some space, or give a folder on "
            "another disk.",
        )
    result = cli("apply", "--model", tiny, "--update", path, "--out", small_disk.path / "edited")
    assert result.code == 2
    assert "/edited cannot be written (No space left on device)" in result.err
    assert sorted(each.name for each in small_disk.path.iterdir()) == ["e.safetensors", "filler"]
    assert path.read_bytes() == before


def test_an_error_after_the_edit_leaves_no_file(refused, tiny, monkeypatch):
    monkeypatch.setattr(wb.WeightUpdate, "save", lambda self, path: (_ for _ in ()).throw(OSError("no reason")))
    assert refused("edit", *FACT, "--model", tiny, "--steps", 1, "--save", "e.safetensors") == (
        "--save e.safetensors could not be written (no reason); nothing is left of it."
    )


def test_a_request_file_that_is_not_json_is_refused(refused, folder):
    (folder / "facts.json").write_text('[{"subject": "Rome", ]')
    assert refused("facts", "check", "facts.json") == (
        "facts.json is not JSON: line 1, column 22: Expecting property name enclosed in double quotes; "
        "give a JSON array, JSON lines or a CSV with a header."
    )


def test_a_missing_request_file_is_named(refused):
    assert (
        refused("facts", "show", "facts.json")
        == "facts.json does not exist; give a file of facts, 'bundled', 'bundled-hard' or 'bundled-all'."
    )
