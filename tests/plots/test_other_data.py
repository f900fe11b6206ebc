"""The figure that compares sources of facts, read back from its artists."""

import pandas as pd
from matplotlib.figure import Figure

from workbench.plots.other_data import sources_compared


def test_every_source_and_regularizer_is_a_point_of_the_panel_of_its_score():
    rows = [
        (facts, label, score, value, value - 0.1, value + 0.1, 5)
        for score, offset in (("text", -1.0), ("reliability", 0.0))
        for facts, label, value in (
            ("a.json", "Unregularized", offset + 0.2),
            ("bundled", "Unregularized", offset + 0.4),
            ("a.json", "RECT 40 %", offset + 0.6),
            ("bundled", "RECT 40 %", offset + 0.8),
        )
    ]
    columns = ["facts", "regularizer", "score", "value", "low", "high", "units"]
    titles = {"reliability": "reliability", "locality": "locality", "text": "text, nats"}
    figure = sources_compared(pd.DataFrame(rows, columns=columns), Figure(), titles=titles)
    assert [ax.get_title() for ax in figure.axes] == ["reliability", "text,\nnats"]  # locality was not measured
    for ax, offset in zip(figure.axes, (0.0, -1.0), strict=True):
        drawn = {round(float(y), 3) for line in ax.lines for y in line.get_ydata()}
        assert {round(offset + step, 3) for step in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)} <= drawn
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a.json", "bundled"]
