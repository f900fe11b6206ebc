"""What updates write: updates that are made to write one token, and the plain formula of norm and unembedding."""

from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, hooks_and_forwards, weights_of
from tests.updates import random_change
from workbench.changes import Dense, LowRank
from workbench.edit_record import EditRecord
from workbench.microscope.written import _ATTENTION_OUT, _USUAL_ATTENTION_OUT, read_written
from workbench.request import EditRequest

REQUEST = EditRequest("The Eiffel Tower", "{} is in", "Rome")


def final_norm(lm):
    """The module between the last block and the head, found by what the head reads."""
    modules = {"gpt2": "transformer.ln_f", "gptj": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}
    modules |= {"opt": "model.decoder.final_layer_norm", "phi": "model.final_layernorm"}
    return lm.model.get_submodule(modules.get(lm.model.config.model_type, "model.norm"))


def scale_of(lm, norm):
    """The factor of each channel in a norm: of Gemma's it is one more than the weight."""
    return norm.weight.double() + (1 if lm.model.config.model_type.startswith("gemma") else 0)


def centered(lm, norm, vectors):
    """Vectors (k, d) as a norm of this kind sees them: layer norms subtract the mean."""
    is_layer_norm = isinstance(norm, torch.nn.LayerNorm)
    return vectors - vectors.mean(dim=-1, keepdim=True) if is_layer_norm else vectors


def row_of(lm, token):
    """The direction in the residual stream that promotes a token most: its unembedding row, through the norms."""
    row = lm.model.get_output_embeddings().weight[token].double() * scale_of(lm, final_norm(lm))
    return centered(lm, final_norm(lm), row)


def in_orientation(lm, left, right):
    return LowRank(right, left) if lm.arch.conv1d else LowRank(left, right)


def update_writing(lm, name, direction, *, key=None, dense=False):
    """An update of rank one that writes `direction` (d_out,) where the layer reads its key."""
    d_in, _ = lm.linear_shape(name)
    key = torch.randn(d_in, generator=torch.Generator().manual_seed(3)) if key is None else key
    change = in_orientation(lm, direction.float()[:, None], key[:, None])
    record = EditRecord("By hand", (REQUEST,), {}, keys={name: key[None]})
    return wb.WeightUpdate({name: Dense(change.dense()) if dense else change}, (record,))


def test_a_token_whose_unembedding_row_is_written_is_on_top_in_every_architecture(every_tiny_lm):
    lm, seen = every_tiny_lm, []
    weights = weights_of(lm)
    for token in (7, 300):
        direction = row_of(lm, token)
        if lm.arch.mlp_norm:  # what the layer writes is scaled by this norm first
            norm = lm.model.get_submodule(f"{lm.arch.block(1)}.{lm.arch.mlp_norm}")
            direction = direction / scale_of(lm, norm)
        for dense in (False, True):
            name = lm.arch.mlp_out_weight(1)
            [written] = read_written(update_writing(lm, name, direction, dense=dense), lm)
            [vector] = written.vectors
            assert vector.promoted[0].id == token
            assert vector.promoted[0].score > 0 > vector.suppressed[0].score
            assert vector.share == pytest.approx(1)
            assert vector.is_signed
            seen.append(token)
    assert len(seen) == 4
    assert_same_bits(lm, weights)
    assert hooks_and_forwards(lm)[0] == 0


def test_scores_are_those_of_norm_and_unembedding_written_out(every_tiny_lm):
    lm = every_tiny_lm
    name, norm = lm.arch.mlp_out_weight(2), final_norm(lm)
    change = random_change("LowRank", tuple(lm.weight(name).shape), seed=5)
    dW = change.dense().double()
    U, S, _ = torch.linalg.svd(dW.T if lm.arch.conv1d else dW, full_matrices=False)
    vectors = U.T[:2] * U.shape[0] ** 0.5
    if lm.arch.mlp_norm:
        inner = lm.model.get_submodule(f"{lm.arch.block(2)}.{lm.arch.mlp_norm}")
        vectors = vectors * scale_of(lm, inner)
    vectors = centered(lm, norm, vectors)
    vectors = vectors / vectors.pow(2).mean(dim=1, keepdim=True).sqrt() * scale_of(lm, norm)
    scores = vectors @ lm.model.get_output_embeddings().weight.double().T
    if cap := getattr(lm.model.config, "final_logit_softcapping", None):
        scores = cap * (scores / cap).tanh()
    [written] = read_written(wb.WeightUpdate({name: change}), lm, n_tokens=500)
    assert len(written.vectors) == 2
    for vector, expected, share in zip(written.vectors, scores, S.square() / S.square().sum(), strict=False):
        found = torch.zeros(len(expected)).double()
        for token in vector.promoted:
            found[token.id] = token.score
        sign = 1 if float(found @ expected) > 0 else -1
        assert torch.allclose(found, sign * expected, atol=2e-3)
        assert vector.share == pytest.approx(float(share), rel=1e-4)
        assert not vector.is_signed


