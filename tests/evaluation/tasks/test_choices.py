"""Margins, areas under the ROC curve and majority shares, against hand-worked examples and plain double loops."""

import math
import random

import numpy as np
import pandas as pd
import pytest

from workbench.evaluation.statistics import summarize
from workbench.evaluation.tasks.choices import AUC, AUC_FLOOR, MAJORITY, MARGIN, compare_choices
from workbench.evaluation.tasks.task import Choice, Ratio


def binary(margins, golds):
    """Return choices of two labels with the given margins for label 1."""
    return [Choice((0.0, margin), gold) for margin, gold in zip(margins, golds, strict=True)]


def mean(choices, metric):
    return sum(scores[metric] for scores in compare_choices(choices)) / len(choices)


def double_loop(margins, golds):
    """Return the share of pairs that are rightly ordered, ties counting one half."""
    wins, pairs = 0.0, 0
    for margin, gold in zip(margins, golds, strict=True):
        for other, label in zip(margins, golds, strict=True):
            if gold == 1 and label == 0:
                wins += 1.0 if margin > other else 0.5 if margin == other else 0.0
                pairs += 1
    return wins / pairs


def drawn(seed, n=40, share=0.3):
    """Return margins with ties and labels that depend on them."""
    source = random.Random(seed)
    golds = [int(source.random() < share) for _ in range(n)]
    golds[:2] = [0, 1]
    return [round(source.gauss(0.8 * gold, 1), 1) for gold in golds], golds


def test_the_auc_of_a_worked_example():
    # pairs of (positive, negative): 3 > 1, 3 > 2, 1 = 1 (half), 1 < 2, so 2.5 of 4
    assert mean(binary([3, 1, 1, 2], [1, 1, 0, 0]), AUC) == pytest.approx(2.5 / 4)


@pytest.mark.parametrize("seed", range(8))
def test_the_mean_over_examples_is_the_share_of_rightly_ordered_pairs(seed):
    margins, golds = drawn(seed)
    assert mean(binary(margins, golds), AUC) == pytest.approx(double_loop(margins, golds), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_variance_of_the_mean_is_delongs(seed):
    margins, golds = drawn(seed, n=60)
    auc = double_loop(margins, golds)
    variances = []
    for label in (0, 1):  # of the placements of each label, by their definition
        own = [m for m, g in zip(margins, golds, strict=True) if g == label]
        others = [m for m, g in zip(margins, golds, strict=True) if g != label]
        placements = [double_loop([m, *others], [label, *[1 - label] * len(others)]) for m in own]
        variances.append(sum((v - auc) ** 2 for v in placements) / len(own) / len(own))
    values = np.array([scores[AUC] for scores in compare_choices(binary(margins, golds))])
    assert values.var() / len(values) == pytest.approx(sum(variances), rel=1e-9)


def test_the_interval_of_the_table_has_delongs_width():
    margins, golds = drawn(0, n=200)
    values = [scores[AUC] for scores in compare_choices(binary(margins, golds))]
    [row] = summarize(pd.DataFrame({"task": "nli", "value": values}), ["task"]).to_dict("records")
    assert row["value"] == pytest.approx(double_loop(margins, golds))
    standard_error = np.std(values) / math.sqrt(len(values))
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_halves_of_the_examples_average_to_the_whole():
    margins, golds = drawn(5, n=50)
    values = [scores[AUC] for scores in compare_choices(binary(margins, golds))]
    parts = [values[::2], values[1::2]]
    assert sum(len(part) * np.mean(part) for part in parts) / 50 == pytest.approx(double_loop(margins, golds))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_labels_does_not_matter(seed):
    margins, golds = drawn(seed)
    choices = binary(margins, golds)
    swapped = [Choice(choice.scores[::-1], 1 - choice.gold) for choice in choices]
    one, other = compare_choices(choices), compare_choices(swapped)
    assert [a[AUC] for a in one] == pytest.approx([b[AUC] for b in other])
    assert [a[MARGIN] for a in one] == [-b[MARGIN] for b in other]


def test_the_order_of_the_examples_does_not_matter():
    margins, golds = drawn(1)
    values = [scores[AUC] for scores in compare_choices(binary(margins, golds))]
    backwards = [scores[AUC] for scores in compare_choices(binary(margins[::-1], golds[::-1]))]
    assert backwards[::-1] == pytest.approx(values)


def test_a_model_that_always_says_one_label_can_still_rank():
    choices = binary([5.0, 6.0, 7.0, 8.0], [0, 0, 1, 1])
    assert {choice.chosen for choice in choices} == {1}
    assert (mean(choices, AUC), mean(choices, MAJORITY)) == (1, 1)


def test_a_model_that_is_the_same_for_every_example_ranks_at_the_floor():
    assert mean(binary([2.0] * 5, [0, 1, 1, 0, 1]), AUC) == AUC_FLOOR == 0.5
    assert mean([Choice((1.0, 1.0, 1.0, 1.0), gold) for gold in range(4)], AUC) == 0.5


def test_a_margin_that_is_not_a_number_decides_nothing():
    assert mean(binary([math.nan] * 4, [0, 1, 1, 0]), AUC) == 0.5


def test_examples_of_one_label_have_no_auc():
    scores = compare_choices(binary([1.0, -2.0], [1, 1]))
    assert [each[AUC] for each in scores] == [Ratio(0, 0)] * 2
    assert [each[MARGIN] for each in scores] == [1.0, -2.0]


def test_of_four_options_the_auc_is_the_share_of_wrong_ones_that_the_right_one_beats():
    choices = [
        Choice((-1.0, -2.0, -3.0, -4.0), 1),  # beats two of three
        Choice((-1.0, -2.0, -2.0, -4.0), 2),  # beats one, ties with one
        Choice((-1.0, -2.0, -3.0, -4.0), 3),
    ]
    assert [scores[AUC] for scores in compare_choices(choices)] == pytest.approx([2 / 3, 1.5 / 3, 0])
    assert [scores[MARGIN] for scores in compare_choices(choices)] == [-1, -1, -3]


def test_the_margin_of_two_labels_is_that_of_label_1():
    choices = [Choice((-1.0, -3.0), 0), Choice((-1.0, -3.0), 1)]
    assert [scores[MARGIN] for scores in compare_choices(choices)] == [-2, -2]


def test_the_majority_share_is_that_of_the_most_frequent_choice():
    assert mean(binary([1, 1, 1, -1, 2], [0, 1, 0, 1, 0]), MAJORITY) == pytest.approx(4 / 5)
    tied = compare_choices(binary([1, -1], [0, 1]))
    assert [scores[MAJORITY] for scores in tied] == [0, 1]  # of equally frequent labels, the first
