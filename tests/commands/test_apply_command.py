"""`workbench apply`: the model or adapter that it writes, and what it refuses."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import workbench as wb
from tests.tiny_models import SENTENCES, build_tiny_lm, save_tiny_lm
from workbench.changes import LowRank
from workbench.edit_record import EditRecord
from workbench.update import WeightUpdate


@pytest.fixture
def cli(cli, own_cache):
    """Give a function that runs the command in this process, with an empty cache."""
    return partial(cli, "apply")


def low_rank(lm, layer, *, seed=0):
    name = lm.arch.mlp_out_weight(layer)
    g = torch.Generator().manual_seed(seed)
    rows, cols = (torch.randn(n, 1, generator=g) for n in lm.weight(name).shape)
    return WeightUpdate.of_edit(lm, {name: LowRank(0.1 * rows, cols)}, record_of(seed))


def record_of(seed):
    return EditRecord("by hand", (), {"seed": seed})


def logits_of(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer(SENTENCES[0], return_tensors="pt")).logits


@pytest.fixture
def updates(folder, tiny) -> list[Path]:
    """Give two saved updates of the same matrix, of low rank; the order of adding them shows in the last bits."""
    lm = wb.load(tiny)
    for seed in (1, 2):
        low_rank(lm, 1, seed=seed).save(folder / f"{seed}.safetensors")
    return [folder / "1.safetensors", folder / "2.safetensors"]


@pytest.fixture
def pair(updates) -> list:
    """Give the options that name both updates in order."""
    return ["--update", updates[0], "--update", updates[1]]


def assert_loads_as(edited, path, before):
    """Plain transformers and the workbench load `path`, bit for bit as the edited model computes."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert tokenizer(SENTENCES[0]).input_ids == edited.tokenizer(SENTENCES[0]).input_ids
    expected = logits_of(edited.model, edited.tokenizer)
    assert torch.equal(logits_of(model, tokenizer), expected)
    assert not torch.equal(expected, before)
    again = wb.load(str(path), dtype=edited.model.dtype)
    assert torch.equal(logits_of(again.model, again.tokenizer), expected)


def test_the_folder_is_the_edited_model_bit_for_bit_in_every_family(cli, folder, every_tiny_lm):
    name = save_tiny_lm(every_tiny_lm, folder / "base")
    lm = wb.load(name)
    before = logits_of(lm.model, lm.tokenizer)
    sparse = wb.RECT(keep=0.4)(low_rank(lm, 2, seed=2), lm)
    low_rank(lm, 1).save(folder / "low-rank.safetensors")
    sparse.save(folder / "sparse.safetensors")
    options = ["--update", folder / "low-rank.safetensors", "--update", folder / "sparse.safetensors"]
    result = cli("--model", name, *options, "--out", folder / "edited")
    assert (result.code, result.err) == (0, "")
    low_rank(lm, 1).apply(lm)
    sparse.apply(lm)
    assert_loads_as(lm, folder / "edited", before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_weights_are_written_in_the_dtype_asked_for(cli, folder, tiny, updates, pair, dtype):
    assert cli("--model", tiny, *pair, "--out", "edited", "--dtype", dtype).code == 0
    lm = wb.load(tiny, dtype=dtype)
    before = logits_of(lm.model, lm.tokenizer)
    for path in updates:
        WeightUpdate.load(path).apply(lm)
    assert_loads_as(lm, folder / "edited", before)


def test_updates_are_applied_in_the_order_given(cli, folder, tiny, updates):
    lm, expected = wb.load(tiny), {}
    name = lm.arch.mlp_out_weight(1)
    for order in ((0, 1), (1, 0)):
        cli("--model", tiny, *(part for n in order for part in ("--update", updates[n])), "--out", f"{order[0]}")
        with lm.restored_after():
            for n in order:
                WeightUpdate.load(updates[n]).apply(lm)
            expected[order[0]] = lm.weight(name).clone()
    assert not torch.equal(expected[0], expected[1])
    for first, weight in expected.items():
        assert torch.equal(wb.load(f"{first}").weight(name), weight)


def test_the_folder_says_what_made_it_and_nothing_else_is_left(cli, folder, tiny, pair):
    result = cli("--model", tiny, *pair, "--out", "edited")
    assert json.loads((folder / "edited" / "workbench.json").read_text()) == {
        "model": tiny,
        "fingerprint": wb.load(tiny).fingerprint,
        "dtype": "float32",
        "updates": [{"file": f"{seed}.safetensors", "records": [record_of(seed).as_dict()]} for seed in (1, 2)],
    }
    files = {path.name for path in (folder / "edited").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "workbench.json"} <= files
    assert {path.name for path in folder.iterdir()} == {"1.safetensors", "2.safetensors", "edited"}
    n_bytes = sum(path.stat().st_size for path in (folder / "edited").iterdir())
    assert result.out == f"Saved to edited ({n_bytes / 1000:.3g} kB).\n"


def test_peft_writes_the_adapter_of_the_sum_without_a_model(cli, folder, tiny, updates, pair):
    result = cli("--model", "not looked at", *pair, "--peft", "adapter")
    assert (result.code, result.err) == (0, "")
    lm = wb.load(tiny)
    for path in updates:
        WeightUpdate.load(path).apply(lm)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder / "adapter").eval()
    expected = logits_of(lm.model, lm.tokenizer)
    torch.testing.assert_close(logits_of(adapted, lm.tokenizer), expected, rtol=0, atol=1e-5)
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"] == 2


