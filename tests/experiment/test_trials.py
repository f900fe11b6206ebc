"""Single edits and sequences on a tiny model."""

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.errors import SpecError
from workbench.experiment import tables, trials
from workbench.experiment.compare import as_readme_table, compare_methods
from workbench.experiment.sweep import sweep

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


def bits(lm: wb.LanguageModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def assert_unchanged(lm: wb.LanguageModel, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(parameter, before[name]) for name, parameter in lm.model.named_parameters())


def test_single_edits_are_each_computed_on_the_unedited_model(tiny_lm):
    before = bits(tiny_lm)
    updates = trials.single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    alone = rome(tiny_lm).compute_update(tiny_lm, [REQUESTS[2]])
    name = next(iter(alone))
    assert torch.equal(updates[2].delta(name), alone.delta(name))
    assert_unchanged(tiny_lm, before)


def test_sequential_updates_add_up_to_the_change_of_the_weights(tiny_lm):
    before = bits(tiny_lm)
    sums = trials.sequential_updates(tiny_lm, rome(tiny_lm), REQUESTS, checkpoints=[1, 3])
    assert_unchanged(tiny_lm, before)
    assert list(sums) == [1, 3]
    name = next(iter(sums[3]))
    with tiny_lm.restored_after():
        for request in REQUESTS:
            rome(tiny_lm).compute_update(tiny_lm, [request]).apply(tiny_lm)
        moved = tiny_lm.weight(name) - before[name]
    assert torch.allclose(sums[3].delta(name), moved, atol=1e-6)


def test_the_second_edit_of_a_sequence_sees_the_first(tiny_lm):
    sums = trials.sequential_updates(tiny_lm, rome(tiny_lm), REQUESTS, checkpoints=[1, 2])
    name = next(iter(sums[2]))
    second = sums[2].delta(name) - sums[1].delta(name)
    alone = rome(tiny_lm).compute_update(tiny_lm, [REQUESTS[1]]).delta(name)
    assert (second - alone).norm() > 1e-3 * alone.norm()


def test_the_regularizer_of_a_sequence_compares_with_the_weight_as_it_is(tiny_lm):
    seen = []

    class Spy:
        label = "spy"

        def __call__(self, update, lm):
            seen.append(lm.weight(next(iter(update))).clone())
            return update

    trials.sequential_updates(tiny_lm, rome(tiny_lm), REQUESTS, checkpoints=[2], regularizer=Spy())
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("checkpoints", [[0], [1, 4], []])
def test_checkpoints_outside_the_facts_are_refused(tiny_lm, checkpoints):
    with pytest.raises(SpecError) as err:
        trials.sequential_updates(tiny_lm, rome(tiny_lm), REQUESTS, checkpoints=checkpoints)
    assert str(err.value) == f"checkpoints must lie from 1 to the number of facts, 3; got {checkpoints}."


def test_single_edits_are_scored_under_every_regularizer_and_undone(tiny_lm):
    before = bits(tiny_lm)
    updates = trials.single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    scores = trials.score_single_edits(tiny_lm, updates, REQUESTS, [wb.Unregularized(), wb.RECT(0.4)])
    assert_unchanged(tiny_lm, before)
    assert scores.groupby(["regularizer", "metric", "protocol"]).size().tolist() == [3] * 12
    with wb.RECT(0.4)(updates[1], tiny_lm).applied(tiny_lm):
        alone = wb.score_edits(tiny_lm, [REQUESTS[1]])
    mine = scores[(scores.request == 1) & (scores.regularizer == "RECT 40 %")]
    assert mine["value"].tolist() == alone["value"].tolist()


def memit() -> wb.MEMIT:
    moment = wb.SecondMoment(n_tokens=256)
    return wb.MEMIT((0, 1), 1.0, v_num_grad_steps=2, contexts=("{}",), second_moment=moment)


def test_batches_are_one_operation_each_and_scored_fact_by_fact(tiny_lm, own_cache):
    before = bits(tiny_lm)
    updates = trials.single_updates(tiny_lm, memit(), REQUESTS, batch_size=2)
    assert [len(update.info[0]["requests"]) for update in updates] == [2, 1]
    scores = trials.score_single_edits(tiny_lm, updates, REQUESTS, [wb.Unregularized()], batch_size=2)
    assert_unchanged(tiny_lm, before)
    assert scores.groupby(["metric", "protocol"])["request"].apply(list).tolist() == [[0, 1, 2]] * 6
    with updates[0].applied(tiny_lm):
        together = wb.score_edits(tiny_lm, REQUESTS[:2])
    assert scores[scores["request"] < 2]["value"].tolist() == together["value"].tolist()


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (2, "ROME edits one fact an operation, so batch_size must be 1; got 2."),
        (0, "batch_size must be at least 1; got 0."),
    ],
)
def test_a_batch_that_a_method_cannot_edit_is_refused(tiny_lm, size, sentence):
    with pytest.raises(SpecError) as err:
        trials.single_updates(tiny_lm, rome(tiny_lm), REQUESTS, batch_size=size)
    assert str(err.value) == sentence


