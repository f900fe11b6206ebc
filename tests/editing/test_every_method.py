"""What holds for every editing method on every model family."""

import json
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, target_nll, weights_of
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.errors import EditError, SpecError
from workbench.registry import make_editor, method_row, methods

pytestmark = pytest.mark.usefixtures("cache_of_this_module")

# the subject ends the prompt, so that an edit in any block reaches the target's first token directly
REQUESTS = [
    wb.EditRequest(
        subject="Edith Piaf", prompt="Tell me the mother tongue of {}", target_new="English", target_true="French"
    ),
    wb.EditRequest(subject="HMS Beagle", prompt="We know the year of {}", target_new="1821", target_true="1820"),
]
CONTEXTS = ("{}", "The river. {}")
# tiny random models need other rates than trained ones
FIELDS = {
    "rome": {"contexts": CONTEXTS},
    "r-rome": {"contexts": CONTEXTS},
    "memit": {"contexts": CONTEXTS, "mom2_update_weight": 0.1, "second_moment": wb.SecondMoment(n_tokens=512)},
    "memit-seq": {"contexts": CONTEXTS, "mom2_update_weight": 0.1, "second_moment": wb.SecondMoment(n_tokens=512)},
    "encore": {
        **{"contexts": CONTEXTS, "mom2_update_weight": 0.1, "second_moment": wb.SecondMoment(n_tokens=512)},
        "ridge": 0.01,
    },
    "alphaedit": {
        **{"contexts": CONTEXTS, "second_moment": wb.SecondMoment(n_tokens=512)},
        **{"ridge": 0.01, "null_energy": 0.9},
    },
    # a small step towards the new answer alone: of a random model no more is promised
    "kn": {"contexts": CONTEXTS, "lambda_old": 0.0, "lambda_new": 0.2},
    "mend": {},
    "ft": {"lr": 0.01},
    "ft-l": {"lr": 0.01, "norm_constraint": 0.05},
    "locft-bf": {"lr": 0.01},
    # of one fact, whose answer may be one token
    "ultraedit": {"lr": 0.01, "tokens": "all"},
    "lora": {"lr": 1e-3},
}
FIELDS["emmet"] = FIELDS["memit"]
WITHOUT_KEYS = ("kn", "mend", "ft", "ft-l", "locft-bf", "ultraedit", "lora")

every_method = pytest.mark.parametrize("method", methods())
# what does not depend on the family, where weights lie (d_in, d_out) and (d_out, d_in)
both_layouts = pytest.mark.parametrize("every_tiny_lm", ["gpt2", "llama"], indirect=True)


@pytest.fixture(scope="module")
def editor_of(every_tiny_lm, tmp_path_factory):
    """Give a function from a method's name to its editor for the tiny model; MEND's networks are untrained."""

    def make(method):
        given = dict(FIELDS[method])
        if method == "mend":
            network = MendNetwork.untrained(every_tiny_lm, weights_to_edit(every_tiny_lm), rank=4, edit_lr=0.01)
            given["network"] = str(save_network(network, folder / "mend.safetensors", every_tiny_lm))
        return make_editor(method, every_tiny_lm, given)

    folder = tmp_path_factory.mktemp("networks")
    yield make
    every_tiny_lm.memo.clear()


@pytest.fixture(scope="module")
def first_edit(every_tiny_lm, editor_of):
    """Give a function from a method's name to its edit of the first request, which is computed once for each model."""
    return cache(lambda method: editor_of(method).compute_update(every_tiny_lm, REQUESTS[:1]))


@pytest.fixture(scope="module")
def both_edits(every_tiny_lm, editor_of):
    """Give the same for an edit of both requests at once."""
    return cache(lambda method: editor_of(method).compute_update(every_tiny_lm, REQUESTS))


@every_method
def test_the_edit_lowers_the_targets_nll_and_undo_restores_every_bit(every_tiny_lm, editor_of, method):
    lm, weights = every_tiny_lm, weights_of(every_tiny_lm)
    before = target_nll(lm, REQUESTS[0])
    update = editor_of(method).compute_update(lm, REQUESTS[:1])
    assert_same_bits(lm, weights)
    with update.applied(lm):
        assert target_nll(lm, REQUESTS[0]) < before - 0.01
    assert_same_bits(lm, weights)


