"""LoRA against plain training of a copied model that PEFT has wrapped, and what is left in the edited model."""

import copy
import math
import warnings
from dataclasses import replace

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import cross_entropy

import workbench as wb
from tests.helpers import assert_same_bits, error_of, hooks_and_forwards, ids_of, weights_of
from tests.tiny_models import ModelOutline, build_tiny_lm
from workbench.changes import LowRank
from workbench.editing.editor import describe_layers
from workbench.editing.lora import LoRA
from workbench.errors import EditError, MissingExtraError

REQUESTS = [
    wb.EditRequest(subject="The Eiffel Tower", prompt="{} is located in the city of", target_new="Rome, Italy"),
    wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English"),
    wb.EditRequest(subject="HMS Beagle", prompt="{} was launched in", target_new="1821"),
]
SMALL = LoRA(rank=3, alpha=6.0, num_steps=4, lr=1e-3, loss_threshold=0.0)
TEXT = "The Louvre is in Paris, and you may ask where the HMS Beagle was launched."


def modules_of(lm, lora):
    """Names of the matrices that get adapters, from the architecture row."""
    parts = lora.target_modules or (*lm.arch.mlp_in, lm.arch.mlp_out)
    layers = range(lm.n_layers) if lora.layers is None else lora.layers
    return [f"{lm.arch.blocks}.{layer}.{part}" for layer in layers for part in parts]


def plain_training(lm, lora, requests):
    """A PEFT model, trained on whole unpadded passes over one text after another."""
    modules, model = modules_of(lm, lora), copy.deepcopy(lm.model)
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=modules, fan_in_fan_out=lm.arch.conv1d, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        model = peft.get_peft_model(model, config)
    layers = [model.get_submodule(f"base_model.model.{name}") for name in modules]
    generator = torch.Generator().manual_seed(lora.seed)
    with torch.no_grad():
        for layer in layers:  # uniform within 1/√d_in: Kaiming's bound √(6 / ((1 + 5) d_in))
            A = layer.lora_A["default"].weight
            A.copy_(torch.empty(A.shape).uniform_(-1, 1, generator=generator) / math.sqrt(A.shape[1]))
    trained = [p for layer in layers for p in (layer.lora_A["default"].weight, layer.lora_B["default"].weight)]
    adam = torch.optim.Adam(trained, lr=lora.lr, weight_decay=lora.weight_decay)

    def nll(request):
        n_prompt = len(ids_of(lm, request.filled_prompt))
        ids = torch.tensor([ids_of(lm, f"{request.filled_prompt} {request.target_new}")])
        return cross_entropy(model(ids).logits[0, n_prompt - 1 : -1], ids[0, n_prompt:])

    for _ in range(lora.num_steps):
        for i in range(0, len(requests), lora.batch_size):
            adam.zero_grad()
            torch.stack([nll(request) for request in requests[i : i + lora.batch_size]]).mean().backward()
            adam.step()
    return model, dict(zip(modules, layers, strict=True))


@torch.no_grad()
def logits_of(lm, model):
    return model(torch.tensor([ids_of(lm, TEXT)])).logits


def trace_of(lm):
    """Whatever an adapter could leave on a model: modules, their attributes, modes and hooks."""
    return (
        {name: (id(module), module.training, frozenset(vars(module))) for name, module in lm.model.named_modules()},
        hooks_and_forwards(lm),
        [(name, p.requires_grad, p.grad is None, p._version) for name, p in lm.model.named_parameters()],
    )


def test_the_applied_update_is_the_model_that_peft_trains(every_tiny_lm):
    lm = every_tiny_lm
    before = logits_of(lm, lm.model)
    update = SMALL.compute_update(lm, REQUESTS)
    trained, layers = plain_training(lm, SMALL, REQUESTS)
    assert sorted(update) == sorted(f"{name}.weight" for name in layers)
    expected = logits_of(lm, trained)
    with update.applied(lm):
        after = logits_of(lm, lm.model)
    moved = (expected - before).abs().max()
    assert moved > 0.05
    # Adam's first steps are lr in size whatever the gradient: rounding of a gradient near 0 turns single entries
    assert (after - expected).abs().max() < 0.02 * moved


@pytest.mark.parametrize("model_type", ["gpt2", "opt"])  # which compute in float64 throughout
@pytest.mark.parametrize(
    "changes",
    [{}, {"batch_size": 2}, {"weight_decay": 0.5}, {"layers": (1, 3)}, {"seed": 7}],
    ids=lambda changes: "".join(changes) or "as it is",
)
def test_in_float64_the_update_is_that_of_plain_training(model_type, changes):
    lm, lora = build_tiny_lm(model_type, dtype=torch.float64), replace(SMALL, **changes)
    update = lora.compute_update(lm, REQUESTS)
    trained, layers = plain_training(lm, lora, REQUESTS)
    assert len(update) == len(layers)
    for name, layer in layers.items():
        delta, change = layer.get_delta_weight("default").detach(), update[f"{name}.weight"]
        assert isinstance(change, LowRank)
        assert change.rows.shape[1] == change.cols.shape[1] == lora.rank
        torch.testing.assert_close(update.delta(f"{name}.weight"), delta, rtol=1e-6, atol=1e-7)
    with update.applied(lm):
        torch.testing.assert_close(logits_of(lm, lm.model), logits_of(lm, trained), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("model_type", "width"), [("gpt2", "n_inner"), ("llama", "intermediate_size")])
