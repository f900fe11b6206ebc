"""The figure of a collapse shows what its table holds."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.helpers import error_of
from workbench.errors import SpecError
from workbench.plots.anatomy import collapse_panels


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        ("perplexity", "ROME", t, name, v) for t, name, v in ((0, "unedited", 40.0), (1, "a", 41.0), (2, "b", 900.0))
    ]
    rows += [("key", "uᵀk", 1, "a", 6.0), ("key", "uᵀk", 2, "b", -0.05)]
    rows += [("key", "σ₁(ΔW) / σ₁(W₀)", 1, "a", 0.2), ("key", "σ₁(ΔW) / σ₁(W₀)", 2, "b", 9.0)]
    for series, top in (("unedited", 22.0), ("before the edit", 22.5), ("after the edit", 200.0)):
        rows += [("spectrum", series, i, "w", top / i) for i in range(1, 31)]
        rows += [("activations", series, i, "w", top + i) for i in range(8)]
    rows.append(("spectrum", "ΔW of the edit", 1, "w", 199.0))
    for series, value in (("before the edit", -0.01), ("after the edit", -2.0)):
        rows += [("abilities", series, i, title, value) for i, title in enumerate(("NLI", "Sentiment"))]
    for i, label in enumerate(("ROME", "RECT 40 %", "PRUNE", "R-ROME")):
        rows += [("remedies", "perplexity", i, label, 20.0 / (i + 1)), ("remedies", "this fact", i, label, 0.25 * i)]
    return pd.DataFrame(rows, columns=["panel", "series", "x", "name", "value"])


def lines_of(ax):
    return {line.get_label(): line.get_ydata().tolist() for line in ax.lines if not line.get_label().startswith("_")}


def test_lines_points_and_bars_are_those_of_the_table(table):
    axes = collapse_panels(table, Figure(), fatal=2).axes
    assert lines_of(axes[0])["ROME"] == [40, 41, 900]
    assert lines_of(axes[1])["uᵀk"] == [6, 0.05]
    assert lines_of(axes[2])["after the edit"] == [200 / i for i in range(1, 31)]
    assert lines_of(axes[3])["before the edit"] == [22.5 + i for i in range(8)]
    assert [line.get_xdata().tolist() for line in axes[4].lines[:2]] == [[-0.01, -0.01], [-2, -2]]
    tops = [bar.get_y() + bar.get_height() for bar in axes[5].patches]
    assert tops == pytest.approx([20, 10, 20 / 3, 5])
    assert [text.get_text() for text in axes[5].get_xticklabels()] == ["ROME", "RECT 40 %", "PRUNE", "R-ROME"]
    assert axes[6].lines[0].get_ydata().tolist() == [0, 0.25, 0.5, 0.75]


def test_the_fatal_edit_is_marked_in_the_panels_of_edits(table):
    axes = collapse_panels(table, Figure(), fatal=2).axes
    for ax in axes[:2]:
        assert [2, 2] in [list(line.get_xdata()) for line in ax.lines]


def test_a_table_without_values_is_refused(table):
    assert error_of(SpecError, collapse_panels, table.drop(columns="value"), Figure(), fatal=2).startswith(
        "the table lacks the column 'value'; it has 'panel', "
    )
