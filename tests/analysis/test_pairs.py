"""Runs read from a store: trajectories and their identity, on real runs of a tiny model; pairing and areas by hand."""

import json

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from tests.analysis.test_claims import EDIT, PLACE, QA
from workbench.analysis.contrasts import PLAIN, RECT40, editing, fall
from workbench.analysis.pairs import AUC, Runs, area_under_curves, largest_group, pair, reach
from workbench.experiment.resolved import resolve
from workbench.experiment.store import PRESET, Store

FAST = {"v_num_grad_steps": 2, "contexts": ["{}"]}


@pytest.fixture
def spec(tiny) -> wb.ExperimentSpec:
    return wb.ExperimentSpec(
        model=tiny, hyperparameters=FAST, n_operations=3, checkpoints=[0, 1, 3], tasks=None, perplexity=None
    )


def changed(spec, **fields):
    return wb.ExperimentSpec(**{**spec.model_dump(), **fields})


def test_a_draw_is_the_order_of_facts_and_nothing_else(spec):
    draw = resolve(spec).draw
    same = [
        {"n_operations": 2, "checkpoints": ()},
        {"setting": "single"},
        {"regularizer": {"kind": "RECT", "keep": 0.4}},
    ]
    same += [{"method": "memit", "batch_size": 3, "hyperparameters": {}}, {"seed": 5, "facts": {"seed": 0}}]
    assert [resolve(changed(spec, **fields)).draw for fields in same] == [draw] * len(same)
    other = [{"seed": 5}, {"facts": {"seed": 5}}, {"facts": {"words_before_subject": True}}]
    assert draw not in [resolve(changed(spec, **fields)).draw for fields in other]


def test_rows_name_their_draw_and_the_hyperparameters_that_were_replaced(spec, tmp_path):
    store = Store(tmp_path)
    wb.run(spec, store=store)
    for table in (store.results(), store.scores(), store.operations()):
        assert set(table["draw"]) == {resolve(spec).draw}
        assert [json.loads(text) for text in set(table["hyperparameters"])] == [FAST]
    preset = changed(spec, method="ft", hyperparameters={}, n_operations=1, checkpoints=())
    assert set(wb.run(preset, store=store)["hyperparameters"]) == {PRESET}


@pytest.mark.slow
def test_runs_of_one_trajectory_are_joined_and_count_once(spec, tmp_path):
    store = Store(tmp_path)
    longer = changed(spec, n_operations=4, checkpoints=[0, 2, 4], tasks={"tasks": ["nli"], "limit": 3})
    wb.run([spec, longer, changed(spec, regularizer={"kind": "RECT", "keep": 0.4})], store=store)
    read = Runs.read(store, spec.model)
    plain = read.scores[(read.scores["regularizer"] == PLAIN) & (read.scores["metric"] == "reliability")]
    plain = plain[plain["protocol"] == "teacher_forced"]
    after = plain[plain["moment"] == "after_edit"]
    assert sorted(after["example"]) == [0, 1, 2, 3]
    assert sorted(plain.loc[plain["moment"] == "now", "operation"].unique()) == [1, 2, 3, 4]
    assert not plain[plain["moment"] == "now"].duplicated(["operation", "example"]).any()
    unedited = read.scores[(read.scores["operation"] == 0) & (read.scores["task"] == "nli")]
    assert not unedited.duplicated(["metric", "example"]).any()


def test_regularizers_are_paired_by_fact_in_a_real_store(spec, tmp_path):
    store = Store(tmp_path)
    singles = changed(spec, setting="single", checkpoints=[1, 2, 3])
    wb.run(wb.grid(singles, {"regularizer": [{"kind": "Unregularized"}, {"kind": "RECT", "keep": 0.4}]}), store=store)
    read = Runs.read(store, spec.model)
    scores = read.scores.assign(hyperparameters=PRESET)
    what = {"method": "ROME", "setting": "single-instance", "regularizer": RECT40, "rival": PLAIN, "share": False}
    effect = editing("locality", "teacher_forced", **what)(Runs(scores, read.results))
    own = scores[(scores["metric"] == "locality") & (scores["protocol"] == "teacher_forced")]
    wide = own[own["moment"] == "after_edit"].pivot(index="example", columns="regularizer", values="value")
    assert (effect.n, effect.trajectories) == (3, 3)
    assert effect.value == pytest.approx((wide[RECT40] - wide[PLAIN]).mean())


