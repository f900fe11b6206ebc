"""Figures draw what their tables hold."""

import numpy as np

import workbench as wb
from workbench.explorer.figures import abilities_picture, heatmap_picture, histogram_picture


def test_the_histogram_draws_both_parts_and_the_threshold(edited):
    edited.regularize(wb.RECT(0.3))
    view = edited.weight_view()
    [ax] = histogram_picture(view, "RECT 30 %").figure.axes
    drawn = {patch.get_label(): patch.get_data().values for patch in ax.patches}
    for kind, label in (("all", "as computed"), ("kept", "applied")):
        share = view.histogram.loc[view.histogram["kind"] == kind, "share"]
        assert np.allclose(drawn[label], 100 * share)
    [line] = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
    assert line.get_xdata()[0] == view.threshold


def test_without_rect_there_is_no_threshold(edited):
    [ax] = histogram_picture(edited.weight_view(), "Unregularized").figure.axes
    assert len(ax.lines) == 0


def test_the_heatmap_draws_the_block_means(edited):
    view = edited.weight_view()
    picture = heatmap_picture(view)
    drawn = picture.figure.axes[0].collections[0].get_array().ravel()
    assert np.allclose(np.sort(drawn), np.sort(view.means["value"].clip(lower=view.limits[0])))
    assert picture.to_html().startswith('<img class="wb-figure" alt="Heatmap of |ΔW| of ')


def test_the_alt_text_of_the_abilities_holds_every_score(edited, small_tasks):
    scores = edited.check_abilities(2)
    picture = abilities_picture(scores)
    for row in scores.itertuples():
        assert f"{row.value:.2f}" in picture.alt
    assert picture.alt.count("unedited") == picture.alt.count("1 edit") == 8
