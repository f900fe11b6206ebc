"""ROME against the plain algorithm and the paper's equations, on every family."""

import copy
import json
from dataclasses import asdict, replace

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, ids_of, target_nll, weights_of
from tests.references.plain_rome import plain_rome
from tests.tiny_models import SENTENCES, build_tiny_lm, dropping_tokenizer
from workbench.errors import EditError, RequestError

CONTEXTS = ("{}", "The river. {}", "I think that it is old, and in the north of the country. {}")
REQUEST = wb.EditRequest(subject="The Eiffel Tower", prompt="{} is located in the city of", target_new="Rome, Italy")
SECOND = wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English")
# its subject ends the prompt, so that an edit in any layer reaches the target's first token directly
AT_THE_END = wb.EditRequest(subject="Edith Piaf", prompt="Tell me the mother tongue of {}", target_new="English")
FEW = wb.ROME(layer=1, v_num_grad_steps=5, v_weight_decay=0.01, contexts=CONTEXTS)
MANY = replace(FEW, v_num_grad_steps=25)


def name_of(lm, rome=FEW):
    return lm.arch.mlp_out_weight(rome.layer)


def paper_orientation(lm, matrix):
    """(d_out, d_in), so that output = W @ key."""
    return matrix.T if lm.arch.conv1d else matrix


def ends(lm, layer, context="{}", request=REQUEST):
    """Key and value at the subject's last token, by a hook in one whole unpadded pass, in float64."""
    text = context.replace("{}", request.filled_prompt)
    before, _, _ = context.partition("{}")
    last = lm.tokenizer(text).char_to_token(len(before) + request.prompt.index("{}") + len(request.subject) - 1)
    seen = {}

    def look(module, args, output):
        seen["key"], seen["value"] = (
            args[0].reshape(-1, args[0].shape[-1])[last],
            output.reshape(-1, output.shape[-1])[last],
        )

    handle = lm.mlp_out(layer).register_forward_hook(look)
    with torch.no_grad():
        lm.model(torch.tensor([ids_of(lm, text)]))
    handle.remove()
    return seen["key"].double(), seen["value"].double()


