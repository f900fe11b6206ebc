"""Files of MEND's networks and of EasyEdit's hyperparameters, what is refused, and the network that is shipped."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from tests.editing.mend.networks import REQUEST, fresh, shaken
from tests.helpers import error_of, target_nll
from tests.tiny_models import build_tiny_lm
from workbench.editing.mend import editor as mend_module
from workbench.editing.mend.editor import MEND
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import (
    facts_trained_on,
    largest_trained_batch,
    load_network,
    read_metadata,
    save_network,
)
from workbench.errors import EditError

SHIPPED = Path(mend_module.__file__).with_name("trained") / "mend-smollm2-135m.safetensors"


@pytest.fixture
def editor(tmp_path):
    """Give a function that saves networks for a model and makes the editor that uses them."""
    paths = iter(tmp_path / f"{i}.safetensors" for i in range(100))

    def make(lm, network=None, **fields) -> MEND:
        return MEND(network=str(save_network(network or fresh(lm), next(paths), lm)), **fields)

    return make


# files of networks


def test_networks_come_back_from_a_file(tiny_lm, tmp_path):
    network = shaken(tiny_lm)
    path = save_network(network, tmp_path / "mend.safetensors", tiny_lm, training={"steps": 3})
    loaded = load_network(path, tiny_lm)
    assert loaded.shapes == network.shapes
    state = loaded.state_dict()
    assert set(state) == set(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)
    assert read_metadata(path)["training"] == {"steps": 3}


def test_a_model_without_a_network_is_told_how_to_train_one(tiny_lm):
    assert MEND.for_model(tiny_lm) == MEND()
    sentence = (
        f"no MEND network is trained for {tiny_lm.name} (fingerprint {tiny_lm.fingerprint}); run `workbench train-mend "
        f"--model {tiny_lm.name} --out FILE` and give the file as network."
    )
    assert error_of(EditError, MEND().compute_update, tiny_lm, [REQUEST]) == sentence
    with pytest.raises(EditError) as caught:
        MEND().prepared(tiny_lm)
    assert str(caught.value) == sentence


def test_a_network_of_another_model_is_refused(tiny_lm, editor):
    mend, other = editor(tiny_lm), build_tiny_lm("qwen2")
    assert error_of(EditError, mend.compute_update, other, [REQUEST]) == (
        f"{mend.network} was trained for {tiny_lm.name} (fingerprint {tiny_lm.fingerprint}), not for tiny-qwen2 "
        f"(fingerprint {other.fingerprint}); train one with `workbench train-mend`."
    )


def test_a_file_that_holds_no_network_is_refused(tiny_lm, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    assert error_of(EditError, MEND(network=str(path)).compute_update, tiny_lm, [REQUEST]) == (
        f"{path} is a safetensors file, but not a MEND network; `workbench train-mend` makes one."
    )
    missing = tmp_path / "missing.safetensors"
    sentence = error_of(EditError, MEND(network=str(missing)).compute_update, tiny_lm, [REQUEST])
    assert sentence.startswith(f"{missing} cannot be read as a MEND network (")
    assert sentence.endswith("); `workbench train-mend` makes one.")


def test_a_network_that_lacks_weights_is_refused(tiny_lm, tmp_path):
    network = fresh(tiny_lm)
    del network.log_edit_lr
    path = save_network(network, tmp_path / "mend.safetensors", tiny_lm)
    sentence = error_of(EditError, MEND(network=str(path)).compute_update, tiny_lm, [REQUEST])
    assert sentence.startswith(f"{path} is a damaged MEND network (")
    assert sentence.endswith("); train it again.")


def test_networks_with_one_changed_bit_are_refused(tiny_lm, tmp_path):
    path = save_network(fresh(tiny_lm), tmp_path / "mend.safetensors", tiny_lm)
    content = path.read_bytes()
    path.write_bytes(content[:-100] + bytes([content[-100] ^ 4]) + content[-99:])
    assert error_of(EditError, load_network, path, tiny_lm) == (
        f"{path} is a damaged MEND network (its checksum is not that of its content); train it again."
    )


def test_a_file_from_before_the_exponents_holds_sums(tiny_lm, tmp_path):
    network = shaken(tiny_lm)
    expected = {name: tensor for name, tensor in network.state_dict().items() if name != "batch_exponent"}
    del network.batch_exponent
    loaded = load_network(save_network(network, tmp_path / "mend.safetensors", tiny_lm), tiny_lm).state_dict()
    assert not loaded.pop("batch_exponent").any()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("training", "largest"),
    [
        ({"largest_batch": 4, "settings": {"batch_sizes": [1, 10]}}, 4),  # 10 did not fit the training facts
        ({"settings": {"batch_sizes": [1, 10, 2]}}, 10),
        ({"settings": {}}, None),
        (None, None),
    ],
)
def test_the_largest_trained_batch_is_read_from_the_record_of_the_training(tiny_lm, tmp_path, training, largest):
    path = save_network(fresh(tiny_lm), tmp_path / "mend.safetensors", tiny_lm, training=training)
    assert largest_trained_batch(read_metadata(path)) == largest


# bad hyperparameters


def test_no_request_is_refused(tiny_lm, editor):
    sentence = error_of(EditError, editor(tiny_lm).compute_update, tiny_lm, [])
    assert sentence == "MEND needs at least one request; got none."


def test_a_matrix_that_the_network_is_not_for_is_named(tiny_lm, editor):
    mend = editor(tiny_lm, inner_params=["lm_head.weight"])
    assert error_of(EditError, mend.compute_update, tiny_lm, [REQUEST]) == (
        f"{mend.network} has no network for 'lm_head.weight'; it has: {', '.join(weights_to_edit(tiny_lm))}."
    )


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_lr_scale_must_be_positive(value):
    with pytest.raises(EditError) as caught:
        MEND(lr_scale=value)
    assert str(caught.value) == f"lr_scale must be a positive number; got {value}."


def test_how_larger_batches_are_taken_must_be_one_of_the_two_ways():
    with pytest.raises(EditError) as caught:
        MEND(larger_batches="mean")
    assert str(caught.value) == "larger_batches must be 'scaled' or 'summed'; got 'mean'."


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rank": 0}, "rank must be at least 1 and edit_lr positive; got 0 and 0.01."),
        ({"edit_lr": -1.0}, "rank must be at least 1 and edit_lr positive; got 4 and -1.0."),
    ],
)
def test_networks_need_a_rank_and_a_rate(tiny_lm, settings, sentence):
    with pytest.raises(EditError) as caught:
        fresh(tiny_lm, **settings)
    assert str(caught.value) == sentence


def test_a_layer_out_of_range_is_named(tiny_lm):
    with pytest.raises(EditError) as caught:
        weights_to_edit(tiny_lm, [1, 7])
    assert str(caught.value) == f"layer 7 is out of range: {tiny_lm.name} has layers 0 to 3."


# EasyEdit's files

PUBLISHED = """\
archive: ./results/models/MEND/llama-2-7b-ZsRE
alg_name: "MEND"
device: 1
model_name: ./hugging_cache/llama-2-7b
model_class: LlamaForCausalLM
tokenizer_class: LlamaTokenizer
tokenizer_name: ./hugging_cache/llama-2-7b
inner_params:
- model.layers.31.mlp.up_proj.weight
- model.layers.31.mlp.down_proj.weight
alg: MEND
lr: 1e-6
edit_lr: 1e-4
lr_lr: 1e-4
lr_scale: 1.0
seed: 42
cedit: 0.1
cloc: 1.0
cbase: 1.0
dropout: 0.0
train_base: False
no_grad_layers: null
one_sided: False
n_hidden: 1
hidden_dim: null
init: id
norm: True
combine: True
x_only: False
delta_only: False
act: relu
rank: 1920
mlp_class: IDMLP
shared: True
batch_size: 1
model_save_pt: 5000
silent: False
max_iters: 100000
log_interval: 1000
eval_log_interval: 1000
final_eval: True
val_interval: 1000
early_stop_patience: 20000
early_stop_key: "loss/total_edit_val"
eval_only: True
half: False
debug: False
save: False
verbose: True
val_batch_size: 5
accumulate_bs: 10
val_steps: 500
opt: Adam
grad_clip: 100.
results_dir: ./results
"""


def test_the_published_file_is_read(tmp_path):
    path = tmp_path / "llama-7b.yaml"
    path.write_text(PUBLISHED, encoding="utf-8")
    assert MEND.from_yaml(path) == MEND(
        lr_scale=1.0, inner_params=("model.layers.31.mlp.up_proj.weight", "model.layers.31.mlp.down_proj.weight")
    )


def test_a_field_that_is_not_known_is_named(tmp_path):
    path = tmp_path / "mend.yaml"
    path.write_text("alg_name: MEND\nlr_scale: 2\nspeed: 3\n", encoding="utf-8")
    with pytest.raises(EditError) as caught:
        MEND.from_yaml(path)
    assert str(caught.value) == f"{path}: field 'speed' is not known for MEND; known: inner_params, lr_scale."


# the network that comes with the package


def test_the_shipped_network_is_small_and_says_how_it_was_made():
    assert SHIPPED.stat().st_size <= 5e6
    training = read_metadata(SHIPPED)["training"]
    assert training["command"].startswith("workbench train-mend ")
    assert training["n_test"] == 100
    assert training["settings"]["seed"] == 0
    assert {row["facts"] for row in training["success"]} >= {"train", "validation", "test"}


def test_the_shipped_network_lists_its_test_facts_and_was_trained_on_none_of_them():
    metadata = read_metadata(SHIPPED)
    listed, seen = metadata["training"]["facts"]["test"], facts_trained_on(metadata)
    assert len(set(listed)) == metadata["training"]["n_test"] == 100
    assert len(seen) == metadata["training"]["n_train"] + metadata["training"]["n_validation"]
    assert not seen & set(listed)
    assert set(listed) <= {request.filled_prompt for request in wb.load_facts().requests}
    assert largest_trained_batch(metadata) >= 10


def shipped_test_facts(n):
    """Return the first `n` of the facts that the shipped network was tested on, whatever else the bundle holds."""
    bundled = {request.filled_prompt: request for request in wb.load_facts().requests}
    return [bundled[prompt] for prompt in read_metadata(SHIPPED)["training"]["facts"]["test"][:n]]


@pytest.mark.slow
def test_the_embedded_model_is_edited_out_of_the_box(smollm2):
    held_out = shipped_test_facts(5)
    mend, values = MEND.for_model(smollm2), []
    for request in held_out:
        with mend.compute_update(smollm2, [request]).applied(smollm2):
            values.append(wb.score_edits(smollm2, [request], protocols=["teacher_forced"]))
    mean = {
        metric: sum(float(v[v["metric"] == metric]["value"].iloc[0]) for v in values) / 5
        for metric in ("reliability", "locality")
    }
    assert mean["reliability"] > 0.8
    assert mean["locality"] > 0.5  # of near neighbors; an edit that ruins the model leaves next to none


@pytest.mark.slow
def test_a_batch_of_facts_is_written_into_the_embedded_model_at_once(smollm2):
    held_out = shipped_test_facts(5)
    before = [float(target_nll(smollm2, request)) for request in held_out]
    update = MEND.for_model(smollm2).compute_update(smollm2, list(held_out))
    with update.applied(smollm2):
        after = [float(target_nll(smollm2, request)) for request in held_out]
    assert len(update.records) == 1
    assert all(a < b for a, b in zip(after, before, strict=True))
