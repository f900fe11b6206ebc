"""What an assessment measures, against plain forward passes and algebra, and what a guard lets through."""

from dataclasses import dataclass, replace

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, weights_of
from workbench.assessment import assess_side_by_side
from workbench.changes import Dense
from workbench.errors import SpecError
from workbench.evaluation.perplexity import read_windows
from workbench.registry import make_editor

FACT = wb.EditRequest(subject="The Eiffel Tower", prompt="We know that {} is in the city of", target_new="Rome, Italy")
ROME = wb.ROME(layer=1, v_num_grad_steps=3, contexts=("{}", "The river. {}"))


def scaled(lm, update, factor):
    """The update with factor times its ΔW."""
    changes = {name: Dense(factor * update.delta(name)) for name in update}
    return replace(update, changes=changes)


@dataclass(frozen=True)
class TooLong:
    """ROME with a ΔW that is longer than the weight."""

    factor: float
    label = "TooLong"
    supports_batch = False

    def prepared(self, lm):
        return self

    def compute_update(self, lm, requests):
        return scaled(lm, ROME.compute_update(lm, requests), self.factor)


def test_the_divergence_is_that_of_plain_passes_over_four_texts(tiny_lm):
    update = scaled(tiny_lm, ROME.compute_update(tiny_lm, [FACT]), 30.0)
    rows = read_windows(tiny_lm, "articles", window=16, limit=4)

    def log_probs():
        with torch.no_grad():
            logits = [tiny_lm.model(torch.tensor([row])).logits[0] for row in rows]
        return torch.cat(logits).double().log_softmax(dim=-1)

    before = log_probs()
    with update.applied(tiny_lm):
        after = log_probs()
    expected = float((before.exp() * (before - after)).sum(dim=1).mean())
    assert wb.assess(update, tiny_lm).kl == pytest.approx(expected, rel=1e-4)
    assert len(before) == 64


def test_the_condition_number_grows_as_singular_values_say(tiny_lm):
    update = scaled(tiny_lm, ROME.compute_update(tiny_lm, [FACT]), 30.0)
    [name] = update
    W = tiny_lm.weight(name).double()
    values = [torch.linalg.svdvals(each) for each in (W, W + update.delta(name).double())]
    expected = (values[1][0] / values[1][-1]) / (values[0][0] / values[0][-1])
    found = wb.assess(update, tiny_lm)
    assert found.condition_growth == pytest.approx(float(expected), rel=1e-5)
    assert found.spectral_ratio == pytest.approx(
        float(torch.linalg.svdvals(update.delta(name).double())[0] / values[0][0]), rel=1e-5
    )


def test_on_top_of_edits_the_current_model_is_what_an_update_is_compared_with(tiny_lm):
    first = scaled(tiny_lm, ROME.compute_update(tiny_lm, [FACT]), 30.0)
    nothing = scaled(tiny_lm, first, 0.0)
    with first.applied(tiny_lm):
        found = wb.assess(nothing, tiny_lm)
    assert (found.kl, found.condition_growth) == (0.0, pytest.approx(1.0))
    assert not found.is_high


def test_assessments_side_by_side_are_those_one_after_another(tiny_lm):
    update = ROME.compute_update(tiny_lm, [FACT])
    updates = [scaled(tiny_lm, update, 30.0), wb.RECT(0.2)(update, tiny_lm), wb.PRUNE()(update, tiny_lm)]
    before = weights_of(tiny_lm)
    for earlier in (scaled(tiny_lm, update, 0.0), scaled(tiny_lm, update, 10.0)):
        with earlier.applied(tiny_lm):
            together = assess_side_by_side(updates, tiny_lm)
            alone = [wb.assess(each, tiny_lm) for each in updates]
        for found, expected in zip(together, alone, strict=True):
            assert found.kl == pytest.approx(expected.kl, rel=1e-3, abs=1e-7)
            assert replace(found, kl=expected.kl) == expected
    assert_same_bits(tiny_lm, before)