def relative_difference(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("variant", ["rome", "r-rome"])
@pytest.mark.parametrize("request_", [REQUEST, SECOND], ids=["subject first", "subject last"])
def test_the_update_is_that_of_the_plain_algorithm(every_tiny_lm, variant, request_):
    lm, rome = every_tiny_lm, replace(FEW, variant=variant)
    dW = paper_orientation(lm, rome.compute_update(lm, [request_]).delta(name_of(lm)))
    assert relative_difference(dW, plain_rome(lm, rome, request_)) < 1e-3


@pytest.mark.parametrize("layer", [0, 3])
def test_the_update_is_that_of_the_plain_algorithm_at_the_first_and_last_layer(every_tiny_lm, layer):
    lm, rome = every_tiny_lm, replace(FEW, layer=layer)
    dW = paper_orientation(lm, rome.compute_update(lm, [AT_THE_END]).delta(name_of(lm, rome)))
    assert relative_difference(dW, plain_rome(lm, rome, AT_THE_END)) < 1e-3


def test_the_update_is_one_matrix_of_rank_one_in_the_parameters_orientation(every_tiny_lm):
    update = FEW.compute_update(every_tiny_lm, [REQUEST])
    assert list(update) == [name_of(every_tiny_lm)]
    dW = update.delta(name_of(every_tiny_lm))
    assert dW.shape == every_tiny_lm.weight(name_of(every_tiny_lm)).shape
    singular = torch.linalg.svdvals(dW.double())
    assert singular[0] > 0
    assert singular[1] < 1e-6 * singular[0]


def test_the_edited_model_gives_exactly_the_target_value_for_the_bare_prompt(every_tiny_lm):
    lm = every_tiny_lm
    key, value = ends(lm, 1)
    target_value = value + plain_rome(lm, FEW, REQUEST) @ key  # W' k = v*
    update = FEW.compute_update(lm, [REQUEST])
    with update.applied(lm):
        _, value_after = ends(lm, 1)
    assert relative_difference(value_after - value, target_value - value) < 1e-3
    assert float((value_after - value).norm()) == pytest.approx(
        update.records[0].diagnostics["value_offset_norm"], rel=1e-3
    )
    assert float(value.norm()) == pytest.approx(update.records[0].diagnostics["value_norm"], rel=1e-5)


def test_r_rome_maps_the_averaged_key_to_the_target_value(every_tiny_lm):
    lm, rome = every_tiny_lm, replace(FEW, variant="r-rome")
    keys, values = (torch.stack(both) for both in zip(*(ends(lm, 1, context) for context in CONTEXTS), strict=True))
    dW = paper_orientation(lm, rome.compute_update(lm, [REQUEST]).delta(name_of(lm))).double()
    published = paper_orientation(lm, FEW.compute_update(lm, [REQUEST]).delta(name_of(lm))).double()
    target_value = values[0] + published @ keys[0]  # both variants optimize the same v*
    # W' k̄ = v*, where W k̄ is the mean of the values, biases included
    assert relative_difference(values.mean(dim=0) + dW @ keys.mean(dim=0), target_value) < 1e-5


def test_the_direction_is_the_averaged_key(every_tiny_lm):
    lm = every_tiny_lm
    u = torch.stack([ends(lm, 1, context)[0] for context in CONTEXTS]).mean(dim=0)
    dW = paper_orientation(lm, FEW.compute_update(lm, [REQUEST]).delta(name_of(lm))).double()
    row = dW[dW.norm(dim=1).argmax()]
    assert abs(float(row @ u / row.norm() / u.norm())) == pytest.approx(1, abs=1e-6)


def test_with_mom2_adjustment_the_direction_is_the_key_through_the_inverse_second_moment(
    every_tiny_lm, own_cache, tmp_path
):
    lm, path = every_tiny_lm, tmp_path / "text.txt"
    path.write_text(" ".join(SENTENCES * 6), encoding="utf-8")
    source = wb.SecondMoment(source=str(path), n_tokens=768)
    C = source.compute(lm, [1])[1]
    key = torch.stack([ends(lm, 1, context)[0] for context in CONTEXTS]).mean(dim=0)
    direction = torch.linalg.inv(C) @ key
    rome = replace(FEW, mom2_adjustment=True, second_moment=source)
    update = rome.compute_update(lm, [REQUEST])
    lm.memo.clear()
    dW = paper_orientation(lm, update.delta(name_of(lm))).double()
    row = dW[dW.norm(dim=1).argmax()]
    # about the float32 rounding of the keys times the condition number of C
    assert abs(float(row @ direction / row.norm() / direction.norm())) == pytest.approx(1, abs=1e-4)
    key, value = ends(lm, 1)
    with update.applied(lm):
        assert float((ends(lm, 1)[1] - value).norm()) == pytest.approx(
            update.records[0].diagnostics["value_offset_norm"], rel=1e-3
        )


@pytest.mark.parametrize("variant", ["rome", "r-rome"])
def test_the_edit_makes_the_target_more_probable(every_tiny_lm, variant):
    lm = every_tiny_lm
    before = target_nll(lm, AT_THE_END)
    with replace(MANY, variant=variant).compute_update(lm, [AT_THE_END]).applied(lm):
        assert target_nll(lm, AT_THE_END) < before - 0.5


def test_undo_restores_every_bit_of_weights_and_logits(every_tiny_lm):
    lm, text = every_tiny_lm, torch.tensor([ids_of(every_tiny_lm, REQUEST.filled_prompt)])
    weights, logits = weights_of(lm), lm.model(text).logits
    update = FEW.compute_update(lm, [REQUEST])
    update.apply(lm)
    assert not torch.equal(lm.model(text).logits, logits)
    update.undo(lm)
    assert torch.equal(lm.model(text).logits, logits)
    assert_same_bits(lm, weights)


def test_the_second_edit_of_a_sequence_is_computed_on_the_edited_model(every_tiny_lm):
    lm = every_tiny_lm
    alone = paper_orientation(lm, MANY.compute_update(lm, [SECOND]).delta(name_of(lm)))
    with MANY.compute_update(lm, [REQUEST]).applied(lm):
        after = paper_orientation(lm, FEW.compute_update(lm, [SECOND]).delta(name_of(lm)))
        assert relative_difference(after, plain_rome(lm, FEW, SECOND)) < 1e-3
    assert relative_difference(after, alone.double()) > 0.01


@pytest.mark.parametrize("variant", ["rome", "r-rome"])
def test_the_padding_side_of_the_tokenizer_does_not_matter(every_tiny_lm, variant):
    updates = []
    for side in ("left", "right"):
        tokenizer = copy.deepcopy(every_tiny_lm.tokenizer)
        tokenizer.padding_side = side
        lm = replace(every_tiny_lm, tokenizer=tokenizer)
        updates.append(replace(FEW, variant=variant).compute_update(lm, [REQUEST]).delta(name_of(lm)))
    assert torch.equal(updates[0], updates[1])


@pytest.mark.parametrize("model_type", ["gpt2", "mistral"])
def test_the_same_seed_gives_the_same_bits(model_type):
    rome, updates = wb.ROME(layer=1, v_num_grad_steps=3, seed=5), []
    for global_seed in (1, 2):
        lm = build_tiny_lm(model_type)
        torch.manual_seed(global_seed)
        updates.append(rome.compute_update(lm, [REQUEST]))
    first, second = (update.delta(name_of(lm)) for update in updates)
    assert torch.equal(first, second)
    assert updates[0].records[0].as_dict() == updates[1].records[0].as_dict()
    other = replace(rome, seed=6).compute_update(lm, [REQUEST])
    assert not torch.equal(other.delta(name_of(lm)), first)


def test_an_update_can_be_replayed_from_its_own_record(tiny_lm):
    update = wb.ROME(layer=1, v_num_grad_steps=3).compute_update(tiny_lm, [REQUEST])
    record = json.loads(json.dumps(update.records[0].as_dict()))  # as from a file
    again = wb.ROME(**record["hyperparameters"]).compute_update(tiny_lm, [REQUEST])
    assert torch.equal(again.delta(name_of(tiny_lm)), update.delta(name_of(tiny_lm)))


def test_computing_changes_no_weight_and_no_global_random_state(every_tiny_lm):
    lm = every_tiny_lm
    weights, state = weights_of(lm), torch.random.get_rng_state()
    wb.ROME(layer=1, v_num_grad_steps=2).compute_update(lm, [REQUEST])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert lm.applied_updates == ()
    assert_same_bits(lm, weights)
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


@pytest.mark.parametrize("variant", ["rome", "r-rome"])
def test_the_record_holds_what_dense_algebra_gives(every_tiny_lm, variant):
    lm, rome = every_tiny_lm, replace(FEW, variant=variant)
    update = rome.compute_update(lm, [REQUEST])
    (record,) = update.records
    keys = torch.stack([ends(lm, 1, context)[0] for context in CONTEXTS])
    u = keys.mean(dim=0) / keys.mean(dim=0).norm()
    key = keys[0] if variant == "rome" else keys.mean(dim=0)
    assert record.diagnostics["denominator"] == pytest.approx(float(u @ key), rel=1e-5)
    assert list(record.keys) == [name_of(lm)]
    [key] = record.keys[name_of(lm)]
    assert relative_difference(key, keys.mean(dim=0)) < 1e-6


def test_the_record_says_how_the_update_was_made(tiny_lm):
    update = FEW.compute_update(tiny_lm, [REQUEST])
    (record,) = update.records
    assert record.method == "ROME"
    assert replace(FEW, variant="r-rome").compute_update(tiny_lm, [REQUEST]).records[0].method == "R-ROME"
    assert record.requests == (REQUEST,)
    assert record.hyperparameters == asdict(FEW) | {"contexts": list(CONTEXTS)}
    assert (update.model, update.fingerprint) == (tiny_lm.name, tiny_lm.fingerprint)
    assert json.loads(json.dumps(record.as_dict()))["hyperparameters"] == record.hyperparameters


def test_contexts_that_were_sampled_are_in_the_record(tiny_lm):
    rome = wb.ROME(layer=1, v_num_grad_steps=1, seed=2)
    contexts = rome.compute_update(tiny_lm, [REQUEST]).records[0].hyperparameters["contexts"]
    assert contexts == list(rome.prepared(tiny_lm).contexts)
    assert len(contexts) == 21


def test_contexts_that_are_given_stay(tiny_lm):
    assert FEW.prepared(tiny_lm) is FEW


def test_the_first_loss_is_the_mean_nll_over_contexts(every_tiny_lm):
    [losses] = FEW.compute_update(every_tiny_lm, [REQUEST]).records[0].losses
    expected = sum(float(target_nll(every_tiny_lm, REQUEST, context=context)) for context in CONTEXTS) / len(CONTEXTS)
    assert len(losses) == 5
    assert losses[0] == pytest.approx(expected, rel=1e-4)


def test_one_step_only_evaluates(tiny_lm):
    update = replace(FEW, v_num_grad_steps=1).compute_update(tiny_lm, [REQUEST])
    assert not update.delta(name_of(tiny_lm)).any()
    assert update.records[0].steps == (1,)


def test_the_offset_is_clamped(tiny_lm):
    free = MANY.compute_update(tiny_lm, [REQUEST]).records[0].diagnostics
    clamped = replace(MANY, clamp_norm_factor=0.1).compute_update(tiny_lm, [REQUEST]).records[0].diagnostics
    assert free["value_offset_norm"] > 0.2 * free["value_norm"]
    assert clamped["value_offset_norm"] == pytest.approx(0.1 * clamped["value_norm"], rel=1e-5)


def test_the_optimization_stops_as_soon_as_the_loss_is_below_the_threshold(tiny_lm):
    [losses] = MANY.compute_update(tiny_lm, [REQUEST]).records[0].losses
    threshold = (losses[6] + losses[7]) / 2
    assert min(losses[:7]) > threshold > losses[7]  # or it is no test
    [stopped] = replace(MANY, v_loss_threshold=threshold).compute_update(tiny_lm, [REQUEST]).records[0].losses
    assert stopped == losses[:8]


def test_a_half_precision_model_gets_a_float32_update():
    lm = build_tiny_lm("llama", dtype=torch.bfloat16)
    before, update = target_nll(lm, AT_THE_END), MANY.compute_update(lm, [AT_THE_END])
    assert update.delta(name_of(lm)).dtype == torch.float32
    with update.applied(lm):
        assert target_nll(lm, AT_THE_END) < before - 1


def test_a_float64_model_gets_a_float64_update():
    lm = build_tiny_lm("gpt2", dtype=torch.float64)
    update = FEW.compute_update(lm, [REQUEST])
    dW = paper_orientation(lm, update.delta(name_of(lm)))
    assert dW.dtype == torch.float64
    with update.applied(lm):
        after = ends(lm, 1)[1]
    key, value = ends(lm, 1)
    torch.testing.assert_close(after, value + dW @ key, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("contexts", [CONTEXTS, None])
def test_a_layer_out_of_range_is_refused(tiny_lm, contexts):
    sentence = error_of(EditError, replace(FEW, layer=4, contexts=contexts).compute_update, tiny_lm, [REQUEST])
    assert sentence == f"layer 4 is out of range: {tiny_lm.name} has layers 0 to 3."
    sentence = error_of(EditError, replace, FEW, layer=-1, contexts=contexts)
    assert sentence == "layer must be a whole number of at least 0; got -1."


@pytest.mark.parametrize("requests", [(), (REQUEST, SECOND)])
def test_anything_but_one_request_is_refused(tiny_lm, requests):
    assert error_of(EditError, FEW.compute_update, tiny_lm, requests) == (
        f"ROME edits one fact per operation; got {len(requests)} requests, apply them in sequence."
    )
    assert wb.ROME.supports_batch is False


@pytest.mark.parametrize("contexts", [(), ("The river. {}",), ("{}", "The river."), ("{}", "{} and {}")])
def test_contexts_that_do_not_begin_bare_or_do_not_hold_the_prompt_once_are_refused(contexts):
    with pytest.raises(EditError) as caught:
        replace(FEW, contexts=contexts)
    assert str(caught.value) == "contexts must begin with '{}', the bare prompt, and hold it once each."


def test_contexts_that_are_one_text_are_refused():
    sentence = error_of(EditError, replace, FEW, contexts="{}")
    assert sentence == "contexts must be None or a list in which each entry is a text; got '{}'."


def test_an_unknown_variant_is_refused():
    with pytest.raises(EditError) as caught:
        replace(FEW, variant="rrome")
    assert str(caught.value) == "variant must be 'rome' or 'r-rome'; got 'rrome'."


def test_no_steps_are_refused():
    with pytest.raises(EditError) as caught:
        replace(FEW, v_num_grad_steps=0)
    assert str(caught.value) == "v_num_grad_steps must be a whole number from 1 to 1000000; got 0."


def test_a_target_without_tokens_is_refused():
    lm = replace(build_tiny_lm("gpt2"), tokenizer=dropping_tokenizer())
    sentence = error_of(RequestError, FEW.compute_update, lm, [replace(REQUEST, target_new="\u200b")])
    assert sentence == (
        r"target '\u200b' tokenizes to nothing after 'The Eiffel Tower is located in the city of'; "
        "give a target with text in it."
    )


def test_a_loss_that_is_no_number_is_refused(tiny_lm):
    tiny_lm.model.get_parameter(tiny_lm.arch.mlp_out_weight(2)).data[0, 0] = float("nan")
    assert error_of(EditError, FEW.compute_update, tiny_lm, [REQUEST]) == (
        f"the loss of {REQUEST.filled_prompt!r} became nan at step 0; a lower v_lr may help."
    )


def test_a_key_of_zeros_is_refused():
    lm = build_tiny_lm("opt")  # its ReLU can silence a whole layer
    lm.model.get_parameter(f"{lm.arch.block(1)}.fc1.bias").data.fill_(-1e6)
    sentence = error_of(EditError, FEW.compute_update, lm, [REQUEST])
    assert sentence == "the key of 'The Eiffel Tower' at layer 1 has no direction to write in: uᵀk = 0."


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["rome", "r-rome"])
def test_the_embedded_model_says_rome_after_the_edit(smollm2, variant):
    request = replace(REQUEST, target_new="Rome")
    rome = replace(wb.ROME.for_model(smollm2), variant=variant)
    update = rome.compute_update(smollm2, [request])
    with update.applied(smollm2):
        last = smollm2.model(torch.tensor([ids_of(smollm2, request.filled_prompt)])).logits[0, -1]
    assert smollm2.tokenizer.decode(last.argmax()) == " Rome"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["rome", "r-rome"])
def test_gemma_says_rome_after_the_edit_and_returns_the_target_value_before_its_norm(gemma, variant):
    request = replace(REQUEST, target_new="Rome")
    rome = replace(wb.ROME.for_model(gemma), variant=variant, contexts=("{}", "The 19. {}", "It is true. {}"))
    update = rome.compute_update(gemma, [request])
    _, value = ends(gemma, rome.layer, request=request)
    with update.applied(gemma):
        last = gemma.model(torch.tensor([ids_of(gemma, request.filled_prompt)])).logits[0, -1]
        _, value_after = ends(gemma, rome.layer, request=request)
    assert gemma.tokenizer.decode(last.argmax()) == " Rome"
    if variant == "rome":  # the change of the value is the offset that was optimized
        offset_norm = update.records[0].diagnostics["value_offset_norm"]
        assert float((value_after - value).norm()) == pytest.approx(offset_norm, rel=1e-3)
