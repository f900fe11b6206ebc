"""The benchmark of seconds and memory by model and method, on its smallest shape."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.sizes import GIB, SHAPES, config_of, measure_edit

# as published: EleutherAI (gpt-j-6b), Touvron et al. 2023 (llama-7b), and the checkpoints of GPT-2
N_PARAMETERS = {"gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "gpt-j-6b": 6_050_882_784, "llama-7b": 6_738_415_616}


@pytest.mark.parametrize("model", N_PARAMETERS)
def test_shapes_have_the_published_numbers_of_parameters(model):
    assert set(SHAPES) == {*N_PARAMETERS, "tiny"}
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config_of(model))
    assert sum(parameter.numel() for parameter in network.parameters()) == N_PARAMETERS[model]


def test_an_edit_is_measured():
    measured = measure_edit("tiny", "rome", "bfloat16")
    d_model, d_ff, n_layers, vocabulary = 32, 64, 8, config_of("tiny").vocab_size
    n_parameters = n_layers * (4 * d_model**2 + 3 * d_model * d_ff + 2 * d_model) + 2 * vocabulary * d_model + d_model
    assert measured["weights"] == pytest.approx(2 * n_parameters / GIB)
    assert measured["seconds"] > 0
    assert measured["peak"] > measured["weights"]
    assert measured["above"] >= 0
