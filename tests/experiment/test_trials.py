"""Single edits of a tiny model, without a store."""

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, weights_of
from workbench.errors import SpecError
from workbench.experiment import trials

REQUESTS = [
    wb.EditRequest(
        subject=subject,
        prompt="The city of {} lies in",
        target_new=new,
        target_true="France",
        rephrase=("Where is {}? In",),
        locality=(wb.LocalityProbe(prompt="The river Rhine flows through", target="Basel"),),
    )
    for subject, new in (("Paris", "Italy"), ("Lyon", "Spain"), ("Lille", "Norway"))
]


def rome(lm: wb.LanguageModel) -> wb.ROME:
    return wb.ROME(layer=1, v_num_grad_steps=4, contexts=("{}", "So. {}"))


def test_single_edits_are_each_computed_on_the_unedited_model(tiny_lm):
    before = weights_of(tiny_lm)
    updates = trials.compute_single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    alone = rome(tiny_lm).compute_update(tiny_lm, [REQUESTS[2]])
    name = next(iter(alone))
    assert torch.equal(updates[2].delta(name), alone.delta(name))
    assert_same_bits(tiny_lm, before)


def test_single_edits_are_scored_under_every_regularizer_and_undone(tiny_lm):
    before = weights_of(tiny_lm)
    updates = trials.compute_single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    scores = trials.score_single_edits(tiny_lm, updates, REQUESTS, [wb.Unregularized(), wb.RECT(0.4)])
    assert_same_bits(tiny_lm, before)
    assert scores.groupby(["regularizer", "metric", "protocol"]).size().tolist() == [3] * 18
    with wb.RECT(0.4)(updates[1], tiny_lm).applied(tiny_lm):
        alone = wb.score_edits(tiny_lm, [REQUESTS[1]])
    mine = scores[(scores.request == 1) & (scores.regularizer == "RECT 40 %")]
    assert mine["value"].tolist() == alone["value"].tolist()


def memit() -> wb.MEMIT:
    moment = wb.SecondMoment(n_tokens=256)
    return wb.MEMIT((0, 1), 1.0, v_num_grad_steps=2, contexts=("{}",), second_moment=moment)


def test_batches_are_one_operation_each_and_scored_fact_by_fact(tiny_lm, own_cache):
    before = weights_of(tiny_lm)
    updates = trials.compute_single_updates(tiny_lm, memit(), REQUESTS, batch_size=2)
    assert [len(update.records[0].requests) for update in updates] == [2, 1]
    scores = trials.score_single_edits(tiny_lm, updates, REQUESTS, [wb.Unregularized()], batch_size=2)
    assert_same_bits(tiny_lm, before)
    assert scores.groupby(["metric", "protocol"])["request"].apply(list).tolist() == [[0, 1, 2]] * 9
    with updates[0].applied(tiny_lm):
        together = wb.score_edits(tiny_lm, REQUESTS[:2])
    assert scores[scores["request"] < 2]["value"].tolist() == together["value"].tolist()


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (2, "ROME edits one fact per operation, so batch_size must be 1; got 2."),
        (0, "batch_size must be at least 1; got 0."),
    ],
)
def test_a_batch_that_a_method_cannot_edit_is_refused(tiny_lm, size, sentence):
    with pytest.raises(SpecError) as err:
        trials.compute_single_updates(tiny_lm, rome(tiny_lm), REQUESTS, batch_size=size)
    assert str(err.value) == sentence
