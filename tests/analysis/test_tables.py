"""Tables of the notebooks against naive algebra, on updates of a tiny model and on experiments with it."""

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.analysis import tables
from workbench.analysis.comparisons import compare_methods, format_comparison
from workbench.analysis.sweep import sweep_hyperparameter
from workbench.errors import RunError, SpecError
from workbench.evaluation.edits import DEFAULT_PROTOCOLS
from workbench.experiment import trials
from workbench.experiment.models import load_model
from workbench.experiment.resolved import resolve
from workbench.experiment.runner import read_updates
from workbench.experiment.store import Store

REQUESTS = wb.load_facts().sample(3, seed=0)


def rome(lm: wb.LanguageModel) -> wb.ROME:
    return wb.ROME(layer=1, v_num_grad_steps=4, contexts=("{}", "So. {}"))


def sums(lm: wb.LanguageModel) -> dict[int, wb.WeightUpdate]:
    """Give the sums of the first and of the first two updates."""
    first, second, _ = trials.compute_single_updates(lm, rome(lm), REQUESTS)
    return {1: first, 2: first + second}


@pytest.fixture
def single(tiny) -> wb.ExperimentSpec:
    """Give three single edits of a tiny model."""
    fast = {"layer": 1, "v_num_grad_steps": 4, "contexts": ["{}"]}
    what = {"n_operations": 3, "checkpoints": [1, 2, 3], "tasks": None, "perplexity": None}
    return wb.ExperimentSpec(model=tiny, hyperparameters=fast, setting="single", **what)


def test_stored_updates_of_single_edits_are_those_of_each_alone(single, tiny, tmp_path):
    wb.run(single, store=tmp_path)
    lm, updates = load_model(tiny, "float32"), read_updates(single, tmp_path)
    assert list(updates) == [1, 2, 3]
    for update, batch in zip(updates.values(), resolve(single).batches, strict=True):
        alone = single.make_editor(lm).compute_update(lm, list(batch))
        assert all((update.delta(name) == alone.delta(name)).all() for name in alone)


def test_updates_of_a_trajectory_that_was_not_run_are_refused(single, tmp_path):
    with pytest.raises(RunError, match=f"has not been run to its end in {tmp_path}; run it first"):
        read_updates(single, tmp_path)


def test_the_largest_edits_come_first_and_are_those_of_dense_algebra(single, tiny, tmp_path):
    wb.run(wb.grid(single, {"regularizer": tables.list_figure7_regularizers()[:2]}), store=tmp_path)
    sizes = tables.report_edits(Store(tmp_path).operations())
    lm = load_model(tiny, "float32")
    norms = [
        float(update.delta(name).norm() / lm.weight(name).norm())
        for update in read_updates(single, tmp_path).values()
        for name in update
    ]
    assert sizes["relative_norm"].tolist() == pytest.approx(sorted(norms, reverse=True), rel=1e-5)
    assert sizes["denominator"].notna().all()


def test_the_factor_of_an_edit_is_against_the_operation_before_it_in_a_sequence_and_the_unedited_model_else():
    place = {"trajectory": "a", "method": "ROME", "perplexity_unedited": 10.0, "norm": 1.0}
    rows = [{**place, "operation": t, "subject": f"s{t}", "relative_norm": t / 10} for t in (1, 2)]
    operations = pd.DataFrame(rows).assign(perplexity=[20.0, 30.0], setting="sequential-instance")
    operations[["spectral_ratio", "first_token", "denominator", "probe_kl"]] = None
    assert tables.report_edits(operations).set_index("subject")["factor"].to_dict() == {"s2": 1.5, "s1": 2.0}
    single = operations.assign(setting="single-instance")
    assert tables.report_edits(single).set_index("subject")["factor"].to_dict() == {"s2": 3.0, "s1": 2.0}


def test_operations_that_trajectories_share_are_reported_once(single, tmp_path):
    wb.run(wb.grid(single, {"regularizer": tables.list_figure7_regularizers()[:2]}), store=tmp_path)
    assert len(tables.report_edits(Store(tmp_path).operations())) == 3


def test_methods_are_compared_on_the_same_facts_with_the_seconds_per_fact(single, tmp_path, own_cache):
    what = {**single.model_dump(), "hyperparameters": {}, "n_operations": 2, "checkpoints": ()}
    ft = wb.ExperimentSpec(**{**what, "method": "ft", "batch_size": 2, "n_operations": 1})
    mend_free = wb.ExperimentSpec(**{**what, "method": "ft-l"})
    store = Store(tmp_path)
    results = wb.run([ft, mend_free], store=store)
    table = compare_methods(results, store.operations())
    sizes = table.groupby(["method", "batch_size"], sort=False).size().to_dict()
    rows = table["metric"].nunique() * len(DEFAULT_PROTOCOLS)
    assert sizes == {("FT", 2): rows, ("FT-L", 1): rows}
    assert {"reliability", "generalization", "locality"} <= set(table["metric"])
    assert (table["n"] == 2).all()
    seconds = store.operations().set_index("method")["seconds"]
    assert table.loc[table["method"] == "FT", "seconds"].unique() == pytest.approx([seconds["FT"] / 2])


