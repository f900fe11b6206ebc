"""What edit sequences did to a model, from results and scores written by hand."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis.units import measure_units

RUN = {"trajectory": "a", "model": "m", "method": "ROME", "hyperparameters": "preset", "regularizer": "Unregularized"}
RUN |= {"setting": "sequential-instance", "batch_size": 1, "facts": "bundled", "draw": "d", "seed": 0}
TEXTS = {"protocol": "natural", "source": "s", "split": "test"}


def result(operation, metric, value, **columns):
    task = {"perplexity": "perplexity", "kl": "drift"}.get(metric, "weights")
    return {
        **RUN,
        "operation": operation,
        "n_edits": operation,
        "task": task,
        "metric": metric,
        "value": value,
        **columns,
    }


def edit(operation, moment, example, metric, value, **columns):
    place = {**RUN, **TEXTS, "operation": operation, "n_edits": operation, "task": "edits", "moment": moment}
    return {**place, "metric": metric, "example": example, "value": value, "weight": 1.0, **columns}


def answer(operation, task, example, value, **columns):
    place = {**RUN, **TEXTS, "operation": operation, "n_edits": operation, "task": task, "moment": None}
    return {**place, "metric": "log_likelihood", "example": example, "value": value, "weight": 1.0, **columns}


def tables(results, scores, shares, **columns):
    operations = [{**RUN, "operation": t, "share_applied": share, **columns} for t, share in shares.items()]
    return pd.DataFrame(results), pd.DataFrame(scores), pd.DataFrame(operations)


def test_a_sequence_is_measured_with_all_of_its_facts_at_each_checkpoint():
    results = [result(0, "perplexity", 40.0), result(1, "perplexity", 44.0), result(2, "perplexity", 80.0)]
    results.append(result(2, "kl", 0.3))
    scores = [edit(2, "after_edit", 0, "reliability", 1.0), edit(2, "after_edit", 1, "reliability", 1.0)]
    scores += [edit(2, "now", i, "reliability", value) for i, value in enumerate((0.0, 1.0))]
    scores += [edit(2, "now", i, "generalization", 0.0) for i in range(2)]
    units = measure_units(*tables(results, scores, {1: 0.2, 2: 0.4})).set_index("n_edits")
    assert units.index.tolist() == [1, 2]
    assert units["unit"].unique().tolist() == ["d"]
    assert units["text"].tolist() == pytest.approx([-np.log(1.1), -np.log(2)])
    assert units.loc[2, ["reliability", "generalization", "editing", "kl"]].tolist() == [0.5, 0.0, 0.25, 0.3]
    assert units["share"].tolist() == pytest.approx([0.2, 0.3])  # of the operations so far
    assert np.isnan(units.loc[1, "editing"])


def test_each_operation_on_the_unedited_model_is_a_unit_with_its_own_facts():
    single = {"setting": "single-batch", "batch_size": 2}
    results = [{**result(t, "perplexity", 40.0 + t), **single} for t in range(3)]
    scores = [{**edit(2, "after_edit", i, "reliability", value), **single} for i, value in enumerate((1, 1, 0, 1))]
    units = measure_units(*tables(results, scores, {1: 0.1, 2: 0.5}, **single)).set_index("operation")
    assert units["unit"].tolist() == ["d:1", "d:2"]
    assert units["n_edits"].tolist() == [2, 2]
    assert units.loc[2, "reliability"] == 0.5  # facts 2 and 3
    assert units["share"].tolist() == [0.1, 0.5]


def test_the_likelihood_is_compared_example_by_example_and_tasks_count_alike():
    scores = [answer(0, "nli", 0, -1.0), answer(0, "nli", 1, -2.0), answer(0, "sentiment", 0, -1.0)]
    scores += [answer(3, "nli", 0, -1.5), answer(3, "nli", 1, -2.1), answer(3, "sentiment", 0, -2.0)]
    [row] = measure_units(*tables([result(3, "kl", 0.1)], scores, {3: 1.0})).to_dict("records")
    assert row["likelihood"] == pytest.approx(np.mean([np.mean([-0.5, -0.1]), -1.0]))


def test_other_protocols_and_runs_without_a_draw_are_left_out():
    scores = [edit(1, "now", 0, "reliability", 1.0, protocol="teacher_forced")]
    [row] = measure_units(*tables([result(1, "kl", 0.1)], scores, {1: 1.0})).to_dict("records")
    assert np.isnan(row["reliability"])
    assert len(measure_units(*tables([result(1, "kl", 0.1, draw=None)], scores, {1: 1.0}))) == 0
