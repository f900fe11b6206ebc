"""Curves: means over seeds with Student's interval, and the interval over examples of a single seed."""

import math

import pandas as pd
import pytest

from workbench.analysis.curves import (
    OVER_EXAMPLES,
    OVER_SEEDS,
    average_over_seeds,
    change_smooth,
    describe_runs,
    join_batch_sizes,
    label_series,
    split_abilities,
    trace_perplexity,
)

PLACE = {"method": "ROME", "setting": "sequential-instance", "batch_size": 1, "task": "nli", "protocol": "standard"}


def row(seed, value, *, operation=5, regularizer="Unregularized", metric="choice_accuracy", **more):
    place = {"source": "bundled", "split": "bundled", "moment": None, "parameter": None, "at": None, **PLACE}
    where = {"seed": seed, "operation": operation, "n_edits": operation, "regularizer": regularizer, "metric": metric}
    return {**place, **where, "value": value, "n": 40, "low": value - 0.1, "high": value + 0.1, **more}


def test_several_seeds_give_their_mean_and_students_interval():
    [found] = average_over_seeds(pd.DataFrame([row(0, 0.2), row(1, 0.4), row(2, 0.6)])).itertuples()
    half = 4.302653 * 0.2 / math.sqrt(3)  # t of 97.5 % with two degrees of freedom; the standard deviation is 0.2
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.4 - half, 0.4 + half))
    assert (found.seeds, found.spread, found.n) == (3, OVER_SEEDS, 40)


def test_one_seed_keeps_its_own_interval():
    [found] = average_over_seeds(pd.DataFrame([row(0, 0.2)])).itertuples()
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.1, 0.3))
    assert (found.seeds, found.spread) == (1, OVER_EXAMPLES)


def test_rows_that_differ_in_more_than_the_seed_are_not_averaged():
    rows = [row(0, 0.2), row(1, 0.4), row(0, 0.5, operation=10), row(0, 0.3, regularizer="RECT 40 %")]
    assert list(average_over_seeds(pd.DataFrame(rows))["seeds"]) == [2, 1, 1]


def test_only_the_headline_score_of_a_task_is_selected():
    rows = [row(0, 0.2), row(0, 0.9, metric="valid_rate"), row(0, 30.0, task="perplexity", metric="perplexity")]
    abilities, perplexities = split_abilities(average_over_seeds(pd.DataFrame(rows)))
    assert list(abilities["metric"]) == ["choice_accuracy"]
    assert list(abilities["title"]) == ["NLI"]
    assert list(abilities["floor"]) == [0.5]
    assert list(perplexities["value"]) == [30.0]


def test_a_series_is_named_by_what_differs():
    def named(**columns):
        table = pd.DataFrame({"method": "MEMIT", "regularizer": "RECT 40 %", "batch_size": 10, **columns})
        return list(label_series(table)["series"])

    assert named(regularizer=["RECT 40 %", "Unregularized"]) == ["RECT 40 %", "Unregularized"]
    assert named(batch_size=[10, 30]) == ["10 facts at once", "30 facts at once"]
    assert named(batch_size=[10, 30], method=["MEMIT", "MEND"]) == ["MEMIT, 10 facts at once", "MEND, 30 facts at once"]
    assert named(method=["MEMIT"]) == ["MEMIT"]


def test_batches_of_several_sizes_become_one_curve_from_the_unedited_model():
    def single(size, operation, value):
        setting = "single-batch" if size > 1 else "single-instance"
        place = {"trajectory": str(size), "setting": setting, "batch_size": size, "n_edits": size * operation}
        return row(0, value, operation=operation) | place

    rows = [single(1, 0, 0.6), single(1, 1, 0.5), single(30, 0, 0.6), single(30, 1, 0.2)]
    curve = average_over_seeds(join_batch_sizes(pd.DataFrame(rows)))
    assert list(curve["n_edits"]) == [0, 1, 30]
    assert list(curve["value"]) == [0.6, 0.5, 0.2]
    assert label_series(curve)["series"].nunique() == 1


def test_perplexity_is_traced_from_the_unedited_model_through_every_operation():
    place = {"method": "MEMIT", "regularizer": "Unregularized", "setting": "sequential-batch", "batch_size": 10}
    rows = [
        {**place, "trajectory": name, "operation": t, "perplexity_unedited": 5.0, "perplexity": value}
        for name, values in (("a", [6.0, 7.0]), ("b", [8.0, 9.0]))
        for t, value in enumerate(values, start=1)
    ]
    table = trace_perplexity(pd.DataFrame(rows))
    assert table["n_edits"].tolist() == [0, 10, 20] * 2
    assert table["value"].tolist() == [5, 6, 7, 5, 8, 9]


def test_a_caption_counts_sequences_and_examples():
    place = {"model": "m", "method": "ROME", "facts": "bundled"}
    rows = [{**place, "regularizer": "A", "seed": s, "task": "nli", "n": 40} for s in range(5)]
    rows += [{**place, "regularizer": "B", "seed": s, "task": "edits", "n": 7} for s in range(3)]
    assert describe_runs(pd.DataFrame(rows)) == (
        "m · ROME · bundled · 3 to 5 sequences per curve · 40 examples per ability"
    )


def likelihoods(trajectory, operation, values):
    where = {"metric": "log_likelihood", "regularizer": "Unregularized", "operation": operation, "n_edits": operation}
    rows = [{**PLACE, **where, "source": "bundled", "split": "bundled", "example": i, "value": v} for i, v in values]
    return pd.DataFrame(rows).assign(trajectory=trajectory)


def test_changes_of_smooth_scores_are_of_each_example_from_itself_unedited():
    before = [(0, -9.0), (1, -1.0), (2, -4.0)]
    one = [likelihoods("a", 0, before), likelihoods("a", 5, [(0, -9.1), (1, -1.3), (2, -4.2)])]
    other = [likelihoods("b", 0, before), likelihoods("b", 5, [(0, -9.3), (1, -1.3), (2, -4.6)])]
    unedited, edited = change_smooth(pd.concat([*one, *other])).itertuples()
    assert (unedited.n_edits, unedited.value, unedited.low, unedited.high) == (0, 0, 0, 0)
    assert edited.value == pytest.approx(-0.3)
    assert (edited.n, edited.seeds, edited.title) == (3, 2, "NLI")
    assert edited.low < -0.4 < -0.2 < edited.high  # the sequences differ by 0.2
    [_, alone] = change_smooth(pd.concat(one)).itertuples()
    half = 4.302653 * 0.1 / math.sqrt(3)  # over examples, whose levels differ by 8 and whose changes by 0.2
    assert (alone.value, alone.low, alone.high) == pytest.approx((-0.2, -0.2 - half, -0.2 + half))


def test_examples_that_a_sequence_lacks_are_left_out_of_changes():
    one = [likelihoods("a", 0, [(0, -9.0), (1, -1.0)]), likelihoods("a", 5, [(0, -8.0), (1, -1.3)])]
    other = [likelihoods("b", 0, [(1, -1.0)]), likelihoods("b", 5, [(1, -1.5)])]
    [_, edited] = change_smooth(pd.concat([*one, *other])).itertuples()
    assert edited.value == pytest.approx(-0.4)