@pytest.mark.parametrize("option", ["--out", "--peft"])
def test_only_force_replaces_a_folder_that_holds_something(cli, folder, tiny, pair, option):
    (folder / "result").mkdir()
    (folder / "result" / "old.txt").write_text("old")
    refused = cli("--model", tiny, *pair, option, "result")
    sentence = f"{option} result is not empty; give another name, or --force to replace it."
    assert refused == (2, "", f"workbench: {sentence}\n")
    assert (folder / "result" / "old.txt").read_text() == "old"
    assert cli("--model", tiny, *pair, option, "result", "--force").code == 0
    assert not (folder / "result" / "old.txt").exists()
    assert any(path.suffix == ".safetensors" for path in (folder / "result").iterdir())
    assert len(list(folder.iterdir())) == 3


def test_a_write_that_fails_keeps_what_was_there(cli, folder, tiny, pair, monkeypatch):
    def disk_full(self, path):
        (path / "config.json").write_text("half of it")
        raise OSError("disk full")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", disk_full)
    sentence = "--out edited could not be written (disk full); nothing is left of it."
    assert cli("--model", tiny, *pair, "--out", "edited") == (2, "", f"workbench: {sentence}\n")
    assert len(list(folder.iterdir())) == 2
    (folder / "edited").mkdir()
    (folder / "edited" / "old.txt").write_text("old")
    assert cli("--model", tiny, *pair, "--out", "edited", "--force").code == 2
    assert [path.name for path in (folder / "edited").iterdir()] == ["old.txt"]
    assert len(list(folder.iterdir())) == 3


def test_an_adapter_that_the_disk_does_not_take_is_said(cli, folder, pair, monkeypatch):
    def disk_full(*given, **options):
        raise OSError("disk full")

    monkeypatch.setattr("workbench.peft_export.save_file", disk_full)
    sentence = "--peft adapter could not be written (disk full); nothing is left of it."
    assert cli(*pair, "--peft", "adapter") == (2, "", f"workbench: {sentence}\n")
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("options", [(), ("--out", "a", "--peft", "b")])
def test_a_model_and_an_adapter_exclude_each_other(cli, pair, options):
    sentence = "give either --out, the folder of the edited model, or --peft, that of an adapter."
    assert cli(*pair, *options) == (2, "", f"workbench: {sentence}\n")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("1.safetensors", "--out: 1.safetensors is a file; give the name of a folder to make."),
        ("no/edited", "--out: no/edited: the folder {folder}/no does not exist; make it first."),
        ("..", "--out .. would replace {folder}, which is needed; give another name."),
        ("{tiny}", "--out {tiny} would replace {tiny}, which is needed; give another name."),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_before_the_model_is_loaded(
    cli, folder, tiny, pair, option, sentence, monkeypatch
):
    monkeypatch.setattr("workbench.lm.load", lambda *given, **options: pytest.fail("the model was loaded"))
    result = cli("--model", tiny, *pair, "--out", option.format(tiny=tiny), "--force")
    assert result == (2, "", f"workbench: {sentence.format(folder=folder, tiny=tiny)}\n")


def test_a_missing_update_is_named_before_the_model_is_loaded(cli, folder):
    result = cli("--model", "not looked at", "--update", "none.safetensors", "--out", "edited")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("workbench: none.safetensors cannot be read as a saved update (")
    assert not (folder / "edited").exists()


def test_an_update_of_another_model_is_named_with_its_file(cli, folder, tiny):
    other = build_tiny_lm("llama", seed=1)
    low_rank(other, 1).save(folder / "other.safetensors")
    result = cli("--model", tiny, "--update", "other.safetensors", "--out", "edited")
    lm = wb.load(tiny)
    assert result == (
        2,
        "",
        f"workbench: other.safetensors: the update was computed on tiny-llama (fingerprint {other.fingerprint}), not "
        f"on {tiny} (fingerprint {lm.fingerprint}); load the model it was made for.\n",
    )
    assert not (folder / "edited").exists()


def test_a_sparse_update_has_no_adapter(cli, folder, tiny):
    lm = wb.load(tiny)
    wb.RECT(keep=0.4)(low_rank(lm, 1), lm).save(folder / "sparse.safetensors")
    result = cli("--update", "sparse.safetensors", "--peft", "adapter")
    assert result == (
        2,
        "",
        "workbench: the sparse update of model.layers.1.mlp.down_proj.weight keeps single entries of a matrix, which "
        "has full rank in general, so that no PEFT LoRA adapter can hold it; save() and `workbench apply` keep it "
        "exactly.\n",
    )
    assert not (folder / "adapter").exists()


def test_the_sum_of_the_updates_is_regularized_on_request(cli, folder, tiny, pair, updates):
    cli(*pair, "--model", tiny, "--accumulated", "rect", "--out", folder / "edited")
    lm = wb.load(tiny)
    [name] = WeightUpdate.load(updates[0])
    total = WeightUpdate.load(updates[0]) + WeightUpdate.load(updates[1])
    wb.RECT(0.4)(total, lm).apply(lm)
    assert torch.equal(wb.load(str(folder / "edited")).weight(name), lm.weight(name))
    record = json.loads((folder / "edited" / "workbench.json").read_text())
    assert record["accumulated"] == {"kind": "RECT", "keep": 0.4}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--accumulated", "l2", "--out", "edited"),
            "no regularizer 'l2'; known: none, rect, rect-energy, random, pca, prune, sphere.",
        ),
        (("--accumulated", "prune", "--peft", "a"), "--accumulated needs the weights of the model; use it with --out."),
    ],
)
def test_a_regularizer_of_the_sum_that_cannot_be_used_is_refused(cli, pair, options, sentence):
    assert cli(*pair, *options) == (2, "", f"workbench: {sentence}\n")
