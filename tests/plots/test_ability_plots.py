"""The figures of abilities, read back from their artists."""

from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from workbench.errors import SpecError
from workbench.plots.abilities import ability_bars, ability_points, perplexity_curve, side_effects_figure
from workbench.plots.style import ordered_styles

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


def spans(ax):
    """Ends of the intervals that are drawn: of lines without a marker that are not dotted."""
    lines = [line for line in ax.get_lines() if line.get_marker() == "None" and line.get_linestyle() == "-"]
    return {(min(line.get_xdata()), max(line.get_xdata())) for line in lines}


def test_each_point_is_a_score_with_its_interval_in_the_row_of_its_task():
    ax = ability_points(SCORES, Figure().subplots())
    titles = [label.get_text() for label in ax.get_yticklabels()]
    assert titles == ["NLI", "NER"]
    points = [line for line in ax.get_lines() if line.get_marker() in ("o", "D")]
    drawn = {(x, round(y)) for line in points for x, y in line.get_xydata()}
    assert drawn == {(row.value, titles.index(row.title)) for row in SCORES.itertuples()}
    assert spans(ax) == {(row.low, row.high) for row in SCORES.itertuples()}


def test_each_bar_is_a_score_with_its_interval_in_the_row_of_its_task_the_unedited_one_on_top():
    ax = ability_bars(SCORES, Figure().subplots())
    bars = [bar for container in ax.containers for bar in container.patches]
    titles = [label.get_text() for label in ax.get_yticklabels()]
    drawn = {(round(bar.get_width(), 6), round(bar.get_y() + bar.get_height() / 2)) for bar in bars}
    assert drawn == {(row.value, titles.index(row.title)) for row in SCORES.itertuples()}
    assert spans(ax) == {(row.low, row.high) for row in SCORES.itertuples()}
    of_nli = sorted((bar for bar in bars if bar.get_y() < 0.5), key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in of_nli] == [0.6, 0.5]  # the y axis points down
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


def test_a_score_without_an_interval_is_drawn_as_a_point_alone():
    nan = float("nan")
    ax = ability_points(SCORES.assign(low=nan, high=nan), Figure().subplots())
    points = [line for line in ax.get_lines() if line.get_marker() in ("o", "D")]
    assert sorted(x for line in points for x in line.get_xdata()) == [0.1, 0.3, 0.5, 0.6]


def test_the_legend_names_each_number_of_edits_once():
    figure = side_effects_figure(SCORES, PERPLEXITIES, Figure(layout="constrained"))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["unedited", "10 edits", "guessing"]


def test_steps_of_a_series_differ_in_marker_and_in_brightness():
    styles = ordered_styles(5)
    assert len({style.marker for style in styles}) == 5
    grays = [0.3 * r + 0.59 * g + 0.11 * b for r, g, b in (to_rgb(style.color) for style in styles[1:])]
    assert grays == sorted(grays)
    assert min(b - a for a, b in pairwise(grays)) > 0.05


def test_a_table_without_a_column_is_refused_with_its_name():
    with pytest.raises(SpecError) as caught:
        ability_points(SCORES.drop(columns="floor"), Figure().subplots())
    assert str(caught.value).startswith("the table lacks the column 'floor'; it has 'title', ")


def test_the_title_of_perplexities_says_what_their_windows_are():
    table = PERPLEXITIES.assign(n=60, protocol="windows of 101 to 122 tokens")
    assert perplexity_curve(table, Figure().subplots()).get_title().splitlines() == [
        "held-out text",
        "60 windows of 101 to 122 tokens",
    ]
