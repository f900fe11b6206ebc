"""`workbench second-moment`: what it prints, that ROME finds what it made, and what it refuses."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.tiny_models import SENTENCES
from workbench.editing.memit import MEMIT
from workbench.editing.second_moment import own_text
from workbench.editing.second_moment import sums as key_sums
from workbench.editing.second_moment.estimate import SecondMoment
from workbench.lm import load


@pytest.fixture
def cli(cli, own_cache):
    """Give a function that runs the command in this process, with an empty cache."""
    return partial(cli, "second-moment")


@pytest.fixture
def text(tmp_path) -> Path:
    """Give a text file of more than eight chunks."""
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{i} {sentence}" for i in range(30) for sentence in SENTENCES))
    return path


def test_it_prints_each_layer_with_tokens_condition_number_and_file(cli, tiny, text):
    result = cli("--model", tiny, "--layers", "3,1", "--source", text, "--tokens", 700)
    assert result.code == 0
    files = SecondMoment(source=str(text), n_tokens=700).files(load(tiny), [3, 1])
    expected = []
    for layer in (3, 1):
        about = f"{files[layer].record['condition_number']:.1e}"
        expected += [f"layer {layer}: 512 tokens of {text}, condition number about {about}", f"  {files[layer].path}"]
    assert result.out.splitlines() == expected
    assert re.search(r"Second moment: +100%.*512/512", result.err)


def test_what_it_computes_is_found_by_the_same_settings_and_not_computed_again(cli, tiny, text):
    settings = ("--model", tiny, "--layers", "1", "--source", text, "--tokens", 512)
    first = cli(*settings)
    lm = load(tiny)
    lm.model.register_forward_pre_hook(lambda module, args: pytest.fail("the model ran"))
    C = SecondMoment(source=str(text), n_tokens=512).compute(lm, [1])[1]
    assert C.shape == (48, 48)
    again = cli(*settings)
    assert again.out == first.out
    assert "Second moment: " not in again.err


def test_without_a_source_the_model_writes_the_text(cli, tiny, monkeypatch):
    monkeypatch.setattr(own_text, "BLOCK", 2)
    result = cli("--model", tiny, "--layers", "0", "--tokens", 512, "--seed", 7)
    assert result.code == 0
    assert result.out.startswith("layer 0: 512 tokens of text that the model wrote, seed 7, condition number about ")
    assert SecondMoment(n_tokens=512, seed=7).files(load(tiny), [0])


def test_without_layers_it_takes_those_that_memit_edits(cli, tiny, text):
    result = cli("--model", tiny, "--source", text, "--tokens", 512)
    layers = MEMIT.for_model(load(tiny)).layers
    assert re.findall(r"^layer (\d+):", result.out, flags=re.MULTILINE) == [str(layer) for layer in layers]
    assert layers


def test_the_models_dtype_is_that_which_is_given(cli, tiny, text):
    assert cli("--model", tiny, "--layers", "1", "--source", text, "--tokens", 512, "--dtype", "float64").code == 0
    source = SecondMoment(source=str(text), n_tokens=512)
    assert source.files(load(tiny, dtype=torch.float64), [1])
    assert not source.files(load(tiny), [1])


def test_ctrl_c_leaves_what_the_next_run_goes_on_with(cli, tiny, text, own_cache, monkeypatch):
    monkeypatch.setattr(key_sums, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(key_sums, "TOKENS_PER_PASS", 512)
    settings = ("--model", tiny, "--layers", "1", "--source", text, "--tokens", 2048)
    passes, one_pass = [], key_sums._add_keys

    def interrupted_at_the_third(*given):
        passes.append(given)
        if len(passes) == 3:
            raise KeyboardInterrupt
        one_pass(*given)

    monkeypatch.setattr(key_sums, "_add_keys", interrupted_at_the_third)
    assert cli(*settings).code == 130
    assert len(list(own_cache.rglob("*.partial"))) == 1
    assert cli(*settings).code == 0
    assert len(passes) < 3 + 4  # of four; after the first it saves, after the second only if that was quick


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--layers", "3-5"), "--layers must be numbers with commas between them, such as 3,4,5; got '3-5'."),
        (("--tokens", "100"), "n_tokens must be a whole number of at least 256 or None; got 100."),
        (
            ("--source", "nowhere.txt"),
            "no text source 'nowhere.txt': it is neither a file nor a folder, nor one of wikitext, wikipedia, nor a "
            "data set of the hub written as owner/name:config@commit with a commit of 40 hexadecimal digits.",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_loaded(cli, options, sentence):
    result = cli("--model", "not looked at", *options)
    assert (result.code, result.out, result.err) == (2, "", f"workbench: {sentence}\n")


def test_a_layer_out_of_range_is_named_with_the_range(cli, tiny, text):
    result = cli("--model", tiny, "--layers", "1,4", "--source", text)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"workbench: layer 4 is out of range: {tiny} has layers 0 to 3.\n"


def test_without_the_hub_the_sentence_names_the_cure(cli, tiny):
    result = cli("--model", tiny, "--layers", "1", "--source", "wikitext", "--tokens", 512)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[-1] == (
        "workbench: Salesforce/wikitext:wikitext-103-raw-v1@b08601e04326c79dfdd32d625aee71d232d685c3 cannot be read "
        "(Couldn't reach 'Salesforce/wikitext' on the Hub (OfflineModeIsEnabled)); check the connection and "
        "HF_HUB_OFFLINE, or give a file or folder of texts."
    )


@pytest.mark.slow
def test_a_full_cache_is_said_and_the_next_run_resumes(cli, tiny, small_disk, monkeypatch):
    monkeypatch.setattr(own_text, "BLOCK", 2)
    monkeypatch.setattr(key_sums, "SAVE_EVERY", 0.0)  # partial sums after every pass
    settings, cache = ("--model", tiny, "--layers", "1,2", "--tokens", 4096), small_disk.path / "cache"
    expected = cli(*settings)
    assert expected.code == 0
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache))
    for leave in (0, 16_384, 65_536):
        small_disk.fill(leave=leave)
        full = cli(*settings)
        assert (full.code, full.out) == (2, "")
        last = full.err.splitlines()[-1]
        assert last.startswith(f"workbench: {cache}/")
        assert last.endswith(
            "cannot be written (No space left on device); free some space, or set WORKBENCH_CACHE to a folder on "
            "another disk."
        )
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert len(kept) > 2
    small_disk.free()
    resumed = cli(*settings)
    assert resumed.code == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # read, not written again
    numbers = [[line for line in run.out.splitlines() if line.startswith("layer")] for run in (expected, resumed)]
    assert numbers[0] == numbers[1]


def test_a_read_only_cache_is_read_and_what_it_lacks_is_refused(cli, tiny, text, small_disk, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(small_disk.path))
    settings = ("--model", tiny, "--layers", "1", "--source", text)
    found = cli(*settings, "--tokens", 512)
    small_disk.make_read_only()
    assert cli(*settings, "--tokens", 512).out == found.out
    refused = cli(*settings, "--tokens", 700)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.splitlines()[-1].endswith(
        ".lock cannot be written (Read-only file system); set WORKBENCH_CACHE to a folder that can be written."
    )
