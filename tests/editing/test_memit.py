"""MEMIT against the plain algorithm and its normal equations, on every family."""

import json
from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, weights_of
from tests.references.plain_memit import plain_memit, plain_target_hidden
from tests.tiny_models import D_FF, D_MODEL, ModelOutline, build_tiny_lm
from workbench.editing.memit import PRESETS, target_hidden
from workbench.editing.solve import solve_keys
from workbench.errors import EditError

pytestmark = pytest.mark.usefixtures("cache_of_this_module")

CONTEXTS = ("{}", "The river. {}", "I think that it is old, and in the north of the country. {}")
REQUESTS = [
    wb.EditRequest(subject="The Eiffel Tower", prompt="{} is in the city of", target_new="Rome, Italy"),
    wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English"),
    wb.EditRequest(subject="Marie Curie", prompt="We know where {} was born, and that is in", target_new="the north"),
    wb.EditRequest(subject="HMS Beagle", prompt="{} was launched in", target_new="1821"),
]
MOMENT = wb.SecondMoment(n_tokens=512)
FEW = wb.MEMIT(
    layers=(1, 2),
    mom2_update_weight=2.0,
    v_num_grad_steps=4,
    contexts=CONTEXTS,
    second_moment=MOMENT,
    clamp_norm_factor=4.0,
    v_weight_decay=0.01,
)


def paper_orientation(lm, matrix):
    return matrix.T if lm.arch.conv1d else matrix


def deltas_of(lm, update):
    return [paper_orientation(lm, update.delta(name)).double() for name in update]


def relative_difference(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm())


def state_of(lm, request, context, layer, last):
    """Key of a layer and hidden state after block `last` at the subject's last token, in one whole unpadded pass."""
    text = context.replace("{}", request.filled_prompt)
    before, _, _ = context.partition("{}")
    at = lm.tokenizer(text).char_to_token(len(before) + request.prompt.index("{}") + len(request.subject) - 1)
    seen = {}

    def keep_key(module, args, output):
        seen["key"] = args[0].reshape(-1, D_FF)[at].double()

    def keep_hidden(module, args, output):
        seen["hidden"] = (output[0] if isinstance(output, tuple) else output).reshape(-1, D_MODEL)[at].double()

    handles = [lm.mlp_out(layer).register_forward_hook(keep_key), lm.blocks[last].register_forward_hook(keep_hidden)]
    with torch.no_grad():
        lm.model(torch.tensor([lm.tokenizer(text)["input_ids"]]))
    for handle in handles:
        handle.remove()
    return seen["key"], seen["hidden"]


def test_the_target_values_of_many_facts_are_those_of_the_plain_algorithm_one_by_one(every_tiny_lm):
    found, _ = target_hidden(every_tiny_lm, FEW, REQUESTS)
    for z, request in zip(found, REQUESTS, strict=True):
        assert relative_difference(z, plain_target_hidden(every_tiny_lm, FEW, request)) < 1e-4


def test_at_the_last_block_too_the_target_values_are_those_of_the_plain_algorithm(every_tiny_lm):
    memit = replace(FEW, layers=(3,))
    # an edit in the last block reaches only the token it is made at: the subject must end the prompt
    request = wb.EditRequest(subject="Edith Piaf", prompt="Tell me the mother tongue of {}", target_new="English")
    found, _ = target_hidden(every_tiny_lm, memit, [request])
    assert relative_difference(found[0], plain_target_hidden(every_tiny_lm, memit, request)) < 1e-4


def test_facts_that_share_passes_do_not_touch_each_other(tiny_lm):
    together, _ = target_hidden(tiny_lm, FEW, REQUESTS)
    for facts_at_once in (1, 3):
        apart, _ = target_hidden(tiny_lm, replace(FEW, facts_at_once=facts_at_once), REQUESTS)
        torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)


