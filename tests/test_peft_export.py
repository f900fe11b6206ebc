"""A low-rank update as a PEFT adapter gives the logits of the edited model; what has no low rank is refused."""

import json
import re
import stat
import warnings
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import workbench as wb
from tests.tiny_models import SENTENCES, build_tiny_lm
from workbench import peft_export
from workbench.architectures import ARCHITECTURES
from workbench.changes import LowRank, Sparse
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.errors import UpdateError
from workbench.update import WeightUpdate

REQUEST = wb.EditRequest("The Eiffel Tower", "{} is located in the city of", "Rome", target_true="Paris")
OTHER = wb.EditRequest("Edith Piaf", "The mother tongue of {} is", "English")


def low_rank(lm, name, rank, seed=0):
    """A random change as large as the weight itself."""
    n_rows, n_cols = lm.weight(name).shape
    g = torch.Generator().manual_seed(seed)
    rows, cols = torch.randn(n_rows, rank, generator=g), torch.randn(n_cols, rank, generator=g)
    return LowRank(rows * lm.weight(name).norm() / (rows @ cols.T).norm(), cols)


def mlp_weights(lm, layer):
    """Names of all MLP projections of a block."""
    return [f"{lm.arch.block(layer)}.{part}.weight" for part in (*lm.arch.mlp_in, lm.arch.mlp_out)]


def logits_of(model, lm):
    ids = lm.tokenizer(SENTENCES[0], return_tensors="pt").input_ids.to(model.device)
    with torch.no_grad():
        return model(input_ids=ids).logits


def assert_adapter_gives_the_edited_logits(update, lm, tmp_path):
    """Plain transformers loads the saved model, plain peft the adapter, with no warning."""
    before = logits_of(lm.model, lm)
    with update.applied(lm):
        edited = logits_of(lm.model, lm)
    assert (edited - before).abs().max() > 1e-3
    lm.model.save_pretrained(tmp_path / "base")
    update.to_peft(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a missing key, a layer of the other orientation
        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits_of(adapted, lm), edited, rtol=0, atol=1e-5)


@pytest.fixture
def update(tiny_lm) -> WeightUpdate:
    """Give an update that has an adapter."""
    name = tiny_lm.arch.mlp_out_weight(1)
    return WeightUpdate({name: low_rank(tiny_lm, name, 1)})


def test_ranks_that_differ_give_the_edited_logits(every_tiny_lm, tmp_path):
    lm = every_tiny_lm
    names = [lm.arch.mlp_out_weight(layer) for layer in (1, 2)]
    update = WeightUpdate({name: low_rank(lm, name, rank) for name, rank in zip(names, (1, 3), strict=True)})
    assert_adapter_gives_the_edited_logits(update, lm, tmp_path)


def test_every_projection_of_the_mlp_gives_the_edited_logits(every_tiny_lm, tmp_path):
    update = WeightUpdate({name: low_rank(every_tiny_lm, name, 2) for name in mlp_weights(every_tiny_lm, 3)})
    assert_adapter_gives_the_edited_logits(update, every_tiny_lm, tmp_path)


def test_a_rome_update_gives_the_edited_logits_with_rank_one(every_tiny_lm, tmp_path):
    rome = wb.ROME(layer=1, v_num_grad_steps=3, contexts=("{}",))
    update = rome.compute_update(every_tiny_lm, [REQUEST])
    assert_adapter_gives_the_edited_logits(update, every_tiny_lm, tmp_path)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 1


@pytest.mark.parametrize("method", ["memit", "kn", "mend"])
def test_an_update_of_every_low_rank_method_gives_the_edited_logits(every_tiny_lm, tmp_path, own_cache, method):
    lm, requests = every_tiny_lm, [REQUEST, OTHER]
    if method == "memit":
        moment = wb.SecondMoment(n_tokens=512)
        editor = wb.MEMIT(layers=(1, 2), mom2_update_weight=0.1, contexts=("{}",), second_moment=moment)
    elif method == "kn":
        # a moderate step: the default one moves logits by 6, and float32 rounds them by more than 1e-5
        editor = replace(wb.KN.for_model(lm), contexts=("{}",), lambda_old=0.0, lambda_new=0.2)
        requests = requests[:1]
    else:
        network = MendNetwork.untrained(lm, weights_to_edit(lm), rank=4, edit_lr=0.01)
        editor = wb.MEND(network=str(save_network(network, tmp_path / "mend.safetensors", lm)))
    update = editor.compute_update(lm, requests)
    lm.memo.clear()
    assert_adapter_gives_the_edited_logits(update, lm, tmp_path)
    if method == "memit":
        assert [change.rows.shape[1] for change in update.values()] == [2, 2]


