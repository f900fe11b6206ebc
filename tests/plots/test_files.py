"""The files of a figure: written whole or not at all, the same each time, with the table that was drawn."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.helpers import error_of
from workbench.errors import OutputError
from workbench.plots.files import draw_and_save, on_one_axes, save_figure, save_table
from workbench.plots.overview import kept_share_curves
from workbench.plots.weights import relative_change_panel, weight_heatmaps

SHARES = pd.DataFrame({"regularizer": "RECT", "keep": [0.2, 1.0], "value": [0.7, 1.0], "n": 3})
HISTOGRAM = pd.DataFrame({"n_edits": 1, "low": [0.01, 0.1], "high": [0.1, 1.0], "share": [0.25, 0.75]})
THRESHOLDS = pd.DataFrame({"quantile": [0.8, 0.9], "value": [0.2, 0.4]})
HEATMAP = pd.DataFrame(
    [(1, r, c, 0.1 + r + c) for r in (0, 8) for c in (0, 4)], columns=["n_edits", "row", "column", "value"]
)


def test_save_figure_writes_png_svg_and_the_table(tmp_path):
    figure = Figure()
    kept_share_curves(SHARES, figure.subplots())
    paths = save_figure(figure, SHARES, tmp_path / "new", "name")
    assert [path.name for path in paths] == ["name.png", "name.svg", "name.csv"]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), SHARES, check_dtype=False)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"name.png", "name.svg", "name.csv"}


def test_draw_and_save_draws_in_the_style_and_writes_the_drawn_table(tmp_path):
    figure = draw_and_save(on_one_axes(kept_share_curves), SHARES, tmp_path, "name", figsize=(4, 3), title="Kept")
    [ax] = figure.axes
    assert not ax.spines["top"].get_visible()
    assert tuple(figure.get_size_inches()) == (4, 3)
    assert figure.get_suptitle() == "Kept"
    assert {path.name for path in tmp_path.iterdir()} == {"name.png", "name.svg", "name.csv"}
    assert len(pd.read_csv(tmp_path / "name.csv")) == len(SHARES)


def test_draw_and_save_writes_the_first_of_several_tables_or_the_one_given(tmp_path):
    tables = (HISTOGRAM, THRESHOLDS)
    draw_and_save(on_one_axes(relative_change_panel), tables, tmp_path, "first", figsize=(4, 3))
    draw_and_save(on_one_axes(relative_change_panel), tables, tmp_path, "given", figsize=(4, 3), saved=THRESHOLDS)
    assert list(pd.read_csv(tmp_path / "first.csv")) == list(HISTOGRAM)
    assert list(pd.read_csv(tmp_path / "given.csv")) == list(THRESHOLDS)


def test_drawing_leaves_no_settings_and_no_figures_of_pyplot(tmp_path):
    before = dict(mpl.rcParams)
    draw_and_save(weight_heatmaps, HEATMAP, tmp_path, "name", figsize=(4, 3))
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", ["png", "svg"])
def test_a_figure_saved_twice_is_the_same_file(tmp_path, name):
    for stem in ("a", "b"):
        draw_and_save(weight_heatmaps, HEATMAP, tmp_path, stem, figsize=(4, 3))
    assert (tmp_path / f"a.{name}").read_bytes() == (tmp_path / f"b.{name}").read_bytes()


def test_a_failing_write_leaves_the_old_file_and_nothing_half_written(tmp_path):
    old = save_table(pd.DataFrame({"a": [1]}), tmp_path, "t")
    before = old.read_bytes()

    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_figure(Broken(), pd.DataFrame({"a": [2]}), tmp_path, "t")
    assert old.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", ""])
def test_figures_and_tables_are_written_inside_their_folder_only(tmp_path, name):
    folder = tmp_path / "figures"
    sentence = f"{name!r} cannot name a file; give letters, digits and _ - . without folders."
    for save in (save_table, lambda table, *place: save_figure(Figure(), table, *place)):
        assert error_of(OutputError, save, SHARES, folder, name) == sentence
    assert list(tmp_path.iterdir()) == []
