"""The figures of the lens show the table: one cell per state, tokens written out, lines of both models."""

import pandas as pd
import pytest
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from workbench.plots.lens import PROBABILITY, answers_through_layers, lens_figure, lens_grid


def cells(**columns):
    """Two layers above the embedding, and two tokens."""
    given = {
        **{"layer": [-1, -1, 0, 0, 1, 1], "position": [0, 1] * 3, "token": [" a", " b"] * 3},
        **{"top": [" x", " y", " $z", " y", " longest", " y"], "probability": [0.9, 0.05, 0.2, 0.3, 0.4, 0.5]},
        **{"side": "before", "change": [0.0, 0.0, 0.0, 0.1, 0.0, -0.4]},
    }
    return pd.DataFrame(given | columns)


def test_layers_go_up_and_tokens_to_the_right():
    ax = lens_grid(cells(), Figure().subplots(), value="probability", norm=Normalize(0, 1), cmap=PROBABILITY)
    [mesh] = ax.collections
    assert mesh.get_array().reshape(3, 2).tolist() == [[0.9, 0.05], [0.2, 0.3], [0.4, 0.5]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["·a", "·b"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["embedding", "0"]


def test_cells_name_their_token_from_ten_percent_on_shortened():
    ax = lens_grid(cells(), Figure().subplots(), value="probability", norm=Normalize(0, 1), cmap=PROBABILITY)
    written = {(text.get_position()): text.get_text() for text in ax.texts}
    assert written == {
        (0.5, 0.5): "·x",
        (0.5, 1.5): r"·\$z",
        (1.5, 1.5): "·y",
        (0.5, 2.5): "·longe…",
        (1.5, 2.5): "·y",
    }


def test_the_third_panel_shows_the_change_around_zero():
    table = pd.concat([cells(), cells(side="after")])
    figure = lens_figure(table, Figure(), answer="new answer")
    before, after, difference = figure.axes[:3]
    assert [ax.get_title() for ax in (before, after, difference)] == ["unedited", "edited", "change of P(new answer)"]
    mesh = difference.collections[0]
    assert mesh.get_array().ravel().tolist() == cells()["change"].tolist()
    assert (mesh.norm.vmin, mesh.norm.vcenter, mesh.norm.vmax) == (-0.4, 0, 0.4)


def test_each_answer_has_a_dashed_line_before_and_a_solid_one_after():
    table = pd.DataFrame(
        {
            **{"layer": [-1, 0] * 2, "answer": ["new"] * 2 + ["true"] * 2},
            **{"probability_before": [0.0, 0.1, 0.2, 0.9], "probability_after": [0.01, 0.8, 0.2, 0.1]},
        }
    )
    ax = answers_through_layers(table, Figure().subplots())
    drawn = {(line.get_label(), line.get_linestyle()): line.get_ydata() for line in ax.lines}
    assert set(drawn) == {("new, before", "--"), ("new, after", "-"), ("true, before", "--"), ("true, after", "-")}
    assert list(drawn["new, before", "--"]) == pytest.approx([1e-8, 0.1])
    assert list(drawn["true, after", "-"]) == [0.2, 0.1]
    colors = {line.get_label(): line.get_color() for line in ax.lines}
    assert colors["new, before"] == colors["new, after"] != colors["true, after"]
