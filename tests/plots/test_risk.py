"""The figure of risk against damage."""

import pandas as pd
from matplotlib.figure import Figure

from workbench.plots.risk import risk_against_damage


def test_every_edit_is_a_point_of_its_model_and_the_lines_are_the_limits():
    rows = [
        ("a", "ROME", 0.01, 1.01, False),
        ("a", "ROME", 3.0, 20.0, True),
        ("a", "R-ROME", 0.02, 1.02, True),
        ("b", "ROME", 0.5, 2.0, False),
    ]
    edits = pd.DataFrame(rows, columns=["model", "method", "probe_kl", "factor", "first_token"])
    one, other = risk_against_damage(edits, Figure(), limit=0.2, breaks=1.5).axes
    points = {
        ax: sorted((float(x), float(y)) for line in ax.lines[:-2] for x, y in line.get_xydata()) for ax in (one, other)
    }
    assert points[one] == [(0.01, 1.01), (0.02, 1.02), (3.0, 20.0)]
    assert points[other] == [(0.5, 2.0)]
    assert [set(line.get_xdata()) for line in one.lines[-2:-1]] == [{0.2}]
    assert [set(line.get_ydata()) for line in one.lines[-1:]] == [{1.5}]
    filled = [line.get_markerfacecolor() != "none" for line in one.lines[:-2]]
    assert filled == [True, False, True]  # R-ROME; ROME; ROME on the one-token subject


def test_without_edits_the_figure_is_empty_and_still_drawn():
    columns = ["model", "method", "probe_kl", "factor", "first_token"]
    [ax] = risk_against_damage(pd.DataFrame(columns=columns), Figure(), limit=0.2, breaks=1.5).axes
    assert not ax.lines
