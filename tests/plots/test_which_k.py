"""The figures of shares and fronts, read back from their artists."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from workbench.plots.which_k import front_panels, share_curves

FIXED = {"RECT 10 %": 0.1, "RECT 40 %": 0.4, "Unregularized": 1.0}


def fronts():
    rows = []
    for method in ("ROME", "MEMIT"):
        for n_edits in (1, 10):
            for measure in ("likelihood", "text", "locality"):
                for i, (label, share) in enumerate({**FIXED, "RECT energy 90 %": 0.25}.items()):
                    place = {"method": method, "n_edits": n_edits, "measure": measure, "regularizer": label}
                    scores = {"share": share, "editing": 0.1 * i, "kept": -0.2 * i, "on_front": i == 1, "units": 5}
                    ends = {f"{name}_{end}": None for name in ("editing", "kept") for end in ("low", "high")}
                    rows.append({**place, **scores, **ends})
    return pd.DataFrame(rows).astype({f"{n}_{e}": float for n in ("editing", "kept") for e in ("low", "high")})


def test_every_panel_has_a_curve_per_number_of_edits_and_the_rule_at_its_own_share():
    figure = share_curves(fronts(), Figure(), fixed=FIXED)
    assert len(figure.axes) == 8  # two methods; editing and three measures
    for i, ax in enumerate(figure.axes):
        curves, stars = ax.lines[::2], ax.lines[1::2]
        assert len(curves) == len(stars) == 2
        step = 0.1 if i % 4 == 0 else -0.2
        assert curves[0].get_xdata().tolist() == [0.1, 0.4, 1.0]
        assert curves[0].get_ydata() == pytest.approx([0, step, 2 * step])
        assert stars[0].get_xydata()[0] == pytest.approx([0.25, 3 * step])


def test_points_are_labeled_by_their_share_and_filled_on_the_front():
    table = fronts()
    figure = front_panels(table[table["n_edits"] == 10], Figure(), fixed=FIXED)
    assert len(figure.axes) == 6
    for ax in figure.axes:
        line, *points, star = ax.lines
        assert sorted(map(tuple, line.get_xydata().round(3).tolist())) == [(-0.4, 0.2), (-0.2, 0.1), (0, 0)]
        assert [text.get_text() for text in ax.texts] == ["10 %", "40 %", "100 %"]
        assert [point.get_markerfacecolor() == "white" for point in points] == [True, False, True]
        assert star.get_xydata()[0] == pytest.approx([-0.6, 0.3])