def test_a_fact_stops_by_itself_when_its_loss_is_below_the_threshold(tiny_lm):
    _, free = target_hidden(tiny_lm, replace(FEW, v_num_grad_steps=12, v_loss_threshold=0.0), REQUESTS)
    threshold = sorted(losses[6] for losses in free)[1]
    memit = replace(FEW, v_num_grad_steps=12, v_loss_threshold=threshold * 1.0001)
    stopped, stopped_losses = target_hidden(tiny_lm, memit, REQUESTS)
    lengths = {len(losses) for losses in stopped_losses}
    assert len(lengths) > 1
    for with_stop, without in zip(stopped_losses, free, strict=True):
        assert with_stop == pytest.approx(without[: len(with_stop)], rel=1e-4)
        assert all(loss >= threshold for loss in with_stop[:-1])
    for z, request in zip(stopped, REQUESTS, strict=True):
        assert relative_difference(z, plain_target_hidden(tiny_lm, memit, request)) < 1e-3


@pytest.mark.slow
def test_the_update_is_that_of_the_plain_algorithm(every_tiny_lm):
    lm = every_tiny_lm
    update = FEW.compute_update(lm, REQUESTS)
    expected = plain_memit(lm, FEW, REQUESTS, MOMENT.compute(lm, [1, 2]))
    lm.memo.clear()
    for actual, layer in zip(deltas_of(lm, update), FEW.layers, strict=True):
        assert relative_difference(actual, expected[layer]) < 2e-3


def test_the_normal_equations_hold(every_tiny_lm):
    """ΔW (λ C + K Kᵀ) = R Kᵀ at each layer, with K and R as they are once the layers below are edited."""
    lm = every_tiny_lm
    if lm.arch.mlp_norm:
        pytest.skip("R is not the residual where a norm follows the MLP; the plain algorithm covers that")
    update = FEW.compute_update(lm, REQUESTS)
    targets, _ = target_hidden(lm, FEW, REQUESTS)
    moments = MOMENT.compute(lm, [1, 2])
    lm.memo.clear()
    with lm.restored_after():
        for layer, dW, share in zip(FEW.layers, deltas_of(lm, update), (2, 1), strict=True):
            keys, hidden = [], []
            for request in REQUESTS:
                bare, *others = [state_of(lm, request, context, layer, 2) for context in CONTEXTS]
                keys.append((bare[0] + (others[0][0] + others[1][0]) / 2) / 2)
                hidden.append(bare[1])
            K, R = torch.stack(keys).T, (targets - torch.stack(hidden)).T / share
            left, right = dW @ (FEW.mom2_update_weight * moments[layer] + K @ K.T), R @ K.T
            assert relative_difference(left, right) < 1e-3
            name = lm.arch.mlp_out_weight(layer)
            wb.WeightUpdate({name: update[name]}).apply(lm)


def test_one_fact_at_one_layer_is_the_rank_one_closed_form(every_tiny_lm):
    """By Sherman and Morrison: ΔW = r (C⁻¹k)ᵀ / (λ + kᵀC⁻¹k), ROME's direction."""
    lm, memit = every_tiny_lm, replace(FEW, layers=(1,), contexts=("{}",))
    if lm.arch.mlp_norm:
        pytest.skip("R is not the residual where a norm follows the MLP; the plain algorithm covers that")
    (dW,) = deltas_of(lm, memit.compute_update(lm, REQUESTS[:1]))
    C = MOMENT.compute(lm, [1])[1]
    lm.memo.clear()
    key, hidden = state_of(lm, REQUESTS[0], "{}", 1, 1)
    residual = target_hidden(lm, memit, REQUESTS[:1])[0][0] - hidden
    direction = torch.linalg.inv(C) @ key
    expected = torch.outer(residual, direction) / (memit.mom2_update_weight + key @ direction)
    assert relative_difference(dW, expected) < 1e-3


def test_with_little_weight_on_the_second_moment_the_edited_model_gives_the_target_value(every_tiny_lm):
    lm, memit = every_tiny_lm, replace(FEW, layers=(2,), contexts=("{}",), mom2_update_weight=1e-4)
    update = memit.compute_update(lm, REQUESTS)
    lm.memo.clear()
    targets, _ = target_hidden(lm, memit, REQUESTS)
    with update.applied(lm):
        after = torch.stack([state_of(lm, request, "{}", 2, 2)[1] for request in REQUESTS])
    before = torch.stack([state_of(lm, request, "{}", 2, 2)[1] for request in REQUESTS])
    # a norm after the MLP, as in Gemma, bends what is added to it; elsewhere the hidden state moves by ΔW k
    if not lm.arch.name.startswith("Gemma"):
        assert relative_difference(after, targets) < 0.02
    assert (after - before).norm() > 0.1 * (targets - before).norm()


