"""The layer that traces suggest, worked out by hand, and the sweep that is set beside it."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.helpers import error_of
from workbench.errors import SpecError
from workbench.microscope.layer_choice import (
    CAVEAT,
    compare_with_sweep,
    describe_suggestion,
    read_layer_sweep,
    suggest_layer,
    tabulate_effects,
)
from workbench.microscope.trace import CausalTrace, Trace

COMMITTED = Path(__file__).parents[2] / "figures" / "default" / "rome_sweep_layers.csv"


def trace_of(effects, *, kind="mlp", prompt="a b c"):
    """A trace with these effects at the subject's last token, the second of three, and larger ones elsewhere."""
    restored = torch.full((3, len(effects)), 0.9)
    restored[1] = 0.1 + torch.tensor(effects)
    return Trace(CausalTrace(kind=kind), prompt, ("a", "b", "c"), range(0, 2), "x", 1.0, 0.9, 0.1, restored)


def test_the_layer_with_the_largest_mean_effect_at_the_subjects_last_token_is_suggested():
    suggestion = suggest_layer([trace_of([0.0, 0.3, 0.2]), trace_of([0.1, 0.0, 0.2])])
    assert suggestion.layer == 2
    assert suggestion.effects == pytest.approx((0.05, 0.15, 0.2), abs=1e-6)
    assert suggestion.n_facts == 2


def test_of_equal_effects_the_lowest_layer_is_taken():
    assert suggest_layer([trace_of([0.0, 0.25, 0.25])]).layer == 1


def test_each_layer_of_a_sweep_gets_its_effect_and_its_rank_among_all_layers():
    suggestion = suggest_layer([trace_of([0.1, 0.3, 0.2, 0.0])])
    sweep = pd.DataFrame({"layer": [0, 2], "metric": "reliability", "value": [1.0, 0.5], "n": 6})
    table = compare_with_sweep(suggestion, sweep)
    assert table.columns.tolist() == ["layer", "effect", "effect_rank", "reliability"]
    assert table["effect"].tolist() == pytest.approx([0.1, 0.2], abs=1e-6)
    assert table["effect_rank"].tolist() == [3, 2]
    assert table["reliability"].tolist() == [1.0, 0.5]


def test_a_suggestion_comes_with_the_caveat_and_the_models_own_sweep():
    suggestion = suggest_layer([trace_of([0.1, 0.3, 0.2, 0.0])])
    sweep = pd.DataFrame({"layer": [0, 2], "metric": "reliability", "value": [1.0, 0.5], "n": 6})
    assert describe_suggestion(suggestion, sweep.iloc[:0]).endswith(f"(+30.0 % over 1 fact). {CAVEAT}")
    assert describe_suggestion(suggestion, sweep).endswith(
        f"{CAVEAT} On this model, single ROME edits of 6 facts scored, at layer 0 (effect +10.0 %): reliability 1.00; "
        "layer 2 (effect +20.0 %): reliability 0.50 (notebook 04)."
    )


def test_the_sweep_that_comes_with_the_package_is_the_committed_figure():
    committed = pd.read_csv(COMMITTED)
    sweep = read_layer_sweep("smollm2-135m")
    assert len(sweep) == len(committed) >= 12
    pd.testing.assert_frame_equal(sweep, committed[sweep.columns.tolist()])


def test_a_model_without_a_sweep_has_an_empty_one():
    assert read_layer_sweep("gpt2").empty


def test_effects_are_listed_by_fact_and_layer():
    table = tabulate_effects([trace_of([0.0, 0.3]), trace_of([0.1, 0.0], prompt="d")])
    assert table["fact"].tolist() == [0, 0, 1, 1]
    assert table["prompt"].tolist() == ["a b c", "a b c", "d", "d"]
    assert table["effect"].tolist() == pytest.approx([0.0, 0.3, 0.1, 0.0], abs=1e-6)


def test_traces_that_give_no_layer_are_refused():
    assert error_of(SpecError, suggest_layer, []) == "there is no trace to choose a layer from; give at least one."
    assert error_of(SpecError, suggest_layer, [trace_of([0.1], kind="state")]) == (
        "a layer is chosen from traces of the kind mlp; got one of the kind state."
    )
    assert error_of(SpecError, suggest_layer, [trace_of([0.1]), trace_of([0.1, 0.2])]) == (
        "the traces are of models with different numbers of layers; give those of one model."
    )
