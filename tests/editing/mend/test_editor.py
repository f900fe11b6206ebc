"""MEND against autograd, the paper's equations written naively, and the model's own forward pass, on every family."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from tests.editing.mend.networks import EDIT_LR, LONG, REQUEST, fresh, shaken
from tests.helpers import assert_same_bits, ids_of, target_nll, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.editing.mend.editor import MEND
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import save_network


@pytest.fixture
def editor(tmp_path):
    """Give a function that saves networks for a model and makes the editor that uses them."""
    paths = iter(tmp_path / f"{i}.safetensors" for i in range(100))

    def make(lm, network=None, training=None, **fields) -> MEND:
        return MEND(network=str(save_network(network or fresh(lm), next(paths), lm, training=training)), **fields)

    return make


@pytest.fixture(autouse=True)
def _no_memo_left(request):
    yield
    if "every_tiny_lm" in request.fixturenames:
        request.getfixturevalue("every_tiny_lm").memo.clear()


def gradients(lm, request):
    """Gradient of the target's NLL with respect to each edited weight, by autograd on the weights themselves."""
    weights = {name: lm.model.get_parameter(name) for name in weights_to_edit(lm)}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        found = torch.autograd.grad(target_nll(lm, request), list(weights.values()))
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)
    return dict(zip(weights, found, strict=True))


def factors_by_hooks(lm, request, name):
    """u and δ of one layer, token by token, from module hooks in one unpadded pass."""
    seen = {}
    module = lm.model.get_submodule(name.removesuffix(".weight"))
    handles = [
        module.register_forward_hook(lambda m, args, out: seen.update(u=args[0].detach(), out=out)),
    ]
    embedding = lm.model.get_input_embeddings().weight.requires_grad_(True)
    try:
        loss = target_nll(lm, request)
        (delta,) = torch.autograd.grad(loss, [seen["out"]])
    finally:
        embedding.requires_grad_(False)
        for handle in handles:
            handle.remove()
    u = seen["u"].reshape(-1, seen["u"].shape[-1]).double()
    return u, delta.reshape(-1, delta.shape[-1]).double()


def naive_update(network, name, u, delta):
    """ΔW (d_out, d_in) by eq. 3 of the paper, a token and a layer at a time, in float64."""
    shape = network.shapes[name]
    index = [n for n in network.names if network.shapes[n] == shape].index(name)
    state = {key: tensor.double() for key, tensor in network.state_dict().items()}
    of = f"transforms.{shape[0]}x{shape[1]}"
    dW = torch.zeros(shape[1], shape[0], dtype=torch.float64)
    for u_t, delta_t in zip(u, delta, strict=True):
        if not delta_t.any():
            continue
        z = (torch.cat([u_t, delta_t]) - state[f"{of}.mean"][index]) / state[f"{of}.std"][index]
        for layer in (0, 1):
            p = {k: state[f"{of}.layers.{layer}.{k}"] for k in ("U", "V", "bias", "scale", "shift")}
            inner = p["scale"][index] * (p["U"] @ (p["V"] @ z) + p["bias"]) + p["shift"][index]
            z = z + torch.maximum(inner, torch.zeros_like(inner))
        alpha = math.exp(state["log_edit_lr"][network.names.index(name)])
        dW -= alpha * torch.outer(z[shape[0] :], z[: shape[0]])
    return dW


