"""The figures of causal traces show the table: tokens downwards, layers to the right, limits shared."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from workbench.plots.trace import effects_and_scores, trace_heatmaps


def effects(kind, values):
    """Two tokens, three layers."""
    return pd.DataFrame(
        {
            **{"kind": kind, "position": [0] * 3 + [1] * 3, "token": [" the"] * 3 + [" Louvre"] * 3},
            **{"in_subject": [False] * 3 + [True] * 3, "layer": [0, 1, 2] * 2, "effect": values},
        }
    )


def test_each_kind_has_a_panel_with_shared_limits():
    table = pd.concat([effects("state", [0, 0, 0, 0.1, 0.5, 0.2]), effects("mlp", [0, 0, 0, 0.1, -0.2, 0.3])])
    figure = trace_heatmaps(table, Figure())
    state, mlp = figure.axes[:2]
    assert [ax.get_title() for ax in (state, mlp)] == ["hidden state", "MLPs"]
    assert mlp.collections[0].get_array().reshape(2, 3).tolist() == [[0, 0, 0], [0.1, -0.2, 0.3]]
    for ax in (state, mlp):
        assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == (-0.5, 0.5)
        assert ax.yaxis_inverted()
    assert [label.get_text() for label in state.get_yticklabels()] == ["the", "Louvre*"]


def test_the_mean_effect_stands_above_the_scores_of_edits():
    by_fact = pd.DataFrame({"fact": [0, 0, 1, 1], "layer": [0, 1] * 2, "effect": [0.0, 0.4, 0.2, 0.2]})
    sweep = pd.DataFrame({"layer": [0, 1], "metric": "reliability", "value": [1.0, 0.5], "low": 0.4, "high": 1.0})
    top, below = effects_and_scores(by_fact, sweep, Figure()).axes
    mean = next(line for line in top.lines if line.get_linewidth() == 2)
    assert list(mean.get_ydata()) == pytest.approx([0.1, 0.3])
    assert top.get_title() == "largest mean effect at layer 1 (2 facts)"
    assert any(list(line.get_ydata()) == [1.0, 0.5] for line in below.lines)


def test_a_model_without_a_sweep_has_the_effects_alone():
    by_fact = pd.DataFrame({"fact": [0, 0], "layer": [0, 1], "effect": [0.0, 0.4]})
    assert len(effects_and_scores(by_fact, pd.DataFrame(), Figure()).axes) == 1