@both_layouts
@every_method
def test_computing_leaves_no_gradient_and_no_trace_in_global_random_state(every_tiny_lm, editor_of, method):
    state = torch.random.get_rng_state()
    editor_of(method).compute_update(every_tiny_lm, REQUESTS[:1])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert every_tiny_lm.applied_updates == ()
    assert all(p.grad is None and not p.requires_grad for p in every_tiny_lm.model.parameters())


@both_layouts
@every_method
def test_an_edit_computed_under_no_grad_is_the_same(every_tiny_lm, editor_of, first_edit, method):
    update = first_edit(method)
    with torch.no_grad():
        again = editor_of(method).compute_update(every_tiny_lm, REQUESTS[:1])
    assert all(torch.equal(again.delta(name), update.delta(name)) for name in update)


@both_layouts
@every_method
def test_the_record_replays_the_update_bit_for_bit(every_tiny_lm, editor_of, first_edit, method, tmp_path):
    editor, update = editor_of(method), first_edit(method)
    update.save(tmp_path / "update.safetensors")
    [record] = wb.WeightUpdate.load(tmp_path / "update.safetensors").records
    assert record.method == editor.label
    again = type(editor)(**record.hyperparameters).compute_update(every_tiny_lm, list(record.requests))
    assert list(again) == list(update)
    assert all(torch.equal(again.delta(name), update.delta(name)) for name in update)


@both_layouts
@every_method
def test_the_record_is_the_same_after_saving_and_loading(first_edit, method, tmp_path):
    update = first_edit(method)
    update.save(tmp_path / "update.safetensors")
    [record], [loaded] = update.records, wb.WeightUpdate.load(tmp_path / "update.safetensors").records
    assert loaded.as_dict() == record.as_dict()
    plain = json.loads(json.dumps(record.as_dict()))
    assert {**record.as_dict(), "requests": plain["requests"]} == plain  # JSON values, which requests become
    assert loaded.keys.keys() == record.keys.keys()
    assert all(torch.equal(loaded.keys[name], keys) for name, keys in record.keys.items())


@contextmanager
def count_passes_with_gradients(lm):
    """Count in a list the forward passes whose logits carry a gradient: those that an optimization makes."""
    passes = []
    handle = lm.model.register_forward_hook(lambda module, args, output: passes.append(output.logits.requires_grad))
    try:
        yield passes
    finally:
        handle.remove()


@both_layouts
@every_method
@pytest.mark.parametrize("stops_at_once", [False, True])
def test_the_steps_of_the_record_are_the_passes_of_each_optimization(every_tiny_lm, editor_of, method, stops_at_once):
    lm, editor = every_tiny_lm, editor_of(method)
    if method in ("kn", "mend", "ultraedit"):  # which optimize nothing
        [record] = editor.compute_update(lm, REQUESTS[:1]).records
        assert record.losses == record.steps == ()
        return
    n_steps = method_row(method).options["steps"]
    threshold = {"v_num_grad_steps": "v_loss_threshold", "num_steps": "loss_threshold"}[n_steps]
    editor = replace(editor, **{n_steps: 3, threshold: 1e9 if stops_at_once else 0.0}).prepared(lm)
    with count_passes_with_gradients(lm) as passes:
        [record] = editor.compute_update(lm, REQUESTS[:1]).records
    assert record.steps == (1 if stops_at_once else 3,) == (sum(passes),)
    [losses] = record.losses
    assert losses[0] > 0
    assert stops_at_once or losses[-1] < losses[0]