@pytest.mark.parametrize("model_type", ["gpt2", "gptj", "llama"])
def test_a_square_matrix_is_not_turned_round(model_type, tmp_path):
    lm = build_tiny_lm(model_type, **{"intermediate_size" if model_type == "llama" else "n_inner": 32})
    name = lm.arch.mlp_out_weight(1)
    assert lm.weight(name).shape == (32, 32)
    assert_adapter_gives_the_edited_logits(WeightUpdate({name: low_rank(lm, name, 2)}), lm, tmp_path)


def test_more_than_ten_layers_keep_their_own_ranks(tmp_path):
    lm = build_tiny_lm("llama", num_hidden_layers=12, dtype=torch.float64)  # float32 rounds by 1e-5 in 12 layers
    names = [lm.arch.mlp_out_weight(layer) for layer in range(12)]
    update = WeightUpdate({name: low_rank(lm, name, layer % 5 + 1) for layer, name in enumerate(names)})
    assert_adapter_gives_the_edited_logits(update, lm, tmp_path)


def test_a_sum_read_from_files_gives_the_edited_logits(tiny_lm, tmp_path):
    name = tiny_lm.arch.mlp_out_weight(2)
    for seed in (1, 2):
        WeightUpdate({name: low_rank(tiny_lm, name, 1, seed)}).save(tmp_path / f"{seed}.safetensors")
    update = WeightUpdate.load(tmp_path / "1.safetensors") + WeightUpdate.load(tmp_path / "2.safetensors")
    assert_adapter_gives_the_edited_logits(update, tiny_lm, tmp_path)


def test_the_full_name_of_a_weight_tells_how_it_lies(every_tiny_lm):
    lm, seen = every_tiny_lm, 0
    for layer in range(lm.n_layers):
        for name in mlp_weights(lm, layer):
            module = lm.model.get_submodule(name.removesuffix(".weight"))
            assert isinstance(module, Conv1D if lm.arch.conv1d else nn.Linear)
            rows = [row for row in ARCHITECTURES if peft_export._is_mlp_weight(row, name)]
            assert lm.arch in rows
            assert {row.conv1d for row in rows} == {isinstance(module, Conv1D)}
            seen += 1
    assert seen >= 8


def test_the_adapter_names_its_modules_base_and_scale(tiny_lm, tmp_path):
    names = [tiny_lm.arch.mlp_out_weight(layer) for layer in (0, 2)]
    changes = {name: low_rank(tiny_lm, name, rank) for name, rank in zip(names, (3, 1), strict=True)}
    WeightUpdate(changes, model="some/model").to_peft(tmp_path / "adapter")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    modules = [name.removesuffix(".weight") for name in names]
    assert sorted(config["target_modules"]) == modules
    assert (config["r"], config["lora_alpha"]) == (3, 3)
    assert config["rank_pattern"] == config["alpha_pattern"] == {modules[1]: 1}
    assert config["fan_in_fan_out"] is tiny_lm.arch.conv1d
    assert config["base_model_name_or_path"] == "some/model"
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(tensors) == {f"base_model.model.{module}.lora_{f}.weight" for module in modules for f in "AB"}


def test_all_may_read_the_files(update, tmp_path):
    update.to_peft(tmp_path / "adapter")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "adapter").iterdir()}
    assert modes == {0o644}


def test_half_precision_models_take_the_adapter(tmp_path):
    lm = build_tiny_lm("llama", dtype=torch.bfloat16)
    name = lm.arch.mlp_out_weight(1)
    update = WeightUpdate({name: low_rank(build_tiny_lm("llama"), name, 2)})
    lm.model.save_pretrained(tmp_path / "base")
    update.to_peft(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
        plain.get_parameter(name).add_(update.delta(name))
    torch.testing.assert_close(logits_of(adapted, lm), logits_of(plain, lm), rtol=0, atol=1e-5)


def test_a_change_of_rank_zero_is_left_out(tiny_lm, tmp_path):
    names = [tiny_lm.arch.mlp_out_weight(layer) for layer in (0, 2)]
    update = WeightUpdate({name: low_rank(tiny_lm, name, 2) for name in names})
    rows, cols = update[names[0]].rows, update[names[0]].cols
    update.changes[names[0]] = LowRank(rows[:, :0], cols[:, :0])
    assert_adapter_gives_the_edited_logits(update, tiny_lm, tmp_path)


def test_factors_that_share_memory_are_written(tmp_path):
    lm = build_tiny_lm("llama", intermediate_size=32)
    name = lm.arch.mlp_out_weight(1)
    factor = torch.randn(32, 1, generator=torch.Generator().manual_seed(0))
    assert_adapter_gives_the_edited_logits(WeightUpdate({name: LowRank(factor, factor)}), lm, tmp_path)


def refused(update, folder, sentence):
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UpdateError, match=f"^{re.escape(sentence)}$"):
        update.to_peft(folder)
    assert sorted(folder.parent.rglob("*")) == before