def test_attention_outputs_are_read_too(every_tiny_lm):
    lm = every_tiny_lm
    part = _ATTENTION_OUT.get(lm.arch.name, _USUAL_ATTENTION_OUT)
    name, direction = f"{lm.arch.block(0)}.{part}.weight", row_of(lm, 21)
    if lm.arch.mlp_norm:
        norm = lm.model.get_submodule(f"{lm.arch.block(0)}.post_attention_layernorm")
        direction = direction / scale_of(lm, norm)
    [written] = read_written(update_writing(lm, name, direction), lm)
    assert written.vectors[0].promoted[0].id == 21


def test_a_matrix_whose_output_stays_in_its_block_is_not_read(every_tiny_lm):
    name = f"{every_tiny_lm.arch.block(1)}.{every_tiny_lm.arch.mlp_in[0]}.weight"
    change = random_change("LowRank", tuple(every_tiny_lm.weight(name).shape))
    [written] = read_written(wb.WeightUpdate({name: change}), every_tiny_lm)
    assert written.vectors == ()
    assert written.refused == f"{name} is not read: its output stays in its block instead of the residual stream."


def test_an_update_that_is_zero_writes_nothing(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    [written] = read_written(wb.WeightUpdate({name: torch.zeros_like(tiny_lm.weight(name))}), tiny_lm)
    assert written.refused == f"{name} is not read: its update is zero."


def test_the_sign_is_that_of_what_is_written_at_the_key(tiny_lm):
    name, direction = tiny_lm.arch.mlp_out_weight(1), row_of(tiny_lm, 42)
    update = update_writing(tiny_lm, name, direction)
    [change] = update.values()
    negative = LowRank(-change.rows, change.cols)
    reversed_key = EditRecord("By hand", (REQUEST,), {}, keys={name: -update.records[0].keys[name]})
    for other in (wb.WeightUpdate({name: negative}, update.records), wb.WeightUpdate({name: change}, (reversed_key,))):
        [vector] = read_written(other, tiny_lm)[0].vectors
        assert vector.suppressed[0].id == 42
        assert vector.promoted[0].id != 42


def test_the_rank_of_the_new_answer_counts_the_tokens_above_it(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    prompt, whole = (
        tiny_lm.tokenizer(text)["input_ids"] for text in ("The Eiffel Tower is in", "The Eiffel Tower is in Rome")
    )
    first = whole[len(prompt)]
    update = update_writing(tiny_lm, name, torch.randn(32, generator=torch.Generator().manual_seed(1)))
    [vector] = read_written(update, tiny_lm, n_tokens=500)[0].vectors
    assert vector.answer.id == first
    assert vector.promoted[vector.answer_rank - 1] == vector.answer
    [both] = read_written(replace(update, records=update.records * 2), tiny_lm)
    assert both.vectors[0].answer is None


def test_factors_are_never_multiplied_out(tiny_lm, monkeypatch):
    name = tiny_lm.arch.mlp_out_weight(1)
    update = update_writing(tiny_lm, name, row_of(tiny_lm, 42))
    monkeypatch.setattr(LowRank, "dense", lambda self: pytest.fail("ΔW was formed"))
    assert read_written(update, tiny_lm)[0].vectors[0].promoted[0].id == 42


def test_factors_and_the_whole_matrix_give_the_same_vectors(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    change = random_change("LowRank", tuple(tiny_lm.weight(name).shape), seed=1)
    one, other = (read_written(wb.WeightUpdate({name: c}), tiny_lm)[0] for c in (change, Dense(change.dense())))
    for a, b in zip(one.vectors, other.vectors, strict=True):
        assert a.share == pytest.approx(b.share, rel=1e-5)
        assert [t.id for t in a.promoted] == [t.id for t in b.promoted]
