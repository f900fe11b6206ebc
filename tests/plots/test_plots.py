"""Each figure is read back from its artists and compared with the table that it was drawn from."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from workbench.analysis.tables import make_rect_example
from workbench.errors import SpecError
from workbench.plots import editing, overview, weights
from workbench.plots.style import styles_of
from workbench.registry import methods, regularizers


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        (regularizer, metric, protocol, value, 10, value - 0.1, value + 0.05)
        for protocol in ("teacher_forced", "generated")
        for metric in ("reliability", "generalization", "locality")
        for regularizer, value in (("Unregularized", 0.9), ("RECT 40 %", 0.8), ("Random 40 %", 0.3))
    ]
    return pd.DataFrame(rows, columns=["regularizer", "metric", "protocol", "value", "n", "low", "high"])


def points_of(ax):
    return [line for line in ax.get_lines() if line.get_marker() != "None"]


def intervals_of(ax):
    """Ends of the intervals that are drawn: of lines without a marker that are not dotted."""
    lines = [line for line in ax.get_lines() if line.get_marker() == "None" and line.get_linestyle() == "-"]
    heights = [line.get_ydata()[np.isfinite(line.get_ydata())] for line in lines]
    return [(y.min(), y.max()) for y in heights if y.size]


def test_editing_performance_draws_every_value_and_interval_of_the_table(scores):
    figure = editing.editing_performance(scores, Figure())
    assert len(figure.axes) == 6
    for ax in figure.axes:
        drawn = [xy for line in points_of(ax) for xy in line.get_xydata() if not np.isnan(xy).any()]
        assert np.allclose(drawn, [(0, 0.9), (1, 0.8), (2, 0.3)])
        assert np.allclose(intervals_of(ax), [(0.8, 0.95), (0.7, 0.85), (0.2, 0.35)])


def test_a_regularizer_has_its_own_color_and_marker(scores):
    ax = editing.editing_performance(scores, Figure()).axes[0]
    styles = styles_of(["Unregularized", "RECT 40 %", "Random 40 %"])
    for line, style in zip(points_of(ax), styles.values(), strict=True):
        assert (to_hex(line.get_color()).upper(), line.get_marker()) == (style.color, style.marker)


def test_no_two_regularizers_and_no_two_methods_look_alike_in_gray():
    of_methods = {row.title for row in methods().values()}
    of_regularizers = {label for row in regularizers().values() for label in row.styles}
    assert (len(of_methods), len(of_regularizers)) == (14, 12)
    for labels in (of_methods, of_regularizers):
        assert len({style.marker for style in styles_of(list(labels)).values()}) == len(labels)


def test_the_comparison_of_methods_draws_every_score_with_its_interval_and_the_cost():
    rows = [
        (method, size, metric, protocol, value, 3, value - 0.1, value + 0.05, seconds)
        for method, size, seconds in (("ROME", 1, 7.0), ("MEMIT", 100, 1.5))
        for metric, value in (("reliability", 0.9), ("locality", 0.7))
        for protocol in ("teacher_forced", "generated")
    ]
    columns = ["method", "batch_size", "metric", "protocol", "value", "n", "low", "high", "seconds"]
    figure = editing.methods_compared(pd.DataFrame(rows, columns=columns), Figure())
    reliability, locality, cost = figure.axes
    for ax, value in ((reliability, 0.9), (locality, 0.7)):
        assert [container.lines[0].get_xdata()[0] for container in ax.containers] == [value] * 4
        bars = [container.lines[2][0].get_segments()[0][:, 0] for container in ax.containers]
        assert np.allclose(bars, [(value - 0.1, value + 0.05)] * 4)
    assert [line.get_xdata()[0] for line in cost.lines] == [7.0, 1.5]
    assert [label.get_text() for label in reliability.get_yticklabels()] == ["ROME", "MEMIT, 100 at once"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["teacher forced", "generated"]


def test_scores_by_layer_draws_the_curve_of_each_metric():
    table = pd.DataFrame(
        [
            (layer, metric, 0.1 * layer, 0.1 * layer - 0.05, 0.1 * layer + 0.05)
            for metric in ("reliability", "locality")
            for layer in (1, 4)
        ],
        columns=["layer", "metric", "value", "low", "high"],
    )
    ax = editing.scores_by_layer(table, Figure().subplots())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["reliability", "locality"]
    reliability, locality = ax.get_lines()[:2]
    assert [line.get_color() for line in (reliability, locality)] == [
        style.color for style in styles_of(["reliability", "locality"]).values()
    ]
    assert np.allclose(locality.get_xydata(), [(1, 0.1), (4, 0.4)])


def heatmap_table() -> pd.DataFrame:
    grid = [(n, r, c, 0.1 * n + r + c / 10) for n in (1, 5) for r in (0, 8) for c in (0, 4, 8)]
    return pd.DataFrame(grid, columns=["n_edits", "row", "column", "value"])


def test_heatmaps_show_the_block_means_on_shared_limits_with_row_zero_on_top():
    table = heatmap_table()
    figure = weights.weight_heatmaps(table, Figure())
    panels = figure.axes[:2]
    meshes = [ax.collections[0] for ax in panels]
    assert len({mesh.get_clim() for mesh in meshes}) == 1
    for ax, mesh, count in zip(panels, meshes, (1, 5), strict=True):
        wanted = table[table["n_edits"] == count]["value"].to_numpy().reshape(2, 3)
        assert np.allclose(mesh.get_array(), wanted.clip(min=mesh.get_clim()[0]))
        assert ax.get_title() == f"{count} edit{'s' if count > 1 else ''}"
        bottom, top = ax.get_ylim()
        assert (top, bottom) == (0, 2)  # blocks
    first = panels[0]
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert (labels[0], labels[-1]) == ("0", "16")  # rows of W
    assert (first.get_yticks()[0], first.get_yticks()[-1]) == (0, 2)


def test_relative_change_panel_draws_the_shares_in_percent_and_both_thresholds():
    histogram = pd.DataFrame({"n_edits": 1, "low": [0.01, 0.1], "high": [0.1, 1.0], "share": [0.25, 0.75]})
    thresholds = pd.DataFrame({"quantile": [0.8, 0.9], "value": [0.2, 0.4]})
    ax = weights.relative_change_panel(histogram, thresholds, Figure().subplots())
    assert np.allclose(ax.patches[0].get_data().values, [25, 75])
    assert [line.get_xdata()[0] for line in ax.get_lines()] == [0.2, 0.4]
    assert ax.get_xscale() == "log"


def test_rect_example_writes_the_numbers_of_the_papers_figure():
    figure = overview.rect_example(make_rect_example(keep=0.25), Figure())
    texts = [text.get_text() for text in figure.axes[3].texts]
    assert texts == ["0", "0.6", "0", "0", "0", "0", "0.1", "0", "0.8", "0", "0", "0", "0", "0", "0", "0.2"]


def test_kept_share_curves_draw_percent():
    table = pd.DataFrame({"regularizer": "RECT", "keep": [0.2, 1.0], "value": [0.7, 1.0], "n": 3})
    ax = overview.kept_share_curves(table, Figure().subplots())
    assert np.allclose(ax.get_lines()[0].get_xydata(), [(20, 70), (100, 100)])


def test_a_missing_column_is_named_with_those_there_are(scores):
    with pytest.raises(SpecError) as err:
        editing.editing_performance(scores.drop(columns="low"), Figure())
    assert str(err.value) == (
        "the table lacks the column 'low'; it has 'regularizer', 'metric', 'protocol', 'value', 'n', 'high'."
    )