def test_layers_are_edited_from_the_lowest_up_however_they_are_given():
    assert replace(FEW, layers=(2, 1, 1)).layers == (1, 2)


def test_a_higher_layer_is_solved_on_the_model_that_the_lower_ones_left(tiny_lm):
    both = FEW.compute_update(tiny_lm, REQUESTS)
    name = tiny_lm.arch.mlp_out_weight(2)
    alone = replace(FEW, layers=(2,)).compute_update(tiny_lm, REQUESTS)
    # alone it would take the whole residual, not half of it: only the keys' and residuals' change is of interest
    assert relative_difference(alone.delta(name), both.delta(name).double()) > 0.05


def test_the_factors_have_the_rank_of_the_batch(tiny_lm):
    for n in (1, 4):
        update = FEW.compute_update(tiny_lm, REQUESTS[:n])
        for change in update.values():
            assert change.rows.shape[1] == change.cols.shape[1] == n


def test_a_batch_is_one_operation_with_one_record(tiny_lm):
    update = FEW.compute_update(tiny_lm, REQUESTS)
    (record,) = update.records
    assert record.requests == tuple(REQUESTS)
    assert len(record.steps) == len(record.diagnostics["target_norm"]) == len(REQUESTS)
    assert len(record.diagnostics["residual"]) == len(FEW.layers)


def test_the_record_holds_the_whole_history_of_every_fact(tiny_lm):
    _, losses = target_hidden(tiny_lm, FEW, REQUESTS)
    [record] = FEW.compute_update(tiny_lm, REQUESTS).records
    assert record.losses == tuple(map(tuple, losses))
    assert set(record.steps) == {FEW.v_num_grad_steps}


def test_the_record_holds_the_keys_that_each_layer_was_solved_for(every_tiny_lm):
    """Keys of a higher layer are those on the model whose lower layers are edited."""
    lm = every_tiny_lm
    update = FEW.compute_update(lm, REQUESTS)
    lm.memo.clear()
    [record] = update.records
    assert list(record.keys) == list(update)
    with lm.restored_after():
        for layer, name in zip(FEW.layers, update, strict=True):
            for key, request in zip(record.keys[name], REQUESTS, strict=True):
                bare, *others = [state_of(lm, request, context, layer, 2)[0] for context in CONTEXTS]
                assert relative_difference(key, (bare + (others[0] + others[1]) / 2) / 2) < 1e-4
            wb.WeightUpdate({name: update[name]}).apply(lm)


def check_a_batch_of(lm, n):
    requests = [
        wb.EditRequest(subject=f"Number {i}", prompt="{} is the year of", target_new=("Rome", "Paris")[i % 2])
        for i in range(n)
    ]
    memit = replace(FEW, v_num_grad_steps=2, contexts=("{}",), facts_at_once=64)
    update = memit.compute_update(lm, requests)
    lm.memo.clear()
    assert update.records[0].steps == (2,) * n
    for change in update.values():
        assert change.rows.shape[1] == n
        assert change.dense().isfinite().all()


@pytest.mark.parametrize("n", [10, 100])
def test_batches_of_many_facts_keep_one_factor_a_fact(n, every_tiny_lm):
    check_a_batch_of(every_tiny_lm, n)


def test_a_batch_of_a_thousand_facts_works():
    check_a_batch_of(build_tiny_lm("llama"), 1000)


def test_each_layer_prunes_before_the_next_layer_is_solved(tiny_lm):
    first, second = (tiny_lm.arch.mlp_out_weight(layer) for layer in (1, 2))
    rect = wb.RECT(keep=0.25)
    each, whole = replace(FEW, each_layer=rect).compute_update(tiny_lm, REQUESTS), FEW.compute_update(tiny_lm, REQUESTS)
    after = rect(whole, tiny_lm)
    assert torch.equal(each.delta(first), after.delta(first))
    assert relative_difference(each.delta(second), after.delta(second).double()) > 1e-3
    for name in each:
        assert int(each[name].mask.sum()) == round(0.25 * each.delta(name).numel())


