"""The figures of abilities, read back from their artists."""

from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.figure import Figure

from workbench.errors import SpecError
from workbench.plots.abilities import ability_bars, ability_points, perplexity_curve, side_effects_figure
from workbench.plots.style import ordered_looks

SCORES = pd.DataFrame(
    [
        ("NLI", 0, 0.6, 0.5, 0.7, 0.5, 40),
        ("NER", 0, 0.3, 0.2, 0.35, 0.0, 40),
        ("NLI", 10, 0.5, 0.4, 0.6, 0.5, 40),
        ("NER", 10, 0.1, 0.05, 0.2, 0.0, 40),
    ],
    columns=["title", "n_edits", "value", "low", "high", "floor", "n"],
)
PERPLEXITIES = pd.DataFrame({"n_edits": [0, 10], "value": [20.0, 35.0], "low": [18.0, 30.0], "high": [22.0, 41.0]})


def test_each_point_is_a_score_with_its_interval_in_the_row_of_its_task():
    ax = ability_points(SCORES, Figure().subplots())
    titles = [label.get_text() for label in ax.get_yticklabels()]
    assert titles == ["NLI", "NER"]
    drawn = {(round(float(c[0].get_xdata()[0]), 6), round(float(c[0].get_ydata()[0]))) for c in ax.containers}
    assert drawn == {(row.value, titles.index(row.title)) for row in SCORES.itertuples()}
    spans = {tuple(bar.get_segments()[0][:, 0].round(6)) for c in ax.containers for bar in c[2]}
    assert spans == {(row.low, row.high) for row in SCORES.itertuples()}


def test_each_bar_is_a_score_with_its_interval_in_the_row_of_its_task_the_unedited_one_on_top():
    ax = ability_bars(SCORES, Figure().subplots())
    bars = [container.patches[0] for container in ax.containers if hasattr(container, "patches")]
    titles = [label.get_text() for label in ax.get_yticklabels()]
    drawn = {(round(bar.get_width(), 6), round(bar.get_y() + bar.get_height() / 2)) for bar in bars}
    assert drawn == {(row.value, titles.index(row.title)) for row in SCORES.itertuples()}
    spans = {tuple(c.errorbar[2][0].get_segments()[0][:, 0].round(6)) for c in ax.containers if hasattr(c, "patches")}
    assert spans == {(row.low, row.high) for row in SCORES.itertuples()}
    of_nli = sorted((bar for bar in bars if bar.get_y() < 0.5), key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in of_nli] == [0.6, 0.5]  # the axis is upside down: task by task
    assert ax.yaxis_inverted()


@pytest.mark.parametrize("draw", [ability_points, ability_bars])
def test_guessing_is_marked_where_a_task_has_options_and_nowhere_else(draw):
    ax = draw(SCORES, Figure().subplots())
    marks = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert [tuple(line.get_xdata()) for line in marks] == [(0.5, 0.5)]


def test_the_curve_is_the_tables():
    ax = perplexity_curve(PERPLEXITIES, Figure().subplots())
    [line] = ax.get_lines()
    assert list(line.get_xdata()) == [0, 10]
    assert list(line.get_ydata()) == [20.0, 35.0]
    [band] = ax.collections
    assert band.get_paths()[0].get_extents().ymin == 18.0
    assert band.get_paths()[0].get_extents().ymax == 41.0


def test_the_legend_names_each_number_of_edits_once():
    figure = side_effects_figure(SCORES, PERPLEXITIES, Figure(layout="constrained"))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["unedited", "10 edits", "guessing"]


def test_steps_of_a_series_differ_in_marker_and_in_brightness():
    looks = ordered_looks(5)
    assert len({look["marker"] for look in looks}) == 5
    grays = [0.3 * r + 0.59 * g + 0.11 * b for r, g, b, _ in (look["color"] for look in looks[1:])]
    assert grays == sorted(grays)
    assert min(b - a for a, b in pairwise(grays)) > 0.05


def test_a_table_without_a_column_is_refused_with_its_name():
    with pytest.raises(SpecError) as caught:
        ability_points(SCORES.drop(columns="floor"), Figure().subplots())
    assert str(caught.value).startswith("the table lacks the column 'floor'; it has 'title', ")
