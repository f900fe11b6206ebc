"""The figures of predictors and spectra, read back from their artists."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from workbench.plots.why import predictor_strengths, spectral_view

NAMES, TITLES = {"kl": "KL", "n_edits": "edits"}, {"text": "perplexity", "likelihood": "answers"}


def ranked():
    rows = [
        ("ROME", "text", name, r, r - 0.1, r + 0.1, -r, -1.0, 1.0, 0.5, 7)
        for name, r in (("kl", 0.9), ("n_edits", 0.2))
    ]
    rows.append(("ROME", "text", "together", *[np.nan] * 6, 0.6, 7))
    ends = [f"{kind}{end}" for kind in ("alone", "together") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["group", "response", "predictor", *ends, "left_out", "sequences"])


def test_coefficients_stand_at_their_predictors_with_their_intervals():
    first, second = predictor_strengths(ranked(), Figure(), names=NAMES, titles=TITLES).axes
    alone, together = first.lines[:2]
    assert alone.get_xdata().tolist() == [0.9, 0.2]
    assert together.get_xdata().tolist() == [-0.9, -0.2]
    bars = [point for segment in first.collections[0].get_segments() for point in segment.ravel()]
    assert bars == pytest.approx([0.8, -0.15, 1.0, -0.15, 0.1, 0.85, 0.3, 0.85])
    assert first.get_title() == "ROME: perplexity (n = 7)"
    assert second.get_title() == "ROME: answers (not measured)"


def test_every_checkpoint_is_a_point_and_regularized_ones_are_hollow():
    columns = ["angle_in", "angle_out", "activation_growth", "delta_90", "text"]
    damage = pd.DataFrame({column: [1.0, 2.0, 3.0] for column in columns}).assign(
        method="ROME", regularizer=["Unregularized", "RECT 40 %", "Unregularized"], spectral_ratio=[0.5, 1.0, 2.0]
    )
    values = pd.DataFrame({"matrix": ["W₀", "W₀", "ΔW"], "index": [1, 2, 1], "value": [3.0, 2.0, 1.0]})
    spectrum, *panels = spectral_view(values, damage, Figure()).axes
    assert spectrum.lines[0].get_xydata().tolist() == [[1, 3], [2, 2]]
    assert len(panels) == 5
    for ax in panels:
        plain, regularized = ax.lines[:2]
        assert plain.get_xydata().tolist() == [[0.5, 1], [2, 3]]
        assert regularized.get_xydata().tolist() == [[1, 2]]
        assert regularized.get_markerfacecolor() == "none"


def test_without_stored_updates_the_spectrum_is_empty_and_still_drawn():
    columns = [
        "method",
        "regularizer",
        "spectral_ratio",
        "angle_in",
        "angle_out",
        "activation_growth",
        "delta_90",
        "text",
    ]
    empty = pd.DataFrame(columns=columns).astype(dict.fromkeys(columns[2:], float))
    figure = spectral_view(pd.DataFrame(columns=["matrix", "index", "value"]), empty, Figure())
    assert [len(ax.lines) for ax in figure.axes] == [0, 1, 1, 1, 1, 1]
