"""Curves over edits, read back from their artists."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from workbench.errors import SpecError
from workbench.plots.curves import (
    ability_curves,
    batch_size_curves,
    change_curves,
    edit_curves,
    perplexity_paths,
    retention_curves,
)
from workbench.plots.style import styles_of

SCORES = pd.DataFrame(
    [
        ("NLI", 0.5, "Unregularized", 0, 0.6, 0.5, 0.7),
        ("NLI", 0.5, "Unregularized", 10, 0.3, 0.2, 0.4),
        ("NLI", 0.5, "RECT 40 %", 0, 0.6, 0.5, 0.7),
        ("NLI", 0.5, "RECT 40 %", 10, 0.5, 0.4, 0.6),
        ("NER", 0.0, "Unregularized", 0, 0.2, 0.1, 0.3),
        ("NER", 0.0, "Unregularized", 10, 0.1, 0.0, 0.2),
    ],
    columns=["title", "floor", "series", "n_edits", "value", "low", "high"],
)
PERPLEXITIES = SCORES[SCORES["title"] == "NER"].assign(value=[20.0, 300.0], low=[18.0, 200.0], high=[22.0, 400.0])


def test_each_line_is_a_series_of_the_table_in_its_own_style():
    nli = SCORES[SCORES["title"] == "NLI"]
    ax = edit_curves(nli, Figure().subplots())
    styles = styles_of(["Unregularized", "RECT 40 %"])
    for line, (label, style) in zip(ax.get_lines(), styles.items(), strict=True):
        rows = nli[nli["series"] == label]
        assert list(line.get_xdata()) == list(rows["n_edits"])
        assert list(line.get_ydata()) == list(rows["value"])
        assert (line.get_color(), line.get_marker()) == (style.color, style.marker)
    assert len(ax.get_lines()) == 2
    extents = [band.get_paths()[0].get_extents() for band in ax.collections]
    assert [(box.ymin, box.ymax) for box in extents] == [(0.2, 0.7), (0.4, 0.7)]


def test_each_ability_has_a_panel_and_perplexity_the_last():
    figure = ability_curves(SCORES, PERPLEXITIES, Figure(layout="constrained"))
    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in shown] == ["NLI (at guessing)", "NER", "perplexity of held-out text"]
    assert [ax.get_yscale() for ax in shown] == ["linear", "linear", "log"]


def test_the_score_of_guessing_is_drawn_in_every_panel():
    figure = ability_curves(SCORES, PERPLEXITIES, Figure(layout="constrained"))
    marks = [[line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"] for ax in figure.axes[:2]]
    assert marks == [[0.5], [0.0]]


def test_the_legend_names_each_series_once():
    figure = ability_curves(SCORES, PERPLEXITIES, Figure(layout="constrained"))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Unregularized", "RECT 40 %", "guessing"]


def test_series_without_a_style_of_their_own_differ_in_marker():
    other = SCORES.replace({"Unregularized": "10 facts at once", "RECT 40 %": "30 facts at once"})
    ax = edit_curves(other[other["title"] == "NLI"], Figure().subplots())
    assert len({line.get_marker() for line in ax.get_lines()}) == 2


@pytest.mark.parametrize("paths", [False, True])
def test_a_series_has_one_style_in_all_panels_and_the_legend_whatever_the_order_of_the_tables(paths):
    labels = ["ROME, Unregularized", "R-ROME, Unregularized", "ROME, PRUNE of the sum"]
    nli = SCORES[(SCORES["title"] == "NLI") & (SCORES["series"] == "Unregularized")]
    scores = pd.concat([nli.assign(series=label) for label in labels])
    perplexities = pd.concat([PERPLEXITIES.assign(series=label) for label in reversed(labels[:2])])
    if paths:
        perplexities = perplexities.drop(columns=["low", "high"]).assign(trajectory="a")
    figure = ability_curves(scores, perplexities, Figure(layout="constrained"))
    known = {
        text.get_text(): line.get_color()
        for text, line in zip(figure.legends[0].get_texts(), figure.legends[0].get_lines(), strict=True)
    }
    drawn = [
        [line.get_color() for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_linestyle() != ":"]
        for ax in figure.axes[:2]
    ]
    assert drawn[0] == [known[label] for label in labels]
    assert drawn[1] == [known[label] for label in reversed(labels[:2])]
    assert len(set(known.values())) == 4


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(SpecError, match="the table lacks the column 'series'"):
        edit_curves(SCORES.drop(columns="series"), Figure().subplots())


@pytest.mark.parametrize("highest", [23.0, 90.0, 3e15])
def test_perplexities_have_ticks_however_far_they_rise(highest):
    rising = PERPLEXITIES.assign(value=[20.0, highest], low=[18.0, highest], high=[22.0, highest])
    figure = ability_curves(SCORES, rising, Figure(layout="constrained"))
    figure.draw_without_rendering()
    last = [ax for ax in figure.axes if ax.axison][-1]
    low, high = last.get_ylim()
    shown = [t for t in last.yaxis.get_major_ticks() if t.label1.get_text() and low <= t.get_loc() <= high]
    assert 2 <= len(shown) <= 9


def test_every_axis_shows_its_values_and_guessing_and_no_score_below_zero():
    figure = ability_curves(SCORES, PERPLEXITIES, Figure(layout="constrained"))
    nli, ner = (ax.get_ylim() for ax in figure.axes[:2])
    assert nli[0] <= 0.3 < 0.6 <= nli[1]
    assert -0.02 < ner[0] <= 0 < 0.2 <= ner[1] < 0.4


def test_an_interval_is_shown_whole_however_wide():
    wide = SCORES.assign(low=0.05, high=0.95)
    figure = ability_curves(wide, PERPLEXITIES, Figure(layout="constrained"))
    for low, high in (ax.get_ylim() for ax in figure.axes[:2]):
        assert -0.1 < low < 0.05
        assert 0.95 < high < 1.1


def test_with_many_series_only_the_first_two_have_bands():
    nli = SCORES[(SCORES["title"] == "NLI") & (SCORES["series"] == "Unregularized")]
    labels = ("Unregularized", "RECT 40 %", "RECT 20 %", "Random 40 %")
    ax = edit_curves(pd.concat([nli.assign(series=label) for label in labels]), Figure().subplots())
    assert len([line for line in ax.get_lines() if len(line.get_xdata()) == 2]) == 4
    heights = [band.get_paths()[0].get_extents().height for band in ax.collections if len(band.get_paths())]
    assert sum(height > 0 for height in heights) == 2


def test_batch_sizes_are_evenly_spaced_and_named():
    sizes = SCORES.assign(n_edits=SCORES["n_edits"] * 10)
    figure = batch_size_curves(sizes, PERPLEXITIES.assign(n_edits=[0, 1]), Figure(layout="constrained"))
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["none", "1", "100"]
    assert list(ax.get_xticks()) == [0, 1, 2]


def test_each_trajectory_has_a_thin_line_and_each_series_its_geometric_mean():
    paths = pd.DataFrame({"series": "Unregularized", "trajectory": list("aabb"), "n_edits": [0, 1] * 2})
    ax = perplexity_paths(paths.assign(value=[10.0, 20.0, 10.0, 80.0]), Figure().subplots())
    thin, mean = ax.get_lines()[:2], ax.get_lines()[2]
    assert [list(line.get_ydata()) for line in thin] == [[10, 20], [10, 80]]
    assert list(mean.get_ydata()) == pytest.approx([10, 40])


def test_changes_are_drawn_around_the_unedited_model_and_none_is_at_guessing():
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    changes = SCORES.drop(columns="floor").assign(value=-0.5, low=-0.7, high=-0.3)
    changes.loc[changes["n_edits"] == 0, list(zero)] = list(zero.values())
    figure = change_curves(changes, PERPLEXITIES, Figure(layout="constrained"))
    assert [ax.get_title() for ax in figure.axes[:2]] == ["NLI", "NER"]
    for ax in figure.axes[:2]:
        low, high = ax.get_ylim()
        assert low <= -0.7 < 0 <= high
        assert [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"] == [0]
    assert figure.axes[0].get_ylabel() == "change, nats per token"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Unregularized", "RECT 40 %", "unedited"]


@pytest.mark.parametrize("age", [0, 1.5, 40])
def test_the_ages_of_retention_start_at_the_own_edit_even_if_there_is_one(age):
    table = SCORES.rename(columns={"title": "metric", "n_edits": "age"}).assign(age=age).drop_duplicates("series")
    figure = retention_curves(table, Figure(layout="constrained"))
    figure.draw_without_rendering()
    for ax in figure.axes:
        assert ax.get_xlim()[0] < 0 <= age < ax.get_xlim()[1]
        assert {0, max(age // 1, 1)} <= {*ax.get_xticks()}


def test_retention_has_a_panel_per_metric_and_a_line_per_series():
    table = SCORES.rename(columns={"title": "metric", "n_edits": "age"})
    figure = retention_curves(table, Figure(layout="constrained"))
    assert [ax.get_title() for ax in figure.axes] == ["NLI", "NER"]
    assert [len(ax.get_lines()) for ax in figure.axes] == [2, 1]
    assert list(figure.axes[1].get_lines()[0].get_ydata()) == [0.2, 0.1]