def test_a_square_matrix_is_not_turned_round(model_type, width):
    lm = build_tiny_lm(model_type, dtype=torch.float64, **{width: 32})
    update = SMALL.compute_update(lm, REQUESTS)
    _, layers = plain_training(lm, SMALL, REQUESTS)
    for name, layer in layers.items():
        delta = layer.get_delta_weight("default").detach()
        error = (update.delta(f"{name}.weight") - delta).norm()
        assert error < 0.01 * delta.norm() < (update.delta(f"{name}.weight").T - delta).norm()


def test_the_model_is_as_before_bit_for_bit_without_a_module_of_peft(every_tiny_lm):
    lm, weights, before = every_tiny_lm, weights_of(every_tiny_lm), trace_of(every_tiny_lm)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update = replace(SMALL, dropout=0.1).compute_update(lm, REQUESTS)
    assert trace_of(lm) == before
    with update.applied(lm):
        assert all(not torch.equal(lm.weight(name), weights[name]) for name in update)
    assert_same_bits(lm, weights)
    assert not any(isinstance(module, BaseTunerLayer) for module in lm.model.modules())


@pytest.mark.parametrize("n_passes", [0, 2])
def test_an_error_in_the_middle_of_training_leaves_no_trace(tiny_lm, n_passes):
    before, passes = trace_of(tiny_lm), []

    def fail(module, args, output):
        passes.append(any(isinstance(part, BaseTunerLayer) for part in module.modules()))
        if len(passes) > n_passes:
            raise KeyboardInterrupt

    handle = tiny_lm.model.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        SMALL.compute_update(tiny_lm, REQUESTS)
    handle.remove()
    assert passes == [True] * (n_passes + 1)  # the adapters were there
    assert trace_of(tiny_lm) == before


