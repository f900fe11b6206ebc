"""What holds for every editing method on models in bfloat16 and float16."""

from functools import cache

import pytest
import torch

import workbench as wb
from tests.editing.quick_editors import make_quick_editor
from tests.editing.test_every_method import REQUESTS
from tests.helpers import assert_same_bits, target_nll, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.registry import methods

pytestmark = pytest.mark.usefixtures("cache_of_this_module")

every_method = pytest.mark.parametrize("method", methods())


@pytest.fixture(scope="module", params=["gpt2-bfloat16", "gpt2-float16", "llama-bfloat16", "llama-float16"])
def half_lm(request):
    """Give a tiny model in half precision; shared, so a test undoes what it applies."""
    model_type, _, dtype = request.param.partition("-")
    return build_tiny_lm(model_type, dtype=getattr(torch, dtype))


@pytest.fixture(scope="module")
def edit(half_lm, tmp_path_factory):
    """Give a function from a method's name to its edit of one fact, which is computed once for each model."""
    folder = tmp_path_factory.mktemp("editors")
    return cache(lambda method: make_quick_editor(method, half_lm, folder).compute_update(half_lm, REQUESTS[:1]))


@every_method
def test_an_edit_is_computed_in_float32_and_lowers_the_targets_nll(half_lm, edit, method):
    before, update = target_nll(half_lm, REQUESTS[0]), edit(method)
    assert {update.delta(name).dtype for name in update} == {torch.float32}
    with update.applied(half_lm):
        assert target_nll(half_lm, REQUESTS[0]) < before


@every_method
def test_losses_are_not_rounded_to_half_precision(half_lm, edit, method):
    losses = torch.tensor([loss for steps in edit(method).records[0].losses for loss in steps], dtype=torch.float64)
    rounded = losses.to(half_lm.model.dtype).double()
    assert (losses != rounded).all()
    assert len(losses) == (0 if method in ("kn", "mend", "ultraedit") else 3)


@every_method
def test_two_edits_add_up_in_float32_and_undo_restores_every_bit(half_lm, edit, method):
    weights, update = weights_of(half_lm), edit(method)
    again = wb.RECT(keep=0.4)(update, half_lm)
    with update.applied(half_lm), again.applied(half_lm):
        for name in update:
            expected = weights[name].float() + update.delta(name) + again.delta(name)
            assert torch.equal(half_lm.weight(name), expected)
            assert torch.equal(half_lm.model.get_parameter(name), expected.to(half_lm.model.dtype))
    assert_same_bits(half_lm, weights)


def test_an_edited_model_is_evaluated(half_lm, edit):
    with edit("rome").applied(half_lm):
        scores = wb.evaluate_edits(half_lm, REQUESTS[:1])
        log_probs = wb.evaluate_tasks(half_lm, tasks=("sentiment", "closed_qa"), limit=1).set_index("metric")["value"]
    assert "reliability" in set(scores["metric"])
    assert scores["value"].between(0, 1).all()
    smooth = log_probs[[name for name in log_probs.index if "log_likelihood" in name]]
    assert len(smooth)
    assert (smooth < 0).all()