def test_an_assessment_leaves_every_bit_of_the_model(tiny_lm):
    update = ROME.compute_update(tiny_lm, [FACT])
    weights = weights_of(tiny_lm)
    wb.assess(update, tiny_lm)
    assert_same_bits(tiny_lm, weights)


def test_it_says_what_is_unusual():
    found = wb.Assessment(3.21, 13.5, 4.0, 0.085, True)
    assert str(found) == (
        "high risk: predictions on other text move by 3.2 nats a token; "
        "the subject is one token that opens the prompt, uᵀk is 0.085, σ₁(ΔW) is 14 times that of W"
    )
    usual = wb.Assessment(0.01, 0.5, 1.0, 5.0, False)
    assert (usual.reasons, usual.is_high) == ((), False)
    assert replace(usual, kl=float("nan")).is_high


def test_a_guard_lets_ordinary_edits_through_as_they_are(tiny_lm):
    guarded, plain = wb.EditSequence(tiny_lm, guard=wb.Guard(limit=10.0)), wb.EditSequence(tiny_lm)
    one, other = (sequence.edit([FACT], ROME) for sequence in (guarded, plain))
    assert all(torch.equal(one.update.delta(name), other.update.delta(name)) for name in other.update)


def test_a_guard_refuses_what_breaks_the_model_and_the_sequence_stays_as_it_was(tiny_lm):
    sequence, editor = wb.EditSequence(tiny_lm, guard=wb.Guard(repairs=())), TooLong(1000.0)
    weights = weights_of(tiny_lm)
    with pytest.raises(wb.RiskError) as caught:
        sequence.edit([FACT], editor)
    assert str(caught.value).startswith("the edit of 'The Eiffel Tower' was not applied because of its high risk: ")
    assert caught.value.assessment.spectral_ratio > 2
    assert sequence.edits == ()
    assert_same_bits(tiny_lm, weights)


def test_a_guard_repairs_by_restraining_singular_values(tiny_lm):
    broken = TooLong(1000.0).compute_update(tiny_lm, [FACT])
    before, after = (wb.assess(update, tiny_lm).kl for update in (broken, wb.PRUNE()(broken, tiny_lm)))
    assert after < before
    limit = (before + after) / 2
    sequence = wb.EditSequence(tiny_lm, guard=wb.Guard(limit=limit))
    done = sequence.edit([FACT], TooLong(1000.0))
    assert done.regularizer == wb.PRUNE()
    assert wb.assess(done.update, tiny_lm).kl <= limit


@pytest.mark.parametrize("answer", [True, False])
def test_a_guard_asks_where_nothing_repairs(tiny_lm, answer):
    asked = []
    guard = wb.Guard(repairs=(), ask=lambda found: asked.append(found) or answer)
    sequence = wb.EditSequence(tiny_lm, guard=guard)
    if answer:
        assert sequence.edit([FACT], TooLong(1000.0)).regularizer == wb.Unregularized()
    else:
        with pytest.raises(wb.RiskError):
            sequence.edit([FACT], TooLong(1000.0))
    [found] = asked
    assert found.is_high


def test_limits_and_repairs_that_make_no_sense_are_refused(tiny_lm):
    assert error_of(SpecError, wb.Guard, limit=0) == "limit must be a positive number; got 0."
    assert error_of(SpecError, wb.Guard, repairs=("pray",)) == "no repair 'pray'; known: r-rome, prune."


@pytest.mark.slow
def test_a_hard_fact_breaks_the_embedded_model_and_r_rome_repairs_it(smollm2):
    [request] = [fact for fact in wb.load_facts("bundled-hard").requests if fact.subject == "London"][:1]
    editor = make_editor("rome", smollm2, {"v_num_grad_steps": 8, "contexts": ("{}", "The river. {}", "A day. {}")})
    broken = wb.assess(editor.compute_update(smollm2, [request]), smollm2)
    assert broken.is_high
    assert broken.first_token
    done = wb.EditSequence(smollm2, guard=wb.Guard()).edit([request], editor)
    assert done.update.records[0].method == "R-ROME"
    assert not wb.assess(done.update, smollm2).is_high
