"""Bisection against a plain walk over all states."""

from types import SimpleNamespace

import pytest

from tests.helpers import error_of
from tests.microscope.sequences import make_sequence
from workbench.errors import EditError
from workbench.microscope.find_drop import fact_below, find_drop, perplexity_above
from workbench.microscope.held_out import HeldOut
from workbench.microscope.timeline import Measured, timeline_of


def states(factors):
    asked = []

    def measure(t):
        asked.append(t)
        return Measured(t, HeldOut(factors[t], 1.0, 0.0), 0, 0, 0, (1.0,) * t, ("",) * t)

    return SimpleNamespace(measure=measure, asked=asked)


@pytest.mark.parametrize("at", range(1, 21))
def test_the_edit_is_found_wherever_it_is_with_few_measurements(at):
    curve = states([1.0] * at + [9.0] * (21 - at))
    drop = find_drop(curve.measure, 0, 20, by=perplexity_above(1.5))
    assert (drop.edit, drop.lasts) == (at, True)
    assert {at - 1, at} <= set(drop.looked_at) == set(curve.asked)
    assert len(curve.asked) == len(set(curve.asked)) <= 8  # both ends, log₂ 20, one after


def test_of_several_crossings_one_is_found_and_it_is_one():
    factors = [1, 1, 9, 1, 1, 1, 9, 1, 1, 9]
    drop = find_drop(states(factors).measure, 0, 9, by=perplexity_above(1.5))
    crossings = [t for t in range(1, 10) if factors[t - 1] <= 1.5 < factors[t]]
    assert drop.edit in crossings
    assert len(crossings) == 3


def test_a_fall_that_does_not_last_is_marked():
    drop = find_drop(states([1, 9, 1, 9]).measure, 0, 3, by=perplexity_above(1.5))
    assert drop.edit in (1, 3)
    assert drop.lasts is (drop.edit == 3)
    recovering = find_drop(states([1, 1, 9, 1, 9, 9, 9]).measure, 0, 4, by=perplexity_above(1.5))
    assert (recovering.edit, recovering.lasts) in ((2, False), (4, True))


def test_without_a_fall_there_is_no_edit():
    assert find_drop(states([1, 1, 1.4]).measure, 0, 2, by=perplexity_above(1.5)) is None


def test_a_perplexity_that_is_no_number_has_fallen():
    assert find_drop(states([1, 1, float("nan")]).measure, 0, 2, by=perplexity_above(1.5)).edit == 2


def test_a_fact_falls_only_after_its_own_edit():
    kept = [(), (1.0,), (1.0, 0.2), (0.4, 1.0)]
    measured = [Measured(t, HeldOut(1, 1, 0), 0, 0, 0, scores, ("",) * t) for t, scores in enumerate(kept)]
    assert find_drop(measured.__getitem__, 0, 3, by=fact_below(0)).edit == 3
    assert find_drop(measured.__getitem__, 0, 2, by=fact_below(1)).edit == 2


def test_what_cannot_be_searched_is_refused():
    curve = states([9, 9, 9])
    assert error_of(EditError, find_drop, curve.measure, 0, 2, by=perplexity_above(1.5)) == (
        "after 0 edits this has fallen already; begin earlier."
    )
    assert error_of(EditError, find_drop, curve.measure, 2, 2, by=perplexity_above(1.5)) == (
        "give a first number of edits below the last; got 2 and 2."
    )
    assert error_of(EditError, perplexity_above, 1) == "factor must be above 1; got 1."
    assert error_of(EditError, fact_below, 0, 0) == "limit must lie in (0, 1]; got 0."


def test_a_timeline_of_real_edits_is_searched(tiny_lm):
    timeline = timeline_of(make_sequence(tiny_lm, 4))
    kl = [timeline.measure(t).held_out.kl for t in range(5)]
    limit = kl[4] / 2
    edit = find_drop(timeline.measure, 0, 4, by=lambda measured: measured.held_out.kl > limit).edit
    assert kl[edit - 1] <= limit < kl[edit]