def test_undo_restores_every_bit(every_tiny_lm):
    lm = every_tiny_lm
    weights = weights_of(lm)
    update = FEW.compute_update(lm, REQUESTS)
    lm.memo.clear()
    update.apply(lm)
    assert all(not torch.equal(lm.model.get_parameter(name), weights[name]) for name in update)
    update.undo(lm)
    assert_same_bits(lm, weights)


def test_computing_changes_no_weight_and_no_global_random_state(tiny_lm):
    weights = weights_of(tiny_lm)
    state = torch.random.get_rng_state()
    replace(FEW, contexts=None).compute_update(tiny_lm, REQUESTS[:2])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert tiny_lm.applied_updates == ()
    assert_same_bits(tiny_lm, weights)
    assert not any(p.requires_grad for p in tiny_lm.model.parameters())


def test_an_error_half_way_leaves_the_model_as_it_was(tiny_lm, monkeypatch):
    weights = weights_of(tiny_lm)
    calls = []

    def fail_at_the_second(C, keys, weight, **memory):
        calls.append(1)
        if len(calls) == 2:
            raise EditError("no")
        return solve_keys(C, keys, weight, **memory)

    monkeypatch.setattr("workbench.editing.memit.solve_keys", fail_at_the_second)
    assert error_of(EditError, lambda: FEW.compute_update(tiny_lm, REQUESTS)) == "no"
    assert tiny_lm.applied_updates == ()
    assert_same_bits(tiny_lm, weights)


def test_an_update_can_be_replayed_from_its_own_record(tiny_lm):
    memit = replace(FEW, contexts=None, seed=3, each_layer=wb.RECT(0.5))
    update = memit.compute_update(tiny_lm, REQUESTS)
    record = json.loads(json.dumps(update.records[0].as_dict()))
    assert record["hyperparameters"]["each_layer"] == {"kind": "RECT", "keep": 0.5}
    again = wb.MEMIT(**record["hyperparameters"]).compute_update(tiny_lm, REQUESTS)
    assert all(torch.equal(again.delta(name), update.delta(name)) for name in update)


@pytest.mark.slow
def test_half_precision_models_are_edited_too():
    lm = build_tiny_lm("llama", dtype=torch.bfloat16)
    update = FEW.compute_update(lm, REQUESTS)
    assert all(update.delta(name).dtype == torch.float32 for name in update)
    first, second = update.records[0].diagnostics["residual"]
    assert second < first


def test_six_contexts_are_sampled_by_default(tiny_lm):
    contexts = replace(FEW, contexts=None).prepared(tiny_lm).contexts
    assert len(contexts) == 6
    assert contexts[0] == "{}"


@pytest.mark.parametrize(("name", "n_layers"), [("gpt2-xl", 48), ("EleutherAI/gpt-j-6B", 28), ("llama-2-7b-hf", 32)])
def test_published_presets_are_found_by_name(name, n_layers):
    memit = wb.MEMIT.for_model(ModelOutline(name, n_layers))
    expected = {
        "gpt2-xl": ((13, 14, 15, 16, 17), 20, 0.75, 20_000),
        "EleutherAI/gpt-j-6B": ((3, 4, 5, 6, 7, 8), 25, 0.75, 15_000),
        "llama-2-7b-hf": ((4, 5, 6, 7, 8), 25, 4.0, 15_000),
    }
    assert (memit.layers, memit.v_num_grad_steps, memit.clamp_norm_factor, memit.mom2_update_weight) == expected[name]


def test_any_other_model_takes_blocks_that_end_a_quarter_of_the_way_up_and_weighs_by_its_width(every_tiny_lm):
    memit = wb.MEMIT.for_model(every_tiny_lm)
    assert memit.layers == (0, 1)
    assert memit.mom2_update_weight == D_FF
    assert all(max(preset["layers"]) < 48 for preset in PRESETS.values())


