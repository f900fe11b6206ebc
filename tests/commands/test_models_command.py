"""`workbench models`: what is cached, and what is fetched."""

from pathlib import Path

import pytest

from workbench import embedded
from workbench.commands import models
from workbench.errors import ModelError


def test_a_model_that_cannot_be_fetched_is_named(refused, tiny):
    sentence = refused("models", "fetch", "no-such/model")
    assert sentence.startswith("'no-such/model' cannot be fetched from the hub (")
    assert sentence.endswith("); check the name, the connection and HF_HUB_OFFLINE.")
    assert refused("models", "fetch", tiny) == f"{tiny} is a folder, which needs no fetching; give a hub id."


def test_a_cache_that_cannot_be_written_is_named(refused, folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "file"))
    wanted = folder / "file" / "models" / "smollm2-135m"
    assert refused("models", "fetch", "smollm2-135m") == (
        f"{wanted} cannot be written (Not a directory); set WORKBENCH_CACHE to a folder that can be written."
    )


def test_models_are_listed_whether_cached_or_not(cli, own_cache):
    result = cli("models")
    assert (result.code, result.err) == (0, "")
    for name in ("smollm2-135m", "gemma3-270m"):
        assert f"{name} (not cached; workbench models fetch {name})" in result.out
    (own_cache / "models" / "smollm2-135m").mkdir(parents=True)
    (own_cache / "models" / "smollm2-135m" / "weights").write_bytes(bytes(3_000_000))
    out = cli("models").out
    assert "smollm2-135m (cached, 3 MB)" in out
    assert "GPT-NeoX/Pythia" in out
    assert "llama-2-7b" in out


def test_fetch_again_is_passed_on(cli, monkeypatch):
    monkeypatch.setattr(embedded, "fetch", lambda name, *, again: f"folder, again: {again}")
    assert cli("models", "fetch", "smollm2-135m", "--again").out == "smollm2-135m is in folder, again: True\n"


def test_fetching_gemma_shows_the_notice_that_its_terms_demand(cli, monkeypatch):
    monkeypatch.setattr(embedded, "fetch", lambda name, *, again: "folder")
    assert cli("models", "fetch", "gemma3-270m").out == (
        "gemma3-270m is in folder\n"
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
    )


def test_fetching_again_keeps_the_old_model_if_that_fails(own_cache, monkeypatch):
    model = own_cache / "models" / "smollm2-135m"
    model.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")

    def no_network(model, scratch):
        raise ModelError("no network")

    monkeypatch.setattr(embedded, "_download", no_network)
    with pytest.raises(ModelError, match=r"^no network$"):
        embedded.fetch("smollm2-135m", again=True)
    assert embedded.fetch("smollm2-135m") == model


def test_a_hub_model_of_an_unknown_family_is_refused_before_its_weights_are_fetched(refused, monkeypatch):
    import transformers

    config = transformers.BloomConfig(architectures=["BloomForCausalLM"])
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: config)
    assert refused("models", "fetch", "big/bloom").startswith("No architecture row for 'BloomForCausalLM'")


def test_a_hub_model_for_which_there_is_no_space_is_said(refused, monkeypatch):
    import huggingface_hub
    import transformers

    def full(name, *, ignore_patterns, force_download):
        raise OSError(28, "No space left on device", "blob")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: transformers.GPT2Config())
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: ["model.safetensors"])
    monkeypatch.setattr(models, "snapshot_download", full)
    assert refused("models", "fetch", "gpt2") == (
        f"{huggingface_hub.constants.HF_HUB_CACHE} cannot be written (No space left on device); free some space, or "
        "set HF_HOME to a folder on another disk."
    )


def test_of_a_hub_model_only_what_is_read_is_fetched(monkeypatch):
    import fnmatch

    import huggingface_hub
    import transformers

    weights = {"pytorch_model.bin", "model.safetensors"}
    files = {"config.json", "tokenizer.json", "tf_model.h5", "original/consolidated.00.pth", *weights}
    fetched = []

    def download(name, *, ignore_patterns, force_download):
        fetched.extend(f for f in sorted(files) if not any(fnmatch.fnmatch(f, p) for p in ignore_patterns))
        return "folder"

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: transformers.GPT2Config())
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: files)
    monkeypatch.setattr(models, "snapshot_download", download)
    assert models._fetch_from_hub("gpt2", again=False) == Path("folder")
    assert fetched == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_hub_model_with_only_a_pickle_is_refused_before_its_weights_are_fetched(refused, monkeypatch):
    import huggingface_hub
    import transformers

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: transformers.GPT2Config())
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: ["pytorch_model.bin"])
    monkeypatch.setattr(models, "snapshot_download", lambda *args, **kwargs: pytest.fail("fetched"))
    assert refused("models", "fetch", "gpt2") == (
        "the hub has the weights of gpt2 only as a pickle, which is never read; give another."
    )