def test_methods_are_compared_on_the_same_facts_each_on_the_unedited_model(tiny_lm, own_cache):
    before = bits(tiny_lm)
    table = compare_methods(tiny_lm, [(rome(tiny_lm), 1), (memit(), 3)], REQUESTS)
    assert_unchanged(tiny_lm, before)
    assert table.groupby(["method", "batch_size"], sort=False).size().to_dict() == {("ROME", 1): 6, ("MEMIT", 3): 6}
    assert (table["n"] == 3).all()
    assert (table["seconds"] > 0).all()
    updates = trials.single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    scores = trials.score_single_edits(tiny_lm, updates, REQUESTS, [wb.Unregularized()])
    expected = scores.groupby(["metric", "protocol"], sort=False)["value"].mean()
    assert table[table["method"] == "ROME"]["value"].tolist() == pytest.approx(expected.tolist())


def test_the_readme_table_has_a_line_a_method_with_intervals():
    row = {"method": "ROME", "batch_size": 1, "protocol": "teacher_forced", "value": 0.9, "low": 0.8, "high": 0.95}
    rows = [{**row, "metric": metric, "n": 3, "seconds": 7.04} for metric in ("reliability", "locality")]
    assert as_readme_table(pd.DataFrame(rows)).splitlines() == [
        "| method | facts an operation | reliability | locality | seconds an edit |",
        "| --- | ---: | --- | --- | ---: |",
        "| ROME | 1 | 0.90 (0.80 to 0.95) | 0.90 (0.80 to 0.95) | 7 |",
    ]


def test_edit_sizes_are_those_of_dense_algebra_the_largest_first(tiny_lm):
    updates = trials.single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    sizes = tables.edit_sizes(updates, tiny_lm)
    norms = {
        update.info[0]["requests"][0]["subject"]: float(update.delta(name).norm() / tiny_lm.weight(name).norm())
        for update in updates
        for name in update
    }
    assert sizes["relative_norm"].tolist() == pytest.approx(sorted(norms.values(), reverse=True), rel=1e-5)
    assert sizes["subject"].tolist() == sorted(norms, key=norms.get, reverse=True)
    assert sizes["denominator"].notna().all()


def test_the_sweep_edits_the_same_facts_at_every_value(tiny_lm):
    table = sweep(tiny_lm, rome(tiny_lm), REQUESTS, field="layer", values=[0, 2])
    assert table["layer"].unique().tolist() == [0, 2]
    assert (table["n"] == 3).all()
    assert (table["relative_norm"] > 0).all()


def test_thresholds_are_the_mean_quantiles_of_single_edits(tiny_lm):
    updates = trials.single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    found = tables.quantile_thresholds(updates, tiny_lm)
    name = next(iter(updates[0]))
    W = tiny_lm.weight(name).numpy()
    naive = [
        np.mean([np.quantile(np.abs(u.delta(name).numpy() / W), q, method="inverted_cdf") for u in updates])
        for q in (0.8, 0.9)
    ]
    assert found["quantile"].tolist() == [0.8, 0.9]
    assert np.allclose(found["value"], naive)
    assert (found["n"] == 3).all()


def test_table_1_puts_the_published_numbers_beside_ours(tiny_lm):
    sums = trials.sequential_updates(tiny_lm, rome(tiny_lm), REQUESTS, checkpoints=[1, 2])
    thresholds = pd.DataFrame({"quantile": [0.8, 0.9], "value": [0.01, 0.1]})
    table = tables.weight_change_by_edits(sums, tiny_lm, thresholds)
    name = next(iter(sums[1]))
    dW, W = sums[1].delta(name).double(), tiny_lm.weight(name).double()
    assert np.isclose(table["manhattan_distance"][0], float(dW.abs().sum()))
    assert np.isclose(table["share_above_q90"][0], float(((dW / W).abs() > 0.1).double().mean()))
    assert table["manhattan_distance_paper"][0] == 9079.2
    assert np.isnan(table["manhattan_distance_paper"][1])


def test_random_selection_keeps_as_much_of_the_norm_as_of_the_entries(tiny_lm):
    updates = trials.single_updates(tiny_lm, rome(tiny_lm), REQUESTS)
    table = tables.kept_norm_shares(updates, tiny_lm, keeps=(0.5, 1.0))
    shares = table.set_index(["regularizer", "keep"])["value"]
    assert shares["RECT", 1.0] == shares["Random", 1.0] == 1.0
    assert abs(shares["Random", 0.5] - 0.5) < 0.1
    assert shares["RECT", 0.5] > 0.5


def test_retention_is_relative_to_the_unregularized_edit():
    table = pd.DataFrame(
        [("Unregularized", "reliability", "generated", 0.8), ("RECT 40 %", "reliability", "generated", 0.6)],
        columns=["regularizer", "metric", "protocol", "value"],
    )
    kept = tables.retention(table)
    assert np.isclose(kept.loc["RECT 40 %", ("generated", "reliability")], 0.75)
    assert kept.loc["Unregularized", ("generated", "reliability")] == 1