def test_easy_edits_file_is_read(tmp_path):
    path = tmp_path / "hparams.yaml"
    path.write_text(
        'alg_name: "MEMIT"\nmodel_name: "x"\nlayers: [4, 5, 6]\nclamp_norm_factor: 4\nlayer_selection: "all"\n'
        'fact_token: "subject_last"\nv_num_grad_steps: 25\nv_lr: 5e-1\nv_loss_layer: 31\nv_weight_decay: 1e-3\n'
        'kl_factor: 0.0625\nmom2_adjustment: true\nmom2_update_weight: 15000\nmom2_dataset: "wikipedia"\n'
        'mom2_n_samples: 100000\nmom2_dtype: "float32"\nstats_dir: "./data"\ndevice: 0\n',
        encoding="utf-8",
    )
    expected = wb.MEMIT(layers=(4, 5, 6), mom2_update_weight=15_000, v_weight_decay=1e-3, clamp_norm_factor=4.0)
    assert wb.MEMIT.from_yaml(path) == expected
    path.write_text("alg_name: MEMIT\nlayers: [4]\n", encoding="utf-8")
    message = f"{path}: mom2_update_weight is missing; MEMIT has no default for it."
    assert error_of(EditError, lambda: wb.MEMIT.from_yaml(path)) == message


def test_two_answers_to_one_prompt_are_refused(tiny_lm):
    requests = [*REQUESTS, replace(REQUESTS[1], target_new="French")]
    assert error_of(EditError, lambda: FEW.compute_update(tiny_lm, requests)) == (
        "'The mother tongue of Edith Piaf is' is given two answers in one batch, 'English' and 'French'; a batch "
        "writes all its facts at once, so keep one."
    )


def test_no_requests_are_refused(tiny_lm):
    assert error_of(EditError, lambda: FEW.compute_update(tiny_lm, [])) == "MEMIT needs at least one request; got none."


def test_a_layer_out_of_range_is_named(tiny_lm):
    message = error_of(EditError, lambda: replace(FEW, layers=(1, 4)).compute_update(tiny_lm, REQUESTS))
    assert message == f"layer 4 is out of range: {tiny_lm.name} has layers 0 to 3."


def test_a_singular_system_is_refused():
    assert error_of(EditError, lambda: solve_keys(torch.ones(3, 3), torch.eye(3)[:1], 1.0)) == (
        "λ C + K Kᵀ of 3 dimensions is singular; estimate C from more tokens."
    )


def test_a_neuron_that_never_fires_is_left_as_it_is_and_changes_nothing_for_the_others():
    keys = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.0, -1.0]])
    C = torch.diag(torch.tensor([2.0, 0.0, 3.0]))
    firing = torch.tensor([0, 2])
    alone = solve_keys(C[firing][:, firing], keys[:, firing], 0.7)
    solved = solve_keys(C, keys, 0.7)
    torch.testing.assert_close(solved[firing], alone)
    assert torch.equal(solved[1], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("layers", (), "layers must hold at least one block; got none."),
        ("mom2_update_weight", 0.0, "mom2_update_weight must be a positive number; got 0.0."),
        ("v_num_grad_steps", 0, "v_num_grad_steps must be a whole number from 1 to 1000000; got 0."),
        ("facts_at_once", 0, "facts_at_once must be a whole number from 1 to 1000000; got 0."),
        ("v_lr", -1.0, "v_lr must be a positive number; got -1.0."),
        ("contexts", ("A. {}",), "contexts must begin with '{}', the bare prompt, and hold it once each."),
    ],
)
def test_a_hyperparameter_outside_its_range_is_refused(field, value, sentence):
    assert error_of(EditError, lambda: replace(FEW, **{field: value})) == sentence


def test_a_loss_that_is_not_finite_names_the_fact_and_the_step(tiny_lm):
    with torch.no_grad():
        next(tiny_lm.blocks[3].parameters()).fill_(float("nan"))
    assert error_of(EditError, lambda: target_hidden(tiny_lm, FEW, REQUESTS[:1])) == (
        "the loss of 'The Eiffel Tower is in the city of' became nan at step 0; a lower v_lr may help."
    )
