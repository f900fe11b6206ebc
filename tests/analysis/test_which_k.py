"""Fronts, the smallest share that suffices, and the rule against 40 %, on tables worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from tests.analysis.units_tables import units_of
from workbench.analysis.which_k import (
    choose_shares,
    compare_rule,
    describe_shares,
    fixed_shares,
    list_regularizers,
    tabulate_fronts,
)

FIXED = fixed_shares([0.1, 0.4, 1.0])


def units(n=6, *, editing=(0.2, 0.8, 0.8), kept=(-0.1, -0.2, -0.4), rule=(0.79, -0.15)):
    """Sequences that differ by a little noise; the rule applies between 20 and 30 %."""
    noise = np.random.default_rng(0).normal(scale=0.001, size=n)
    rows = {
        label: [{"editing": e + z, "likelihood": k, "text": k - z, "locality": 1 + k, "share": share} for z in noise]
        for (label, share), e, k in zip(FIXED.items(), editing, kept, strict=True)
    }
    rows["RECT energy 90 %"] = [
        {
            "editing": rule[0] + 2 * z,
            "likelihood": rule[1] - z,
            "text": rule[1],
            "locality": 1.0,
            "share": 0.2 + 0.02 * i,
        }
        for i, z in enumerate(noise)
    ]
    return units_of(rows)


def test_a_point_is_on_the_front_unless_another_is_at_least_as_good_in_both_and_better_in_one():
    front = tabulate_fronts(units(), FIXED).query("measure == 'likelihood'").set_index("regularizer")
    # the whole update edits as well as 40 % and keeps less
    expected = {"RECT 10 %": True, "RECT 40 %": True, "Unregularized": False, "RECT energy 90 %": True}
    assert front["on_front"].to_dict() == expected
    assert front.loc["RECT 40 %", "front_share"] == 1.0
    assert front.loc["Unregularized", "front_share"] == 0.0


def test_means_and_intervals_are_students_over_sequences():
    table = units()
    front = tabulate_fronts(table, FIXED).query("measure == 'text'").set_index("regularizer")
    values = table.loc[table["regularizer"] == "RECT 40 %", "text"].to_numpy()
    low, high = stats.t.interval(0.95, 5, loc=values.mean(), scale=stats.sem(values))
    assert front.loc["RECT 40 %", ["kept", "kept_low", "kept_high"]].tolist() == pytest.approx(
        [values.mean(), low, high]
    )
    assert front.loc["RECT energy 90 %", "share"] == pytest.approx(0.25)
    assert front["units"].unique().tolist() == [6]


def test_only_sequences_that_were_measured_under_every_regularizer_count():
    table = units()
    table = table[~((table["regularizer"] == "RECT 10 %") & (table["unit"] == "draw 0"))]
    assert tabulate_fronts(table, FIXED)["units"].unique().tolist() == [5]


def test_a_share_that_was_not_stored_is_that_of_the_regularizer():
    front = tabulate_fronts(units().assign(share=np.nan), FIXED)
    assert front.loc[front["regularizer"] == "RECT 40 %", "share"].unique().tolist() == [0.4]
    assert front.loc[front["regularizer"] == "Unregularized", "share"].unique().tolist() == [1.0]


def test_the_smallest_share_keeps_95_percent_of_the_editing_score():
    [row] = choose_shares(units(editing=(0.759, 0.8, 0.8)), FIXED).to_dict("records")
    assert (row["share"], row["units"]) == (0.4, 6)  # 0.76 is enough, 0.759 is not
    [row] = choose_shares(units(editing=(0.77, 0.8, 0.8)), FIXED).to_dict("records")
    assert (row["share"], row["low"], row["high"]) == (0.1, 0.1, 0.1)


def test_its_interval_holds_the_shares_that_resampled_sequences_choose():
    whole = [{"editing": 1.0}] * 6
    split = [{"editing": value} for value in (1, 1, 1, 1, 0.9, 0.75)]  # mean 0.942: enough without the last one
    [row] = choose_shares(units_of({"RECT 40 %": split, "Unregularized": whole}), FIXED).to_dict("records")
    assert (row["share"], row["low"], row["high"]) == (1.0, 0.4, 1.0)


def test_without_five_sequences_or_without_success_there_is_no_interval():
    [row] = choose_shares(units(4), FIXED).to_dict("records")
    assert np.isnan([row["low"], row["high"]]).all()
    [row] = choose_shares(units(editing=(0, 0, 0)).assign(editing=0.0), FIXED).to_dict("records")
    assert np.isnan(row["share"])


def test_the_rule_is_compared_sequence_by_sequence():
    table = units()
    row = compare_rule(table, FIXED).set_index("score").loc["editing"]
    wide = table.pivot(index="unit", columns="regularizer", values="editing")
    change = wide["RECT energy 90 %"] - wide["RECT 40 %"]
    low, high = stats.t.interval(0.95, 5, loc=change.mean(), scale=stats.sem(change))
    assert row[["value", "low", "high"]].tolist() == pytest.approx([change.mean(), low, high])
    assert (row["share"], row["units"]) == (pytest.approx(0.25), 6)


def test_the_first_line_answers_with_an_interval_and_few_sequences_decide_nothing():
    def said(n):
        table = units(n)
        parts = choose_shares(table, FIXED), tabulate_fronts(table, FIXED), compare_rule(table, FIXED)
        return describe_shares(*parts).splitlines()

    assert said(6)[0] == (
        "ROME, 5 facts one after another: 40 % of the entries keep 95 % of the editing score (95 % interval 40 % to "
        "40 % over 6 edit sequences)."
    )
    assert "RECT 40 % on the front of editing against likelihood: yes (in 100 % of resamples)" in said(6)[1]
    assert said(6)[2].startswith("ROME, RECT energy 90 % applies 25 %; minus RECT 40 %: editing -0.010 (-0.0")
    assert said(2)[0].endswith("(2 edit sequences are not enough for a statement, 5 are).")
    assert "resamples" not in said(2)[1]


def test_a_share_of_one_is_the_whole_update():
    assert list_regularizers([0.4, 1.0], [0.9]) == [
        {"kind": "RECT", "keep": 0.4},
        {"kind": "Unregularized"},
        {"kind": "EnergyRECT", "energy": 0.9},
    ]
    assert FIXED == {"RECT 10 %": 0.1, "RECT 40 %": 0.4, "Unregularized": 1.0}