def test_the_markdown_table_has_one_line_per_method_with_intervals():
    row = {"method": "ROME", "batch_size": 1, "protocol": "teacher_forced", "value": 0.9, "low": 0.8, "high": 0.95}
    rows = [{**row, "metric": metric, "n": 3, "seconds": 7.04} for metric in ("reliability", "locality")]
    assert format_comparison(pd.DataFrame(rows)).splitlines() == [
        "| method | facts per operation | reliability | locality | seconds per edit |",
        "| --- | ---: | --- | --- | ---: |",
        "| ROME | 1 | 0.90 (0.80 to 0.95) | 0.90 (0.80 to 0.95) | 7 |",
    ]


def test_the_sweep_edits_the_same_facts_at_every_value(single, tmp_path):
    table = sweep_hyperparameter(single, field="layer", values=[0, 2], store=tmp_path)
    assert table["layer"].unique().tolist() == [0, 2]
    assert (table["n"] == 3).all()
    assert (table["relative_norm"] > 0).all()
    assert (table["steps"] == 4).all()
    subjects = Store(tmp_path).operations().groupby("trajectory")["subject"].apply(list)
    assert subjects.iloc[0] == subjects.iloc[1]


def test_thresholds_are_the_mean_quantiles_of_single_edits(tiny_lm):
    updates = trials.compute_single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    found = tables.compute_thresholds(updates, tiny_lm)
    name = next(iter(updates[0]))
    W = tiny_lm.weight(name).numpy()
    naive = [
        np.mean([np.quantile(np.abs(u.delta(name).numpy() / W), q, method="inverted_cdf") for u in updates])
        for q in (0.8, 0.9)
    ]
    assert found["quantile"].tolist() == [0.8, 0.9]
    assert np.allclose(found["value"], naive)
    assert (found["n"] == 3).all()


def test_table_1_has_the_published_numbers_next_to_ours(tiny_lm):
    by_edits = sums(tiny_lm)
    thresholds = pd.DataFrame({"quantile": [0.8, 0.9], "value": [0.01, 0.1]})
    table = tables.tabulate_weight_change(by_edits, tiny_lm, thresholds)
    name = next(iter(by_edits[1]))
    dW, W = by_edits[1].delta(name).double(), tiny_lm.weight(name).double()
    assert np.isclose(table["manhattan_distance"][0], float(dW.abs().sum()))
    assert np.isclose(table["share_above_q90"][0], float(((dW / W).abs() > 0.1).double().mean()))
    assert table["manhattan_distance_paper"][0] == 9079.2
    assert np.isnan(table["manhattan_distance_paper"][1])


def test_random_selection_keeps_as_much_of_the_norm_as_of_the_entries(tiny_lm):
    updates = trials.compute_single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    table = tables.compute_kept_norms(updates, tiny_lm, keeps=(0.5, 1.0))
    shares = table.set_index(["regularizer", "keep"])["value"]
    assert shares["RECT", 1.0] == shares["Random", 1.0] == 1.0
    assert abs(shares["Random", 0.5] - 0.5) < 0.1
    assert shares["RECT", 0.5] > 0.5


def test_the_protocol_gap_is_the_difference_of_the_means_over_facts():
    rows = [
        ("ROME", "reliability", "teacher_forced", 1.0, 10),
        ("ROME", "reliability", "natural", 0.6, 10),
        ("ROME", "reliability", "generated", 0.7, 10),
        ("ROME", "portability", "teacher_forced", 0.5, 4),
        ("ROME", "portability", "teacher_forced", 0.2, 2),  # another trajectory
        ("ROME", "portability", "natural", 0.0, 4),
        ("ROME", "portability", "natural", 0.6, 2),
        ("FT", "reliability", "teacher_forced", 0.9, 10),
        ("FT", "reliability", "natural", 0.9, 10),
    ]
    gap = tables.compute_protocol_gap(pd.DataFrame(rows, columns=["method", "metric", "protocol", "value", "n"]))
    assert list(gap.columns) == ["method", "metric", "teacher_forced", "natural", "gap", "n"]
    assert gap[["method", "metric", "n"]].values.tolist() == [
        ["ROME", "reliability", 10],
        ["ROME", "portability", 6],
        ["FT", "reliability", 10],
    ]
    assert np.allclose(gap[["teacher_forced", "natural", "gap"]], [[1, 0.6, 0.4], [0.4, 0.2, 0.2], [0.9, 0.9, 0]])


def test_a_protocol_gap_without_natural_scores_is_refused():
    rows = [("reliability", "teacher_forced", 1.0, 10), ("reliability", "generated", 1.0, 10)]
    with pytest.raises(SpecError) as caught:
        tables.compute_protocol_gap(pd.DataFrame(rows, columns=["metric", "protocol", "value", "n"]))
    assert str(caught.value) == (
        "the table has no scores under natural, only under teacher_forced, generated; add it to edit_protocols."
    )


def test_retention_is_relative_to_the_unregularized_edit():
    table = pd.DataFrame(
        [("Unregularized", "reliability", "generated", 0.8), ("RECT 40 %", "reliability", "generated", 0.6)],
        columns=["regularizer", "metric", "protocol", "value"],
    )
    kept = tables.compute_retention(table)
    assert np.isclose(kept.loc["RECT 40 %", ("generated", "reliability")], 0.75)
    assert kept.loc["Unregularized", ("generated", "reliability")] == 1