def test_a_sparse_update_is_refused_with_the_reason(tiny_lm, tmp_path):
    name = tiny_lm.arch.mlp_out_weight(1)
    update = wb.RECT(keep=0.4)(WeightUpdate({name: low_rank(tiny_lm, name, 1)}), tiny_lm)
    assert isinstance(update[name], Sparse)
    assert torch.linalg.matrix_rank(update.delta(name)) == min(update.delta(name).shape)
    refused(
        update,
        tmp_path / "adapter",
        f"the sparse update of {name} keeps single entries of a matrix, which has full rank in general, so that no "
        "PEFT LoRA adapter can hold it; save() and `workbench apply` keep it exactly.",
    )


def test_a_dense_update_is_refused_with_the_reason(tiny_lm, tmp_path):
    name = tiny_lm.arch.mlp_out_weight(1)
    refused(
        WeightUpdate({name: torch.ones_like(tiny_lm.weight(name))}),
        tmp_path / "adapter",
        f"the dense update of {name} is a whole matrix, which has full rank in general, so that no PEFT LoRA adapter "
        "can hold it; save() and `workbench apply` keep it exactly.",
    )


def test_an_update_that_changes_nothing_is_refused(tmp_path):
    nothing = LowRank(torch.zeros(32, 0), torch.zeros(48, 0))
    for changes in ({}, {"model.layers.0.mlp.down_proj.weight": nothing}):
        refused(
            WeightUpdate(changes),
            tmp_path / "adapter",
            "an update that changes nothing has no PEFT adapter; give one of at least one matrix.",
        )


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["transformer.h.0.mlp.c_proj.weight", "transformer.h.0.attn.c_proj.weight"], [1]),
        (["model.layers.0.mlp.down_proj.bias"], [0]),
        (["transformer.h.0.mlp.c_proj.weight", "transformer.h.0.mlp.fc_out.weight"], [0, 1]),
    ],
)
def test_matrices_that_may_lie_either_way_are_refused(names, named, tmp_path):
    refused(
        WeightUpdate({name: LowRank(torch.ones(4, 1), torch.ones(4, 1)) for name in names}),
        tmp_path / "adapter",
        f"no known model family has MLP projections with the weights {', '.join(names[i] for i in named)}, so it is "
        "not known which way they lie in a PEFT adapter; save() keeps the update as it is.",
    )


def test_a_folder_that_holds_something_is_refused(update, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "notes.txt").write_text("mine")
    refused(
        update,
        tmp_path / "adapter",
        f"the folder {tmp_path / 'adapter'} exists and is not empty; give another name.",
    )
    (tmp_path / "file").write_text("mine")
    refused(update, tmp_path / "file", f"{tmp_path / 'file'} is a file; give the name of a folder to make.")


def test_an_empty_folder_is_filled(update, tmp_path):
    (tmp_path / "adapter").mkdir()
    update.to_peft(tmp_path / "adapter")
    assert len(list((tmp_path / "adapter").iterdir())) == 2


def test_a_write_that_fails_leaves_nothing(update, tmp_path, monkeypatch):
    def disk_full(*given, **options):
        raise OSError("disk full")

    monkeypatch.setattr(peft_export, "save_file", disk_full)
    with pytest.raises(OSError, match=r"^disk full$"):
        update.to_peft(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_adapter_of_the_embedded_model_gives_the_edited_logits(tmp_path):
    lm = wb.load("smollm2-135m", dtype="float64")  # in float32 the edited logits themselves are rounded by 5e-5
    update = wb.ROME(layer=5, v_num_grad_steps=3, v_lr=0.5, contexts=("{}",)).compute_update(lm, [REQUEST])
    update.to_peft(tmp_path / "adapter")
    with update.applied(lm):
        edited = logits_of(lm.model, lm)
    adapted = PeftModel.from_pretrained(lm.model, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits_of(adapted, lm), edited, rtol=0, atol=1e-5)
    with adapted.disable_adapter():
        assert (logits_of(adapted, lm) - edited).abs().max() > 1
