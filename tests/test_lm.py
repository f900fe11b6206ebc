"""Loading says what is wrong in one sentence; what is applied can be lifted and undone to the last bit."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from tests.helpers import assert_same_bits, error_of, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.errors import EditError, ModelError, RequestError, UpdateError, WeightsChangedError
from workbench.evaluation.decoding import continue_greedily
from workbench.forward import compute_logits
from workbench.lm import DTYPES

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture
def folder(tmp_path) -> Path:
    """Give the folder of a saved tiny Llama."""
    return save(build_tiny_lm("llama"), tmp_path / "tiny")


def save(lm, folder):
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def loading_error(*args, **kwargs):
    """Return the one-line message with which loading fails."""
    sentence = error_of(ModelError, wb.load, *args, **kwargs)
    assert len(sentence.splitlines()) == 1
    return sentence


def folder_error(folder, reason_start):
    """Check the sentence about a damaged folder, which quotes what transformers or safetensors says."""
    sentence = loading_error(str(folder))
    assert sentence.startswith(f"the model folder {folder} cannot be loaded ({reason_start}")
    assert sentence.endswith("); it must hold config.json, weights and tokenizer.")


def an_update(lm, layer=1, seed=0, scale=0.1):
    """A dense random update of one layer, whose bits do not survive adding and subtracting."""
    name = lm.arch.mlp_out_weight(layer)
    noise = torch.randn(lm.weight(name).shape, generator=torch.Generator().manual_seed(seed))
    return wb.WeightUpdate({name: scale * noise})


def test_a_saved_model_of_every_family_loads_with_the_same_bits(every_tiny_lm, tmp_path):
    loaded = wb.load(str(save(every_tiny_lm, tmp_path / "tiny")), device="cpu")
    assert_same_bits(loaded, weights_of(every_tiny_lm))
    assert loaded.arch == every_tiny_lm.arch
    assert loaded.fingerprint == every_tiny_lm.fingerprint
    text = "The Eiffel Tower is in Rome"
    assert loaded.tokenizer(text)["input_ids"] == every_tiny_lm.tokenizer(text)["input_ids"]


def test_a_loaded_model_is_in_eval_mode_without_gradients(folder):
    lm = wb.load(str(folder))
    assert not any(module.training for module in lm.model.modules())
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


def test_loading_leaves_the_global_random_state(folder):
    before = torch.random.get_rng_state()
    wb.load(str(folder))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", DTYPES)
def test_a_dtype_may_be_given_by_name_or_as_itself(folder, name):
    assert wb.load(str(folder), dtype=name).model.dtype == DTYPES[name]
    assert wb.load(str(folder), dtype=DTYPES[name]).model.dtype == DTYPES[name]


def test_half_precision_is_announced(folder, caplog):
    with caplog.at_level(logging.WARNING, logger="workbench.lm"):
        wb.load(str(folder), dtype="bfloat16")
    assert caplog.messages == [
        f"{folder} is loaded in torch.bfloat16: changes below its rounding are invisible to the model."
    ]


def test_a_device_map_is_passed_on(folder):
    assert wb.load(str(folder), device_map="cpu").device == torch.device("cpu")


def test_a_name_that_is_nowhere_is_refused():
    sentence = loading_error("no-such-model")
    assert sentence.startswith(
        "no model 'no-such-model': it is neither an embedded model (smollm2-135m, gemma3-270m), nor a folder, nor a "
        "hub id that can be reached ("
    )
    assert sentence.endswith(").")


def test_device_and_device_map_exclude_each_other():
    sentence = loading_error("no-such-model", device="cpu", device_map="auto")
    assert sentence == "give device or device_map, not both: device puts the whole model in one place."


@pytest.mark.parametrize("dtype", ["int8", torch.int8])
def test_an_unknown_dtype_is_refused(dtype):
    assert loading_error("no-such-model", dtype=dtype) == (
        f"dtype {dtype!r} is unknown; known: float32, float16, bfloat16, float64."
    )


def test_an_unknown_device_is_refused(folder):
    sentence = loading_error(str(folder), device="abacus")
    assert sentence.startswith(f"{folder} cannot be put on device 'abacus' (Expected one of cpu, cuda, ")
    assert sentence.endswith(").")


def test_truncated_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])
    folder_error(folder, "Error while deserializing header: ")


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_folder_with_only_a_pickle_is_refused_unread(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Canary(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert loading_error(str(folder)) == (
        f"the model folder {folder} has its weights only as a pickle (pytorch_model.bin), which may run code when it "
        "is read; if you trust it, transformers' AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder) "
        "writes them as safetensors."
    )
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_not_read(folder, tmp_path):
    expected = weights_of(wb.load(str(folder)))
    torch.save({"lm_head.weight": Canary(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert_same_bits(wb.load(str(folder)), expected)
    assert not (tmp_path / "ran").exists()


def test_a_folder_with_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert loading_error(str(folder)) == (
        f"the model folder {folder} holds a PEFT adapter (adapter_config.json), which would be added to its weights; "
        "merge it into the model (merge_and_unload of peft), and save that."
    )


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    folder_error(folder, "Error no file named model.safetensors")


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", "null", "7", "{" * 100_000, "\xff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_settings_that_are_no_json_object_are_named(folder, name, content):
    (folder / name).write_text(content, encoding="latin-1")
    assert re.fullmatch(
        rf"{folder / name} (cannot be read as JSON \(.+\); get the file again|must hold a JSON object; got .+)\.",
        loading_error(str(folder)),
    )


@pytest.mark.parametrize(("content", "reason"), [(None, "Unrecognized model"), ("{}", "Unrecognized model")])
def test_a_missing_or_empty_config_is_refused(folder, content, reason):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    folder_error(folder, reason)


def test_a_folder_without_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    folder_error(folder, "")


def test_a_weight_that_the_checkpoint_lacks_is_named_and_never_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert loading_error(str(folder)) == (
        f"the checkpoint of {folder} lacks 1 of the model's weights, among them model.layers.1.mlp.down_proj.weight; "
        "get the whole checkpoint."
    )


def test_a_weight_of_another_shape_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    folder_error(folder, "")


def test_a_model_without_fast_tokenizer_is_refused(tiny_lm):
    with pytest.raises(ModelError) as caught:
        replace(tiny_lm, tokenizer=SimpleNamespace(is_fast=False))
    assert str(caught.value) == (
        f"{tiny_lm.name} has no fast tokenizer, and token offsets are needed to find the subject; "
        "convert it with transformers' AutoTokenizer first."
    )


def test_the_number_of_layers_is_that_of_the_config(every_tiny_lm):
    assert every_tiny_lm.n_layers == every_tiny_lm.model.config.num_hidden_layers == 4


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_out_of_range_is_refused(tiny_lm, layer):
    for ask in (tiny_lm.check_layer, tiny_lm.mlp_out):
        with pytest.raises(EditError) as caught:
            ask(layer)
        assert str(caught.value) == f"layer {layer} is out of range: {tiny_lm.name} has layers 0 to 3."


def test_an_unknown_parameter_is_refused(tiny_lm):
    with pytest.raises(UpdateError) as caught:
        tiny_lm.weight("model.layers.9.mlp.weight")
    assert str(caught.value) == (
        f"{tiny_lm.name} has no parameter 'model.layers.9.mlp.weight'; the update is of another model."
    )


def test_the_fingerprint_is_the_same_in_float32_float64_and_bfloat16(folder):
    prints = {wb.load(str(folder), dtype=dtype).fingerprint for dtype in ("float32", "float64", "bfloat16")}
    assert len(prints) == 1
    assert len(prints.pop()) == 16


def test_the_fingerprint_tells_checkpoints_apart(every_tiny_lm):
    other = build_tiny_lm(every_tiny_lm.model.config.model_type, seed=1)
    assert other.fingerprint != every_tiny_lm.fingerprint


def test_the_fingerprint_stays_while_an_update_is_applied(tiny_lm):
    fingerprint = tiny_lm.fingerprint
    with an_update(tiny_lm, scale=1.0).applied(tiny_lm):
        assert tiny_lm.fingerprint == fingerprint


def test_apply_adds_the_change_to_its_weight_alone(tiny_lm):
    update, before = an_update(tiny_lm), weights_of(tiny_lm)
    (name,) = update
    update.apply(tiny_lm)
    assert_same_bits(tiny_lm, before | {name: before[name] + update.delta(name)})


def test_undo_restores_every_bit(every_tiny_lm):
    lm, update = every_tiny_lm, an_update(every_tiny_lm)
    (name,) = update
    before, logits = weights_of(lm), lm.model(IDS).logits
    assert not torch.equal(before[name] + update.delta(name) - update.delta(name), before[name])  # or it is no test
    update.apply(lm)
    assert not torch.equal(lm.model(IDS).logits, logits)
    update.undo(lm)
    assert_same_bits(lm, before)
    assert torch.equal(lm.model(IDS).logits, logits)


def test_two_stacked_updates_are_undone_bit_by_bit(tiny_lm):
    first, second, original = an_update(tiny_lm, seed=1), an_update(tiny_lm, seed=2), weights_of(tiny_lm)
    first.apply(tiny_lm)
    between = weights_of(tiny_lm)
    second.apply(tiny_lm)
    assert tiny_lm.applied_updates == (first, second)
    second.undo(tiny_lm)
    assert_same_bits(tiny_lm, between)
    first.undo(tiny_lm)
    assert_same_bits(tiny_lm, original)
    assert tiny_lm.applied_updates == ()


def test_undoing_out_of_order_is_refused_and_changes_nothing(tiny_lm):
    first, second = an_update(tiny_lm, seed=1), an_update(tiny_lm, seed=2)
    first.apply(tiny_lm)
    second.apply(tiny_lm)
    before = weights_of(tiny_lm)
    with pytest.raises(UpdateError) as caught:
        first.undo(tiny_lm)
    assert str(caught.value) == (
        f"another update was applied to {tiny_lm.name} after this one; undo the last one first."
    )
    assert_same_bits(tiny_lm, before)
    assert tiny_lm.applied_updates == (first, second)


def test_undoing_what_is_not_applied_is_refused(tiny_lm):
    with pytest.raises(UpdateError) as caught:
        an_update(tiny_lm).undo(tiny_lm)
    assert str(caught.value) == f"this update is not applied to {tiny_lm.name}; apply it before undoing it."


@pytest.mark.parametrize("leave_by_error", [False, True])
def test_restored_after_undoes_whatever_was_applied_inside(tiny_lm, leave_by_error):
    kept = an_update(tiny_lm, seed=1)
    kept.apply(tiny_lm)
    before = weights_of(tiny_lm)
    try:
        with tiny_lm.restored_after():
            an_update(tiny_lm, seed=2).apply(tiny_lm)
            an_update(tiny_lm, layer=2, seed=3).apply(tiny_lm)
            if leave_by_error:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert_same_bits(tiny_lm, before)
    assert tiny_lm.applied_updates == (kept,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("leave_by_error", [False, True])
def test_unedited_gives_the_original_bits_inside_and_the_edited_ones_after(dtype, leave_by_error):
    lm = build_tiny_lm("gpt2", dtype=dtype)
    original, updates = weights_of(lm), [an_update(lm, seed=1), an_update(lm, seed=2), an_update(lm, layer=3)]
    for update in updates:
        update.apply(lm)
    edited, inside = weights_of(lm), None
    try:
        with lm.unedited():
            inside = weights_of(lm)
            if leave_by_error:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert_same_bits(lm, edited)
    for name, weight in inside.items():
        assert torch.equal(weight, original[name])
    for update in reversed(updates):
        update.undo(lm)
    assert_same_bits(lm, original)


def test_the_weight_before_each_update_is_remembered(tiny_lm):
    first, second = an_update(tiny_lm, seed=1), an_update(tiny_lm, seed=2)
    (name,) = first
    original = tiny_lm.weight(name).clone()
    first.apply(tiny_lm)
    second.apply(tiny_lm)
    assert torch.equal(tiny_lm.weight_before(name, first), original)
    assert torch.equal(tiny_lm.weight_before(name, second), original + first.delta(name))
    assert torch.equal(tiny_lm.unedited_weight(name), original)
    assert torch.equal(tiny_lm.weight_before(name, an_update(tiny_lm)), tiny_lm.weight(name))


def test_updates_below_the_rounding_of_half_precision_add_up():
    lm = build_tiny_lm("gpt2", dtype=torch.bfloat16)
    name = lm.arch.mlp_out_weight(1)
    original = lm.model.get_parameter(name).detach().clone()
    step = original.float() * 2**-12  # an eighth of what bfloat16 can show
    for n in range(1, 65):
        wb.WeightUpdate({name: step}).apply(lm)
        if n == 1:
            assert torch.equal(lm.model.get_parameter(name), original)
    expected = original.double() * (1 + 64 * 2**-12)
    torch.testing.assert_close(lm.weight(name).double(), expected, rtol=1e-5, atol=0)
    assert torch.equal(lm.model.get_parameter(name), lm.weight(name).to(torch.bfloat16))
    assert not torch.equal(lm.model.get_parameter(name), original)


def test_undo_in_half_precision_restores_the_bits_and_the_float32_masters():
    lm = build_tiny_lm("gpt2", dtype=torch.bfloat16)
    first, second, original = an_update(lm, seed=1, scale=1e-3), an_update(lm, seed=2, scale=1e-3), weights_of(lm)
    (name,) = first
    first.apply(lm)
    master, between = lm.weight(name).clone(), weights_of(lm)
    assert master.dtype == torch.float32
    second.apply(lm)
    second.undo(lm)
    assert torch.equal(lm.weight(name), master)
    assert_same_bits(lm, between)
    first.undo(lm)
    assert_same_bits(lm, original)
    assert lm.weight(name).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_those_that_were_loaded_whatever_is_applied(dtype):
    lm = build_tiny_lm("gpt2", dtype=dtype)
    lm.check_unedited_weights()
    with an_update(lm, seed=1).applied(lm), an_update(lm, seed=2).applied(lm):
        lm.check_unedited_weights()
        with lm.unedited():
            lm.check_unedited_weights()


def test_one_changed_bit_of_a_weight_is_noticed(every_tiny_lm):
    lm = every_tiny_lm
    for name, parameter in lm.model.named_parameters():
        before, bits = parameter.detach().clone(), parameter.data.view(-1).view(torch.int32)
        bits[-1] ^= 1
        assert error_of(WeightsChangedError, lm.check_unedited_weights) == (
            f"the weight {name} of {lm.name} is not the one that was loaded, although no update accounts for it; "
            "load the model again."
        )
        parameter.data.copy_(before)
    lm.check_unedited_weights()


@pytest.mark.parametrize("model_type", ["gpt2", "gptj", "opt"])
def test_a_text_longer_than_the_table_of_positions_is_refused_by_length(model_type):
    lm = build_tiny_lm(model_type)
    prompt = "The Eiffel Tower is in the city of Paris, and " * 80
    request = wb.EditRequest("Paris", prompt + "{} is in", "Spain")
    n_tokens = len(lm.tokenizer(f"{request.filled_prompt} Spain")["input_ids"])
    acts = {
        "ROME": lambda: wb.ROME(layer=1, contexts=("{}",)).compute_update(lm, [request]),
        "KN": lambda: wb.KN(contexts=("{}",)).compute_update(lm, [request]),
        "FT": lambda: wb.FT(layers=(1,)).compute_update(lm, [request]),
        "evaluate": lambda: wb.evaluate_edits(lm, [request]),
    }
    pattern = rf"a text of (\d+) tokens is too long for {lm.name}, which has 512 positions; shorten it."
    for name, act in acts.items():
        found = re.fullmatch(pattern, error_of(RequestError, act))
        assert found, name
        assert n_tokens - 8 <= int(found[1]) <= n_tokens  # some passes leave out the tokens of the answer


@pytest.mark.parametrize("model_type", ["gpt2", "opt"])
def test_writing_beyond_the_table_of_positions_is_refused(model_type):
    lm = build_tiny_lm(model_type)
    ids, written = (7,) * 510, continue_greedily
    assert len(written(lm, [ids], [()], [2])[0]) <= 2
    assert error_of(RequestError, written, lm, [ids], [()], [4]) == (
        f"a text of 513 tokens is too long for {lm.name}, which has 512 positions; shorten it."
    )


def test_rotary_positions_have_no_end(every_tiny_lm):
    if not every_tiny_lm.arch.position_table:
        assert compute_logits(every_tiny_lm, [(7,) * 520], [(519,)]).isfinite().all()