@pytest.mark.slow
@every_method
def test_keys_are_one_row_per_request_as_wide_as_the_weights_input(every_tiny_lm, first_edit, both_edits, method):
    lm, batch = every_tiny_lm, method_row(method).supports_batch
    update, requests = (both_edits(method), REQUESTS) if batch else (first_edit(method), REQUESTS[:1])
    [record] = update.records
    assert set(record.keys) == (set() if method in WITHOUT_KEYS else set(update))
    for name, keys in record.keys.items():
        assert keys.shape == (len(requests), lm.linear_shape(name)[0])
        assert (keys.dtype, keys.device.type) == (torch.float32, "cpu")
        # every edit moves what its keys are mapped to
        dW = update.delta(name).T if lm.arch.conv1d else update.delta(name)
        assert (dW @ keys.T).norm(dim=0).min() > 0


@both_layouts
@every_method
def test_a_fact_without_a_subject_is_written_or_refused_in_one_sentence(every_tiny_lm, editor_of, method):
    lm, editor = every_tiny_lm, editor_of(method)
    request = wb.EditRequest(subject=None, prompt="Tell me the mother tongue", target_new="English", target_true="it")
    if method_row(method).needs_subject:
        assert error_of(EditError, editor.compute_update, lm, [request]) == (
            f"{editor.label} writes at the subject of a fact, and 'Tell me the mother tongue' has none marked; name it."
        )
        return
    before = target_nll(lm, request)
    with editor.compute_update(lm, [request]).applied(lm):
        assert target_nll(lm, request) < before


@both_layouts
@every_method
def test_the_relative_norm_is_what_dense_algebra_gives(every_tiny_lm, first_edit, method):
    lm, update = every_tiny_lm, first_edit(method)
    squares = [(lm.weight(name).double().square().sum(), update.delta(name).double().square().sum()) for name in update]
    of_weights, of_deltas = (float(sum(column)) for column in zip(*squares, strict=True))
    assert update.relative_norm(lm) == pytest.approx((of_deltas / of_weights) ** 0.5, rel=1e-6)


@every_method
def test_a_batch_is_one_operation_or_refused_in_one_sentence(every_tiny_lm, editor_of, both_edits, method):
    lm, editor = every_tiny_lm, editor_of(method)
    if not editor.supports_batch:
        with pytest.raises(wb.WorkbenchError) as caught:
            editor.compute_update(lm, REQUESTS)
        name = type(editor).__name__
        sentence = f"{name} edits one fact per operation; got 2 requests, apply them in sequence."
        assert str(caught.value) == sentence
        return
    before = sum(target_nll(lm, request) for request in REQUESTS)
    update = both_edits(method)
    [record] = update.records
    assert record.requests == tuple(REQUESTS)
    # each fact is optimized by itself, the batch as a whole, or nothing at all
    assert len(record.steps) == {"mend": 0, "ultraedit": 0, "ft": 1, "ft-l": 1, "locft-bf": 1, "lora": 1}.get(method, 2)
    assert all(len(keys) == 2 for keys in record.keys.values())
    with update.applied(lm):
        assert sum(target_nll(lm, request) for request in REQUESTS) < before


# of the model, what KN writes depends only on the neurons that it finds: tests/editing/test_kn.py
@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in methods() if method != "kn"])
def test_the_second_edit_of_a_sequence_is_computed_on_the_edited_model(every_tiny_lm, editor_of, first_edit, method):
    lm, editor = every_tiny_lm, editor_of(method)
    alone = editor.compute_update(lm, REQUESTS[1:])
    with first_edit(method).applied(lm):
        after = editor.compute_update(lm, REQUESTS[1:])
    assert any(name not in alone or not torch.equal(after.delta(name), alone.delta(name)) for name in after)


@both_layouts
@every_method
def test_every_hyperparameter_can_be_set_by_name_and_no_other(every_tiny_lm, editor_of, method):
    editor = editor_of(method)
    for field in fields(editor):
        assert replace(editor, **{field.name: getattr(editor, field.name)}) == editor
    with pytest.raises(SpecError) as caught:
        make_editor(method, every_tiny_lm, {"no_such_field": 1})
    known = ", ".join(field.name for field in fields(editor))
    assert str(caught.value) == f"{method} has no hyperparameter 'no_such_field'; known: {known}."


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(SpecError) as caught:
        method_row("grace")
    assert str(caught.value) == f"no method 'grace'; known: {', '.join(methods())}."
