"""What holds for every editing method on every model family."""

from dataclasses import fields, replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import workbench as wb
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.errors import SpecError
from workbench.registry import METHODS, editor_class, editor_for

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
    # a small step towards the new answer alone: of a random model no more is promised
    "kn": {"contexts": CONTEXTS, "lambda_old": 0.0, "lambda_new": 0.2},
    "mend": {},
    "ft": {"lr": 0.01},
    "ft-l": {"lr": 0.01, "norm_constraint": 0.05},
}

every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module", autouse=True)
def cache_of_this_module(tmp_path_factory):
    """Keep second moments of tiny models out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def editor_of(tmp_path, every_tiny_lm):
    """Give a function from a method's name to its editor for the tiny model; MEND's networks are fresh ones."""

    def make(method):
        given = dict(FIELDS[method])
        if method == "mend":
            network = MendNetwork.fresh(every_tiny_lm, weights_to_edit(every_tiny_lm), rank=4, edit_lr=0.01)
            given["network"] = str(save_network(network, tmp_path / "mend.safetensors", every_tiny_lm))
        return editor_for(method, every_tiny_lm, given)

    yield make
    every_tiny_lm.memo.clear()


@torch.no_grad()
def target_nll(lm, request):
    """Mean NLL of the target's tokens after the prompt, in one whole unpadded pass."""
    n_prompt = len(lm.tokenizer(request.filled_prompt)["input_ids"])
    ids = torch.tensor([lm.tokenizer(f"{request.filled_prompt} {request.target_new}")["input_ids"]])
    return float(cross_entropy(lm.model(ids).logits[0, n_prompt - 1 : -1], ids[0, n_prompt:]))


def weights_of(lm):
    return {name: parameter.clone() for name, parameter in lm.model.named_parameters()}


def is_as(lm, weights):
    return all(torch.equal(parameter, weights[name]) for name, parameter in lm.model.named_parameters())


@every_method
def test_the_edit_lowers_the_targets_nll_and_undo_restores_every_bit(every_tiny_lm, editor_of, method):
    lm, weights = every_tiny_lm, weights_of(every_tiny_lm)
    before = target_nll(lm, REQUESTS[0])
    update = editor_of(method).compute_update(lm, REQUESTS[:1])
    assert is_as(lm, weights)
    with update.applied(lm):
        assert target_nll(lm, REQUESTS[0]) < before - 0.01
    assert is_as(lm, weights)


@every_method
def test_computing_leaves_no_gradient_and_no_trace_in_global_random_state(every_tiny_lm, editor_of, method):
    state = torch.random.get_rng_state()
    editor_of(method).compute_update(every_tiny_lm, REQUESTS[:1])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert every_tiny_lm.applied_updates == ()
    assert all(p.grad is None and not p.requires_grad for p in every_tiny_lm.model.parameters())


@every_method
def test_an_edit_computed_under_no_grad_is_the_same(every_tiny_lm, editor_of, method):
    editor = editor_of(method)
    update = editor.compute_update(every_tiny_lm, REQUESTS[:1])
    with torch.no_grad():
        again = editor.compute_update(every_tiny_lm, REQUESTS[:1])
    assert all(torch.equal(again.delta(name), update.delta(name)) for name in update)


@every_method
def test_the_record_replays_the_update_bit_for_bit(every_tiny_lm, editor_of, method, tmp_path):
    editor = editor_of(method)
    update = editor.compute_update(every_tiny_lm, REQUESTS[:1])
    update.save(tmp_path / "update.safetensors")
    [record] = wb.WeightUpdate.load(tmp_path / "update.safetensors").info
    assert record["method"] == editor.label
    request = record["requests"][0]
    again = type(editor)(**record["hyperparameters"]).compute_update(
        every_tiny_lm, [wb.EditRequest(**{**request, "locality": ()})]
    )
    assert list(again) == list(update)
    assert all(torch.equal(again.delta(name), update.delta(name)) for name in update)


@every_method
def test_a_batch_is_one_operation_or_refused_in_one_sentence(every_tiny_lm, editor_of, method):
    lm, editor = every_tiny_lm, editor_of(method)
    if not editor.supports_batch:
        with pytest.raises(wb.WorkbenchError) as caught:
            editor.compute_update(lm, REQUESTS)
        sentence = (
            f"{editor_class(method).__name__} edits one fact an operation; got 2 requests, apply them in sequence."
        )
        assert str(caught.value) == sentence
        return
    before = sum(target_nll(lm, request) for request in REQUESTS)
    update = editor.compute_update(lm, REQUESTS)
    [info] = update.info
    assert len(info["requests"]) == 2
    with update.applied(lm):
        assert sum(target_nll(lm, request) for request in REQUESTS) < before


# what KN writes hangs on the model only by which neurons it finds: tests/editing/test_kn.py
@pytest.mark.parametrize("method", [method for method in METHODS if method != "kn"])
def test_the_second_edit_of_a_sequence_is_computed_on_the_edited_model(every_tiny_lm, editor_of, method):
    lm, editor = every_tiny_lm, editor_of(method)
    alone = editor.compute_update(lm, REQUESTS[1:])
    with editor.compute_update(lm, REQUESTS[:1]).applied(lm):
        after = editor.compute_update(lm, REQUESTS[1:])
    assert any(name not in alone or not torch.equal(after.delta(name), alone.delta(name)) for name in after)


@every_method
def test_every_hyperparameter_can_be_set_by_name_and_no_other(every_tiny_lm, editor_of, method):
    editor = editor_of(method)
    for field in fields(editor):
        assert replace(editor, **{field.name: getattr(editor, field.name)}) == editor
    with pytest.raises(SpecError) as caught:
        editor_for(method, every_tiny_lm, {"no_such_field": 1})
    known = ", ".join(field.name for field in fields(editor))
    assert str(caught.value) == f"{method} has no hyperparameter 'no_such_field'; known: {known}."


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(SpecError) as caught:
        editor_class("grace")
    assert str(caught.value) == "no method 'grace'; known: rome, r-rome, memit, kn, mend, ft, ft-l."