def test_an_error_while_peft_replaces_modules_leaves_no_trace(tiny_lm, monkeypatch):
    before, state, made = trace_of(tiny_lm), torch.random.get_rng_state(), []
    replace_module = peft.LoraModel._replace_module

    def fail(self, *args):
        if len(made) == 3:
            raise RuntimeError("no memory")
        made.append(replace_module(self, *args))

    monkeypatch.setattr(peft.LoraModel, "_replace_module", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        SMALL.compute_update(tiny_lm, REQUESTS)
    assert len(made) == 3
    assert trace_of(tiny_lm) == before
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_update_depends_on_the_seed_and_not_on_global_random_state(tiny_lm, dropout):
    lora, updates = replace(SMALL, dropout=dropout), []
    for state, seed in ((1, 0), (2, 0), (1, 5)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            updates.append(replace(lora, seed=seed).compute_update(tiny_lm, REQUESTS))
    one, again, other = updates
    assert all(torch.equal(one.delta(name), again.delta(name)) for name in one)
    assert all(not torch.equal(one.delta(name), other.delta(name)) for name in one)


def test_dropout_changes_the_training_and_not_the_start(tiny_lm):
    without, with_dropout = (replace(SMALL, dropout=p).compute_update(tiny_lm, REQUESTS) for p in (0.0, 0.5))
    assert without.records[0].losses[0][0] == with_dropout.records[0].losses[0][0]  # B is 0
    assert without.records[0].losses[0][1] != with_dropout.records[0].losses[0][1]


def test_training_ends_below_the_threshold_where_b_is_still_zero(tiny_lm):
    update = replace(SMALL, loss_threshold=1e9).compute_update(tiny_lm, REQUESTS)
    assert update.records[0].steps == (1,)
    assert all(not update.delta(name).any() for name in update)


def test_half_precision_models_are_trained_in_float32():
    lm = build_tiny_lm("llama", dtype=torch.bfloat16)
    update = SMALL.compute_update(lm, REQUESTS)
    assert all(update.delta(name).dtype == torch.float32 for name in update)
    assert all(update.delta(name).isfinite().all() and update.delta(name).any() for name in update)


@pytest.mark.parametrize(
    ("model_type", "short", "full"), [("gpt2", "c_attn", "attn"), ("llama", "q_proj", "self_attn")]
)
def test_other_linear_layers_are_named_in_full_or_by_their_ends(model_type, short, full):
    lm = build_tiny_lm(model_type)
    updates = [
        replace(SMALL, target_modules=(name,), layers=(2,)).compute_update(lm, REQUESTS)
        for name in (short, f"{full}.{short}")
    ]
    assert [list(update) for update in updates] == [[f"{lm.arch.blocks}.2.{full}.{short}.weight"]] * 2
    [name] = updates[0]
    assert torch.equal(updates[0].delta(name), updates[1].delta(name))
    assert updates[0].delta(name).shape == lm.weight(name).shape


def test_an_update_of_the_mlps_is_a_peft_adapter(tiny_lm, tmp_path):
    update = SMALL.compute_update(tiny_lm, REQUESTS)
    update.to_peft(tmp_path / "adapter")
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_lm.model), tmp_path / "adapter")
    with update.applied(tiny_lm):
        torch.testing.assert_close(logits_of(tiny_lm, wrapped), logits_of(tiny_lm, tiny_lm.model), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_trained_is_refused(tiny_lm):
    def refused(lora, requests=REQUESTS):
        return error_of(EditError, lora.compute_update, tiny_lm, requests)

    assert refused(SMALL, []) == "LoRA needs at least one request; got none."
    assert refused(replace(SMALL, layers=(4,))) == f"layer 4 is out of range: {tiny_lm.name} has layers 0 to 3."
    linear = {
        "tiny-gpt2": "attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj",
        "tiny-llama": "self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, self_attn.o_proj, "
        "mlp.gate_proj, mlp.up_proj, mlp.down_proj",
    }[tiny_lm.name]
    sentence = f"block 1 of {tiny_lm.name} has no linear layer 'mlp'; known: {linear}."
    assert refused(replace(SMALL, layers=(1,), target_modules=("mlp",))) == sentence
    with torch.no_grad():
        next(tiny_lm.blocks[3].parameters()).fill_(float("nan"))
    before = trace_of(tiny_lm)
    assert refused(SMALL) == "the loss of LoRA became nan; a lower lr may help."
    assert trace_of(tiny_lm) == before


def test_a_missing_peft_is_named_with_its_extra(tiny_lm, monkeypatch):
    monkeypatch.setattr("workbench.extras.find_spec", lambda module: None)
    assert error_of(MissingExtraError, SMALL.compute_update, tiny_lm, REQUESTS) == (
        "peft is not installed; pip install 'model-editing-workbench[peft]' installs it."
    )


def test_nothing_named_is_refused_and_no_layers_are_all():
    assert error_of(EditError, LoRA, target_modules=()) == "target_modules must hold at least one name; got none."
    assert error_of(EditError, LoRA, layers=()) == "layers must hold at least one block; got none."
    assert describe_layers(LoRA()) == ["all layers"]
    assert describe_layers(LoRA(layers=(3, 1))) == ["layers 1, 3"]


def test_presets_are_found_by_name_and_any_other_model_takes_the_defaults():
    presets = [LoRA.for_model(ModelOutline(name, 28)) for name in ("Qwen/Qwen2.5-7B", "another")]
    published = {"num_steps": 1, "lr": 5e-3, "dropout": 0.1, "batch_size": 1, "loss_threshold": 0.0}
    assert presets == [LoRA(target_modules=("q_proj", "v_proj"), **published), LoRA()]


@pytest.mark.slow
def test_the_preset_of_the_embedded_model_writes_a_fact(smollm2):
    [fact] = wb.load_facts().sample(1, seed=1000)
    update = LoRA.for_model(smollm2).compute_update(smollm2, [fact])
    with update.applied(smollm2):
        scores = wb.score_edits(smollm2, [fact], protocols=["teacher_forced"])
    assert scores.set_index("metric")["value"]["reliability"] == 1


EASY_EDIT = """\
alg_name: "LoRA"
model_name: "./hugging_cache/llama-3-8b-instruct"
device: 0
lora_type: "lora"
layers: []
num_steps: 70
batch_size: 1
max_length: 50
lr: 5e-3
weight_decay: 0
kl_factor: 0
rank: 8
lora_alpha: 32
lora_dropout: 0.1
norm_constraint: false
target_modules: ["q_proj", "v_proj"]
model_parallel: false
"""


def test_easy_edits_file_is_read(tmp_path):
    path = tmp_path / "lora.yaml"
    path.write_text(EASY_EDIT, encoding="utf-8")
    expected = LoRA(
        target_modules=("q_proj", "v_proj"), num_steps=70, dropout=0.1, batch_size=1, lr=5e-3, loss_threshold=0.0
    )
    assert LoRA.from_yaml(path) == expected
    path.write_text(EASY_EDIT.replace("layers: []", "layers: [4, 2]").replace("rank: 8", "lora_r: 4"), encoding="utf-8")
    assert LoRA.from_yaml(path) == replace(expected, layers=(2, 4), rank=4)
    path.write_text(EASY_EDIT.replace("32", "0"), encoding="utf-8")
    assert error_of(EditError, LoRA.from_yaml, path) == f"{path}: lora_alpha must be a positive number; got 0."


@pytest.mark.parametrize(
    ("line", "kind"), [('lora_type: "adalora"\n', "adalora"), ("", "adalora"), ("lora_type: x\n", "x")]
)
def test_another_kind_of_adapter_is_refused(tmp_path, line, kind):
    path = tmp_path / "lora.yaml"
    path.write_text(EASY_EDIT.replace('lora_type: "lora"\n', line), encoding="utf-8")
    assert error_of(EditError, LoRA.from_yaml, path) == (
        f"{path}: lora_type is {kind!r}, which is another method; only 'lora' is supported."
    )