def test_rows_of_an_older_store_without_draws_are_left_out():
    rows = pd.DataFrame([{**PLACE, **QA, "trajectory": "t", "draw": None, "example": 0, "value": 1.0, "weight": 1.0}])
    assert Runs.of(rows, rows.assign(parameter=None, at=np.nan)).scores.empty


def frame(values, **more):
    """Return scores: one row per draw, example."""
    return pd.DataFrame(
        [
            {**PLACE, **QA, "draw": draw, "example": i, "value": v, "weight": 1.0, "n_edits": 0, **more}
            for draw, row in values.items()
            for i, v in enumerate(row)
        ]
    )


def test_pairs_make_a_full_design():
    first = frame({"a": [1, 2, 3, 4], "b": [5, 6, 7], "c": [8, 9, 10, 11]})
    extra = frame({"a": [0, 0]}, task="ner", metric="f1")  # of one sequence only
    second = frame({"a": [0, 0, 0, 0], "b": [1, 1, 1, 1], "d": [0, 0, 0, 0]})
    paired = pair(pd.concat([first, extra]), pd.concat([second, extra]), ["draw"])
    assert [part.tolist() for part in paired.first] == [[[1, 2, 3], [5, 6, 7]]]
    assert [part.tolist() for part in paired.second] == [[[0, 0, 0], [1, 1, 1]]]
    assert paired.abilities == "open_qa"
    assert pair(first, frame({"z": [0, 0]}), ["draw"]) is None


def test_micro_averages_keep_their_mean_and_variance():
    tops, bottoms = np.array([1.0, 0.0, 5.0, 0.0]), np.array([2.0, 4.0, 6.0, 0.0])
    scores = frame({"a": [0.5, 0.0, 5 / 6, np.nan]}).assign(weight=bottoms)
    [values] = pair(scores, scores, ["draw"]).first
    assert values.mean() == pytest.approx(tops.sum() / bottoms.sum())
    # the delta method: the residuals tops − ratio · bottoms, divided by the mean of bottoms
    residuals = (tops - 0.5 * bottoms) / bottoms.mean()
    assert values[0] - values.mean() == pytest.approx(residuals)


def test_areas_are_means_over_edits_by_the_trapezoidal_rule():
    curve = [frame({"a": [v, 2 * v]}, operation=t, n_edits=t, seed=0) for t, v in ((0, 1.0), (5, 0.5), (20, 0.0))]
    areas = area_under_curves(pd.concat(curve)).sort_values("example")["value"]
    expected = (5 * 0.75 + 15 * 0.25) / 20
    assert areas.tolist() == pytest.approx([expected, 2 * expected])


def test_a_comparison_goes_as_far_as_enough_sequences_do():
    table = pd.DataFrame(
        [(f"d{i}", t) for i in range(6) for t in (0, 10, 20)] + [("d0", 50)], columns=["draw", "operation"]
    )
    assert reach(table, enough=5) == 20
    assert reach(table[table["draw"] == "d0"], enough=5) == 50
    assert reach(table.iloc[:0], enough=5) == 0


def test_kinds_of_facts_and_batch_sizes_are_not_mixed():
    table = pd.DataFrame(
        [("bundled", 10, "a"), ("bundled", 10, "b"), ("bundled", 30, "a"), ("bundled", 30, "b"), ("hard", 30, "c")],
        columns=["facts", "batch_size", "draw"],
    )
    assert largest_group(table).to_numpy().tolist() == [["bundled", 30, "a"], ["bundled", 30, "b"]]


def test_what_is_measured_of_edits_never_is_an_ability():
    rows = frame({"a": [1.0] * 20}, **{**EDIT, "metric": AUC})
    found = Runs.of(rows.assign(trajectory="t"), pd.DataFrame(columns=[*rows.columns, "trajectory", "parameter", "at"]))
    assert fall("ROME", "single-instance", "abilities")(found) is None
