"""The picture of the long run: what a reader would measure in it."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from workbench.analysis.long_run import DAMAGE, WRITTEN, find_endurance
from workbench.plots.long_run import endurance_figure


@pytest.fixture
def states():
    rows = [
        ("FT", "a", 1, 2, 0.9, 1.0, 0.0),
        ("FT", "a", 2, 4, 0.3, 12345.0, -2.0),
        ("MEMIT", "b", 1, 2, 1.0, 1.01, 0.004),
        ("MEMIT", "b", 2, 4, 0.8, 1.2, -0.05),
    ]
    columns = ["contestant", "trajectory", "operation", "n_edits", "natural", "perplexity", "abilities"]
    return pd.DataFrame(rows, columns=columns).assign(seed=0, method=lambda table: table["contestant"])


def draw(states):
    return endurance_figure(states, Figure(), endurance=find_endurance(states), written=WRITTEN, damage=DAMAGE)


def test_what_lasts_longest_is_on_top_and_cells_hold_their_values(states):
    bars, natural, perplexity, abilities = draw(states).axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["MEMIT", "FT"]
    assert [bar.get_width() for bar in bars.patches] == [4, 2]
    assert [text.get_text() for text in natural.texts] == ["1.00", ".80", ".90", ".30"]
    assert [text.get_text() for text in perplexity.texts] == ["1.01", "1.20", "1.00", "10⁴"]
    assert [text.get_text() for text in abilities.texts] == ["0", "−0.05", "0", "−2.00"]


def test_cells_beyond_a_limit_are_hatched(states):
    _, natural, perplexity, abilities = draw(states).axes
    assert [(patch.get_x(), patch.get_y()) for patch in natural.patches] == [(0.5, 0.5)]
    assert [(patch.get_x(), patch.get_y()) for patch in perplexity.patches] == [(0.5, 0.5)]
    assert not abilities.patches
