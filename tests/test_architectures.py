"""Each row gives the names and orientation of a family's MLP weights, checked on a tiny model of the family."""

import pytest
import torch
from transformers import BloomConfig

from tests.tiny_models import D_FF, D_MODEL, MODEL_TYPES
from workbench.architectures import ARCHITECTURES, architecture_of
from workbench.errors import ModelError


def key_and_value(lm, layer):
    """Return input and output of the MLP's output projection at the last token of a text, from a hook."""
    seen = {}

    def look(module, args, output):
        seen["key"], seen["value"] = args[0].reshape(-1, args[0].shape[-1])[-1], output.reshape(-1, D_MODEL)[-1]

    handle = lm.mlp_out(layer).register_forward_hook(look)
    with torch.no_grad():
        lm.model(**lm.tokenizer("The Louvre is in the city of", return_tensors="pt", return_token_type_ids=False))
    handle.remove()
    return seen["key"], seen["value"]


def test_every_model_type_has_one_row():
    assert len(MODEL_TYPES) == len(set(MODEL_TYPES)) == 12


def test_the_row_is_found_by_the_model_type(every_tiny_lm):
    assert every_tiny_lm.model.config.model_type in architecture_of(every_tiny_lm.model.config).model_types


def test_the_blocks_of_the_row_are_all_decoder_blocks_in_order(every_tiny_lm):
    lm = every_tiny_lm
    blocks = lm.model.get_submodule(lm.arch.blocks)
    assert len(blocks) == lm.model.config.num_hidden_layers == 4
    seen = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: seen.append(i))
        for i, block in enumerate(lm.model.get_submodule(lm.arch.block(i)) for i in range(4))
    ]
    lm.model(torch.tensor([[5, 6, 7]]))
    for handle in handles:
        handle.remove()
    assert seen == [0, 1, 2, 3]


def test_the_input_projections_of_the_row_read_the_residual_width_and_write_the_inner_one(every_tiny_lm):
    lm = every_tiny_lm
    widths = []
    for name in lm.arch.mlp_in:
        weight = lm.model.get_submodule(f"{lm.arch.block(2)}.{name}").weight
        n_in, n_out = weight.shape if lm.arch.conv1d else weight.T.shape
        assert n_in == D_MODEL
        widths.append(n_out)
    gated = "gate" in lm.arch.mlp_in[0]
    assert sum(widths) == (2 * D_FF if gated else D_FF)


def test_the_weight_has_the_orientation_of_the_row(every_tiny_lm):
    lm = every_tiny_lm
    for layer in range(lm.n_layers):
        key, value = key_and_value(lm, layer)
        weight = lm.model.get_parameter(lm.arch.mlp_out_weight(layer))
        bias = lm.mlp_out(layer).bias if lm.arch.mlp_bias else 0
        product = key @ weight if lm.arch.conv1d else weight @ key
        torch.testing.assert_close(product + bias, value, rtol=1e-5, atol=1e-5)


def test_the_row_says_whether_the_projections_have_biases(every_tiny_lm):
    lm = every_tiny_lm
    for name in (*lm.arch.mlp_in, lm.arch.mlp_out):
        has_bias = getattr(lm.model.get_submodule(f"{lm.arch.block(1)}.{name}"), "bias", None) is not None
        assert has_bias is lm.arch.mlp_bias


def test_the_inner_width_need_not_be_four_times_the_residual_width(every_tiny_lm):
    key, value = key_and_value(every_tiny_lm, 0)
    assert (len(key), len(value)) == (D_FF, D_MODEL)
    assert D_FF != 4 * D_MODEL


def test_an_unknown_family_is_named_with_the_known_ones():
    with pytest.raises(ModelError) as caught:
        architecture_of(BloomConfig(architectures=["BloomForCausalLM"]))
    assert str(caught.value) == (
        "No architecture row for 'BloomForCausalLM' (model_type 'bloom'); known: GPT-2, GPT-J, GPT-NeoX/Pythia, OPT, "
        "Llama, Mistral, Qwen2, Qwen3, Gemma 2, Gemma 3, Phi, Phi-3; docs/adding-a-model.md says how to add one."
    )


def test_an_unknown_family_without_a_class_name_is_named_by_its_model_type():
    with pytest.raises(ModelError, match=r"^No architecture row for 'bloom' \(model_type 'bloom'\); known: GPT-2, "):
        architecture_of(BloomConfig())


def test_module_names_are_built_from_the_row():
    gpt2, llama = ARCHITECTURES[0], next(row for row in ARCHITECTURES if row.name == "Llama")
    assert gpt2.mlp_out_weight(17) == "transformer.h.17.mlp.c_proj.weight"
    assert llama.mlp_out_weight(5) == "model.layers.5.mlp.down_proj.weight"
