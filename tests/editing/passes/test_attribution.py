"""Integrated gradients against whole forward passes: a plain sum, the completeness axiom, finite differences."""

from functools import cache

import pytest
import torch

from tests.helpers import assert_same_bits, error_of, hooks_and_forwards, weights_of
from tests.references.plain_kn import activation_of, plain_scores, probability
from tests.tiny_models import D_FF, FLOAT32_INSIDE, MODEL_TYPES, N_LAYERS, build_tiny_lm
from workbench.editing.passes.attribution import Attribution, attribute_answers, attribute_tokens
from workbench.editing.passes.hooks import hooked
from workbench.encoding import Encoded
from workbench.errors import EditError

LENGTHS = (1, 5, 23)  # no prefix, and shorter and longer than the sliding windows
TOKEN = 77
NORM_AFTER_MLP = {"gemma2", "gemma3_text"}  # it undoes the scaling, so that P moves only where it begins


@cache
def double_lm(model_type):
    return build_tiny_lm(model_type, dtype=torch.float64)


def random_ids(n, seed=0):
    return tuple(torch.randint(4, 400, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


def attribute_token(lm, ids, token, *, steps):
    """Of one text."""
    [attribution] = attribute_tokens(lm, [ids], [token], steps=steps)
    return attribution


@pytest.mark.parametrize("n_tokens", LENGTHS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_scores_are_those_of_whole_forward_passes(model_type, n_tokens):
    lm, ids = double_lm(model_type), random_ids(n_tokens)
    attribution = attribute_token(lm, ids, TOKEN, steps=3)
    tolerance = 1e-4 if model_type in FLOAT32_INSIDE else 1e-9
    for layer in range(N_LAYERS):
        expected = plain_scores(lm, ids, TOKEN, layer, 3)
        assert (attribution.scores[layer] - expected).norm() < tolerance * expected.norm()
        torch.testing.assert_close(attribution.activations[layer], activation_of(lm, ids, layer), rtol=1e-4, atol=1e-6)


def difference_of_ends(lm, ids, layer):
    """P with the layer's activations as they are less P with none, by two whole passes."""
    activation = activation_of(lm, ids, layer)
    with torch.no_grad():
        return float(
            probability(lm, ids, TOKEN, layer, activation) - probability(lm, ids, TOKEN, layer, 0 * activation)
        )


@pytest.mark.parametrize("model_type", [m for m in MODEL_TYPES if m not in NORM_AFTER_MLP])
def test_a_layers_scores_sum_to_the_difference_that_its_activations_make(model_type):
    lm, ids = double_lm(model_type), random_ids(9)
    attribution = attribute_token(lm, ids, TOKEN, steps=1000)
    for layer in range(N_LAYERS):
        expected = difference_of_ends(lm, ids, layer)
        assert abs(expected) > 1e-9  # or there is nothing to complete
        assert float(attribution.scores[layer].sum()) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("model_type", sorted(NORM_AFTER_MLP))
def test_where_a_norm_follows_the_mlp_the_scores_sum_to_nothing(model_type):
    lm, ids = double_lm(model_type), random_ids(9)
    scores = attribute_token(lm, ids, TOKEN, steps=20).scores
    for layer in range(N_LAYERS):
        assert abs(float(scores[layer].sum())) < 0.05 * abs(difference_of_ends(lm, ids, layer))
        assert float(scores[layer].sum().abs()) < 0.05 * float(scores[layer].abs().max())


@pytest.mark.parametrize("layer", range(N_LAYERS))
@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "opt", "phi"])
def test_the_gradients_are_finite_differences(model_type, layer):
    lm, ids, eps = double_lm(model_type), random_ids(9), 1e-5
    scores = attribute_token(lm, ids, TOKEN, steps=1).scores[layer]
    activation = activation_of(lm, ids, layer)
    slopes = []
    with torch.no_grad():
        for i in range(D_FF):
            step = eps * torch.nn.functional.one_hot(torch.tensor(i), D_FF)
            up, down = (probability(lm, ids, TOKEN, layer, activation / 2 + side * step) for side in (1, -1))
            slopes.append((up - down) / (2 * eps))
    expected = activation * torch.stack(slopes)
    assert (scores - expected).norm() < 1e-6 * expected.norm()


def test_there_is_a_score_for_every_neuron_whatever_the_inner_width(every_tiny_lm):
    assert 4 * every_tiny_lm.model.config.hidden_size != D_FF
    attribution = attribute_token(every_tiny_lm, random_ids(4), TOKEN, steps=2)
    assert attribution.scores.shape == attribution.activations.shape == (N_LAYERS, D_FF)
    assert (attribution.scores != 0).any(dim=1).all()


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "phi"])
def test_an_answers_scores_are_the_mean_over_its_tokens_given_the_true_ones_before(model_type):
    lm, ids = double_lm(model_type), random_ids(8)
    [attribution] = attribute_answers(lm, [Encoded(ids, n_prompt=6)], steps=2)
    for layer in range(N_LAYERS):
        each = [plain_scores(lm, ids[:n], ids[n], layer, 2) for n in (6, 7)]
        torch.testing.assert_close(attribution.scores[layer], sum(each) / 2, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(attribution.activations[layer], activation_of(lm, ids[:6], layer))


def test_all_steps_of_a_layer_are_one_batch(every_tiny_lm):
    lm, sizes = every_tiny_lm, []
    with hooked(lm.model.get_output_embeddings(), lambda _, args: sizes.append(len(args[0])), before=True):
        attribute_token(lm, random_ids(6), TOKEN, steps=7)
    assert sizes[-N_LAYERS:] == [7] * N_LAYERS
    assert all(size == 0 for size in sizes[:-N_LAYERS])  # no logits are read before


def test_texts_of_other_lengths_in_the_batch_change_no_score(every_tiny_lm):
    texts, tokens = [random_ids(n, seed=n) for n in (3, 12, 7)], [TOKEN, 8, 60]
    together = attribute_tokens(every_tiny_lm, texts, tokens, steps=3)
    for attribution, ids, token in zip(together, texts, tokens, strict=True):
        alone = attribute_token(every_tiny_lm, ids, token, steps=3)
        scale = alone.scores.abs().max()
        torch.testing.assert_close(attribution.scores / scale, alone.scores / scale, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(attribution.activations, alone.activations, rtol=1e-4, atol=1e-5)


def test_many_answers_are_attributed_as_each_alone(tiny_lm):
    texts = [Encoded(random_ids(n, seed=n), n_prompt=n - 2) for n in range(4, 10)]  # more tokens than share a pass
    for attribution, text in zip(attribute_answers(tiny_lm, texts, steps=2), texts, strict=True):
        [alone] = attribute_answers(tiny_lm, [text], steps=2)
        scale = alone.scores.abs().max()
        torch.testing.assert_close(attribution.scores / scale, alone.scores / scale, rtol=1e-4, atol=1e-5)


def test_coarse_neurons_score_above_a_share_of_the_highest_of_all_layers():
    scores = torch.tensor([[1.0, 0.21, -3.0], [0.2, 0.19, 0.5]])
    coarse = Attribution(scores, torch.ones(2, 3)).coarse_neurons(0.2)
    assert coarse.tolist() == [[True, True, False], [False, False, True]]
    assert not Attribution(-scores.abs(), torch.ones(2, 3)).coarse_neurons(0.2).any()


def test_it_works_where_gradients_are_switched_off(tiny_lm):
    scores = attribute_token(tiny_lm, random_ids(5), TOKEN, steps=2).scores
    with torch.no_grad():
        assert torch.equal(attribute_token(tiny_lm, random_ids(5), TOKEN, steps=2).scores, scores)


def test_the_model_is_unchanged(every_tiny_lm):
    lm = every_tiny_lm
    before, weights = hooks_and_forwards(lm), weights_of(lm)
    state = torch.random.get_rng_state()
    attribute_token(lm, random_ids(12), TOKEN, steps=2)
    assert hooks_and_forwards(lm) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_same_bits(lm, weights)
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_the_model_is_unchanged_when_a_pass_is_interrupted(every_tiny_lm):
    lm, calls = every_tiny_lm, []
    before = hooks_and_forwards(lm)

    def break_off(module, args):
        calls.append(1)
        if len(calls) == 4:  # past the passes that cache, within those of the layers
            raise KeyboardInterrupt

    with hooked(lm.blocks[-1], break_off, before=True), pytest.raises(KeyboardInterrupt):
        attribute_token(lm, random_ids(12), TOKEN, steps=2)
    assert hooks_and_forwards(lm) == before


def test_a_half_precision_model_gets_float32_scores():
    lm, half = build_tiny_lm("llama"), build_tiny_lm("llama", dtype=torch.bfloat16)
    expected = attribute_token(lm, random_ids(6), TOKEN, steps=10).scores
    scores = attribute_token(half, random_ids(6), TOKEN, steps=10).scores
    assert scores.dtype == torch.float32
    assert float((scores * expected).sum() / scores.norm() / expected.norm()) > 0.9


def test_scores_that_are_no_numbers_are_refused(tiny_lm):
    tiny_lm.model.get_parameter(tiny_lm.arch.mlp_out_weight(2)).data[0, 0] = float("nan")
    sentence = error_of(EditError, attribute_answers, tiny_lm, [Encoded(random_ids(5), n_prompt=4)], steps=2)
    assert sentence == "the attribution scores of layer 0 are not finite; undo what broke the model."