def relative_difference(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


# the update


def test_with_untrained_networks_the_update_is_one_gradient_step(every_tiny_lm, editor):
    lm = every_tiny_lm
    update = editor(lm).compute_update(lm, [REQUEST])
    expected = gradients(lm, REQUEST)
    assert set(update) == set(expected)
    for name, gradient in expected.items():
        assert relative_difference(update.delta(name), -EDIT_LR * gradient) < 1e-4


def test_the_update_is_that_of_the_papers_equations_token_by_token(every_tiny_lm, editor):
    lm = every_tiny_lm
    network = shaken(lm)
    update = editor(lm, network).compute_update(lm, [REQUEST])
    for name in network.names:
        dW = update.delta(name).T if lm.arch.conv1d else update.delta(name)
        assert relative_difference(dW, naive_update(network, name, *factors_by_hooks(lm, REQUEST, name))) < 1e-3


def test_by_default_every_mlp_matrix_of_the_last_three_blocks_is_edited(every_tiny_lm, editor):
    lm = every_tiny_lm
    names = set(editor(lm).compute_update(lm, [REQUEST]))
    within = [f"{lm.arch.blocks}.{i}." for i in (1, 2, 3)]
    mlp = ("mlp", "fc1", "fc2")  # OPT has its two matrices in the block itself
    expected = {
        name
        for name, parameter in lm.model.named_parameters()
        if parameter.dim() == 2 and any(name.startswith(w) and name[len(w) :].startswith(mlp) for w in within)
    }
    assert names == expected


def test_the_edit_lowers_the_nll_of_its_target(every_tiny_lm, editor):
    lm = every_tiny_lm
    before = float(target_nll(lm, REQUEST))
    with editor(lm).compute_update(lm, [REQUEST]).applied(lm):
        assert float(target_nll(lm, REQUEST)) < before - 0.05


def test_undo_restores_every_bit_of_weights_and_logits(every_tiny_lm, editor):
    lm, text = every_tiny_lm, torch.tensor([ids_of(every_tiny_lm, REQUEST.filled_prompt)])
    weights, logits = weights_of(lm), lm.model(text).logits
    update = editor(lm).compute_update(lm, [REQUEST])
    update.apply(lm)
    assert not torch.equal(lm.model(text).logits, logits)
    update.undo(lm)
    assert torch.equal(lm.model(text).logits, logits)
    assert_same_bits(lm, weights)


def test_computing_changes_no_weight_and_no_global_random_state(every_tiny_lm, editor):
    lm = every_tiny_lm
    mend, weights, state = editor(lm), weights_of(lm), torch.random.get_rng_state()
    mend.compute_update(lm, [REQUEST])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert lm.applied_updates == ()
    assert_same_bits(lm, weights)
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


# batches and padding


def test_a_batch_is_the_sum_of_its_facts_times_a_trained_power_and_padding_adds_nothing(every_tiny_lm, editor):
    lm = every_tiny_lm
    network = shaken(lm)
    mend, exponents = editor(lm, network), dict(zip(network.names, network.batch_exponent.tolist(), strict=True))
    assert any(abs(exponent) > 0.01 for exponent in exponents.values())
    alone = [mend.compute_update(lm, [request]) for request in (REQUEST, LONG)]
    batch = mend.compute_update(lm, [REQUEST, LONG])
    lengths = [len(lm.tokenizer(f"{r.filled_prompt} {r.target_new}")["input_ids"]) for r in (REQUEST, LONG)]
    assert lengths[0] < lengths[1]  # so the first is padded
    for name in batch:
        expected = 2 ** -exponents[name] * (alone[0].delta(name) + alone[1].delta(name))
        assert relative_difference(batch.delta(name), expected) < 1e-4
        assert batch[name].rows.shape[1] == sum(update[name].rows.shape[1] for update in alone)


def test_what_stands_in_the_padding_does_not_matter(tiny_lm, editor):
    mend = editor(tiny_lm, shaken(tiny_lm))
    first = mend.compute_update(tiny_lm, [REQUEST, LONG])
    tiny_lm.tokenizer.pad_token = tiny_lm.tokenizer.convert_ids_to_tokens(70)
    try:
        second = mend.compute_update(tiny_lm, [REQUEST, LONG])
    finally:
        tiny_lm.tokenizer.pad_token = "<pad>" if tiny_lm.arch.name == "Llama" else None
    for name in first:
        assert torch.equal(first.delta(name), second.delta(name))


def test_only_tokens_with_a_gradient_have_a_factor(tiny_lm, editor):
    update = editor(tiny_lm).compute_update(tiny_lm, [REQUEST])
    n_prompt = len(ids_of(tiny_lm, REQUEST.filled_prompt))
    n_all = len(ids_of(tiny_lm, f"{REQUEST.filled_prompt} {REQUEST.target_new}"))
    ranks = update.records[0].diagnostics["rank"]
    last, first = tiny_lm.arch.mlp_out_weight(3), tiny_lm.arch.mlp_out_weight(1)
    assert ranks[last] == n_all - n_prompt  # above the last block nothing looks back at the prompt
    assert ranks[first] == n_all - 1  # the last target token is predicted, never read


def test_a_model_in_bfloat16_is_edited_through_its_float32_masters(editor):
    lm = build_tiny_lm("llama", dtype=torch.bfloat16)
    before = float(target_nll(lm, REQUEST))
    update = editor(lm).compute_update(lm, [REQUEST])
    assert {update.delta(name).dtype for name in update} == {torch.float32}
    with update.applied(lm):
        assert float(target_nll(lm, REQUEST)) < before


# batches beyond those of the training

TRAINED_ON_TWO = {"settings": {"batch_sizes": [1, 2, 1]}}


def others(n):
    return [replace(REQUEST, subject=f"Tower {i}") for i in range(n)]


def test_an_edit_of_no_more_facts_than_in_training_is_the_plain_sum_to_the_bit(tiny_lm, editor):
    network = shaken(tiny_lm)
    for n in (1, 2):
        unscaled = editor(tiny_lm, network).compute_update(tiny_lm, others(n))
        for how in ("scaled", "summed"):
            mend = editor(tiny_lm, network, TRAINED_ON_TWO, larger_batches=how)
            update = mend.compute_update(tiny_lm, others(n))
            assert all(torch.equal(update.delta(name), unscaled.delta(name)) for name in network.names)


def test_an_edit_of_three_times_as_many_facts_as_in_training_is_a_third_of_the_sum(tiny_lm, editor):
    network = fresh(tiny_lm)
    scaled, summed = (
        editor(tiny_lm, network, TRAINED_ON_TWO, larger_batches=how).compute_update(tiny_lm, others(6))
        for how in ("scaled", "summed")
    )
    alone = [editor(tiny_lm, network).compute_update(tiny_lm, [request]) for request in others(6)]
    for name in network.names:
        total = sum(update.delta(name) for update in alone)
        assert relative_difference(summed.delta(name), total) < 1e-4
        assert relative_difference(scaled.delta(name), total / 3) < 1e-4


def test_the_trained_power_stops_at_the_largest_batch_of_the_training(tiny_lm, editor):
    network = shaken(tiny_lm)
    update = editor(tiny_lm, network, {"largest_batch": 1}).compute_update(tiny_lm, others(3))
    alone = [editor(tiny_lm, network).compute_update(tiny_lm, [request]) for request in others(3)]
    for name in network.names:
        mean = sum(single.delta(name) for single in alone) / 3
        assert relative_difference(update.delta(name), mean) < 1e-4


@pytest.mark.parametrize("training", [None, {"steps": 3}])
def test_networks_of_unknown_training_sum_any_number_of_facts(tiny_lm, editor, training):
    network = fresh(tiny_lm)
    scaled, summed = (
        editor(tiny_lm, network, training, larger_batches=how).compute_update(tiny_lm, others(6))
        for how in ("scaled", "summed")
    )
    assert all(torch.equal(scaled.delta(name), summed.delta(name)) for name in network.names)
    assert scaled.records[0].diagnostics["largest_trained_batch"] is None
    assert scaled.records[0].diagnostics["batch_scale"] == 1


@pytest.mark.parametrize(("how", "n", "scale"), [("scaled", 2, 1), ("scaled", 5, 0.4), ("summed", 5, 1)])
def test_the_record_says_by_what_the_sum_was_scaled(tiny_lm, editor, how, n, scale):
    mend = editor(tiny_lm, None, TRAINED_ON_TWO, larger_batches=how)
    (record,) = mend.compute_update(tiny_lm, others(n)).records
    assert record.diagnostics["largest_trained_batch"] == 2
    assert record.diagnostics["batch_scale"] == scale
    assert record.hyperparameters["larger_batches"] == how


# hyperparameters


def test_lr_scale_multiplies_the_update(tiny_lm, editor):
    mend = editor(tiny_lm, shaken(tiny_lm))
    once, twice = (m.compute_update(tiny_lm, [REQUEST]) for m in (mend, replace(mend, lr_scale=2.0)))
    for name in once:
        assert torch.allclose(2 * once.delta(name), twice.delta(name))


def test_inner_params_choose_among_the_matrices_of_the_network(tiny_lm, editor):
    name = tiny_lm.arch.mlp_out_weight(2)
    whole = editor(tiny_lm).compute_update(tiny_lm, [REQUEST])
    part = editor(tiny_lm, inner_params=[name]).compute_update(tiny_lm, [REQUEST])
    assert list(part) == [name]
    assert relative_difference(part.delta(name), whole.delta(name)) < 1e-5


def test_the_second_edit_of_a_sequence_is_computed_on_the_edited_model(tiny_lm, editor):
    mend = editor(tiny_lm)
    alone = mend.compute_update(tiny_lm, [LONG])
    with mend.compute_update(tiny_lm, [REQUEST]).applied(tiny_lm):
        after, expected = mend.compute_update(tiny_lm, [LONG]), gradients(tiny_lm, LONG)
    for name, gradient in expected.items():
        assert relative_difference(after.delta(name), -EDIT_LR * gradient) < 1e-4
    assert any(relative_difference(after.delta(name), alone.delta(name)) > 1e-3 for name in after)


def test_each_model_is_edited_by_its_own_network(editor):
    first, second = build_tiny_lm("llama"), build_tiny_lm("llama", seed=1)
    mends = [editor(lm) for lm in (first, second)]
    for lm, mend in zip((first, second), mends, strict=True):
        name = lm.arch.mlp_out_weight(3)
        delta = mend.compute_update(lm, [REQUEST]).delta(name)
        assert relative_difference(delta, -EDIT_LR * gradients(lm, REQUEST)[name]) < 1e-4


def test_a_file_that_is_replaced_is_read_again(tiny_lm, tmp_path):
    path = tmp_path / "mend.safetensors"
    name = tiny_lm.arch.mlp_out_weight(3)
    norms = []
    for edit_lr in (0.01, 0.02):
        save_network(fresh(tiny_lm, edit_lr=edit_lr), path, tiny_lm)
        norms.append(float(MEND(network=str(path)).compute_update(tiny_lm, [REQUEST]).delta(name).norm()))
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-5)


# the record


def test_an_update_can_be_replayed_from_its_own_record(tiny_lm, editor):
    update = editor(tiny_lm, shaken(tiny_lm), lr_scale=0.5).compute_update(tiny_lm, [REQUEST, LONG])
    record = json.loads(json.dumps(update.records[0].as_dict()))  # as from a file
    again = MEND(**record["hyperparameters"]).compute_update(tiny_lm, [REQUEST, LONG])
    for name in update:
        assert torch.equal(again.delta(name), update.delta(name))


def test_the_record_holds_what_dense_algebra_and_the_model_give(every_tiny_lm, editor):
    lm = every_tiny_lm
    mend = editor(lm, shaken(lm))
    update = mend.compute_update(lm, [REQUEST, LONG])
    (record,) = update.records
    assert record.method == "MEND"
    assert record.requests == (REQUEST, LONG)
    assert record.hyperparameters == asdict(mend)
    assert record.losses == ()
    losses = [float(target_nll(lm, r)) for r in (REQUEST, LONG)]
    assert record.diagnostics["loss_before_edit"] == pytest.approx(losses, rel=1e-4)
    assert (update.model, update.fingerprint) == (lm.name, lm.fingerprint)
