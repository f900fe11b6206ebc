"""The tabs of a sequence in a panel with a real tiny model: spectrum, timeline, health."""

import re
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import workbench as wb
from tests.explorer.conftest import FACT, SECOND, THIRD
from tests.explorer.test_panel import PATIENCE, errors, fill_quick, press, shown
from workbench.explorer.panel import Explorer
from workbench.explorer.tabs.sequence import SequenceTab
from workbench.explorer.tabs.spectrum import SpectrumTab
from workbench.explorer.tabs.timeline import TimelineTab
from workbench.microscope.lens import read_lenses, watch_answers
from workbench.microscope.lens_view import TOP, lens_view


@pytest.fixture
def panel(tiny, tmp_path):
    """Give a panel with a tiny model, a fact, and a small number of steps."""
    panel = Explorer(tiny, exports_dir=tmp_path / "exports")
    assert panel.wait(PATIENCE)
    fill_quick(panel)
    yield panel
    panel.close()


def open_tab(panel, kind):
    """Open the tab of a class, and wait until it is up to date."""
    tabs = panel._results.tabs
    [tab] = [tab for tab in tabs if isinstance(tab, kind)]
    panel._results._tabs.selected_index = tabs.index(tab)
    assert panel.wait(PATIENCE)
    return tab


def edit(panel, *facts):
    for fact in facts:
        fill_quick(panel, fact)
        press(panel, "Edit")
        if panel.session.refused is not None:
            press(panel, "Apply anyway")
        assert errors(panel) == []


def set_value(panel, widget, value):
    widget.value = value
    assert panel.wait(PATIENCE)


def test_the_spectrum_follows_edits_and_sliders_and_applies_nothing(panel):
    tab = open_tab(panel, SpectrumTab)
    assert tab.views() == []
    edit(panel, FACT)
    [view] = tab.views()
    assert [line["name"] for line in view.data["series"]] == ["W₀", "W_t, as computed", "ΔW, as computed"]
    update, lm = panel.session.update, panel.session.lm
    [name] = update
    values = torch.linalg.svdvals(update.delta(name).double())
    assert view.data["series"][2]["points"][0] == [1, pytest.approx(float(values[0]), rel=1e-4)]
    set_value(panel, tab._kind, "RECT")
    before = tab.views()[0].data["series"][4]["points"]
    set_value(panel, tab._keep, 0.1)
    after = tab.views()[0].data["series"][4]
    assert after["name"] == "ΔW, RECT 10 %"
    assert after["points"][0][1] < before[0][1]
    wanted = torch.linalg.svdvals(wb.RECT(0.1)(update, lm).delta(name).double())
    assert after["points"][0][1] == pytest.approx(float(wanted[0]), rel=1e-4)
    assert "RECT 10 %" in shown(tab)
    assert "rephrasings" in shown(tab)
    assert panel.session.update is update
    press(panel, "Undo last")
    assert tab.views() == []


def test_each_regularizer_of_the_sum_has_its_own_settings(panel):
    edit(panel, FACT)
    tab = open_tab(panel, SpectrumTab)
    widgets = {"keep": tab._keep, "form": tab._form, "eta": tab._eta, "alpha": tab._alpha}
    settings = {"none": [], "RECT": ["keep"], "PRUNE": ["form"], "SPHERE": ["eta", "alpha"]}
    for kind, wanted in settings.items():
        set_value(panel, tab._kind, kind)
        assert [name for name, widget in widgets.items() if widget.layout.display != "none"] == wanted
        assert errors(panel) == []
    set_value(panel, tab._eta, 0.2)
    assert tab.views()[0].data["series"][4]["name"] == "ΔW, SPHERE η 0.2, α 0.8"


def test_the_timeline_measures_the_states_that_one_moves_to(panel):
    tab = open_tab(panel, TimelineTab)
    assert tab.views() == []
    edit(panel, FACT, SECOND, THIRD)
    [view] = tab.views()
    assert [each["subject"] for each in view.data["edits"]] == ["The Eiffel Tower", "Edith Piaf", "Marie Curie"]
    assert (list(view.data["states"]), view.data["current"]) == (["0", "3"], 3)
    tab._live.gesture = {"edits": 1, "number": 1}
    assert panel.wait(PATIENCE)
    [view] = tab.views()
    assert (list(view.data["states"]), view.data["current"]) == (["0", "1", "3"], 1)
    lm = panel.session.lm
    with panel.session._sequence.applied(upto=1):
        after = wb.perplexity(lm, window=32, limit=8)["value"].item()
    factor = after / wb.perplexity(lm, window=32, limit=8)["value"].item()
    assert view.data["states"]["1"]["factor"] == pytest.approx(factor, rel=1e-4)
    assert len(view.data["states"]["1"]["facts"]) == 1
    tab._live.gesture = {"edits": 99, "number": 2}
    assert panel.wait(PATIENCE)
    assert errors(panel) == []


def test_the_lens_follows_the_timeline_where_it_is_wanted(panel):
    edit(panel, FACT, SECOND)
    tab = open_tab(panel, TimelineTab)
    assert tab._lens.shown is None
    set_value(panel, tab._wants_lens, True)
    lm, prompt, watch = panel.session.lm, SECOND.filled_prompt, watch_answers(SECOND)
    for edits in (2, 1, 0):
        tab._pick({"edits": edits})
        assert panel.wait(PATIENCE)
        with panel.session.sequence.total_after(edits).applied(lm) if edits else nullcontext():
            expected = lens_view(*read_lenses(lm, prompt, watch=watch, top=min(TOP, lm.vocabulary_size)))
        assert tab._lens.shown.data == expected.data
    assert len(tab.views()) == 2
    set_value(panel, tab._wants_lens, False)
    assert len(tab.views()) == 1


def test_the_search_says_which_edit_it_found_and_what_bisection_cannot_say(panel):
    edit(panel, FACT, SECOND)
    tab = open_tab(panel, TimelineTab)
    assert [label for label, _ in tab._fell.options][1:] == ["fact 1: The Eiffel Tower", "fact 2: Edith Piaf"]
    press(panel, "Find the edit after which this fell")
    assert errors(panel) == []
    factors = [tab._timeline.measure(t).held_out.factor for t in (0, 2)]
    text = shown(tab)
    if factors[1] > 1.5:
        found = int(re.search(r"Edit (\d)</b>", text)[1])
        assert tab._timeline.measure(found - 1).held_out.factor <= 1.5 < tab._timeline.measure(found).held_out.factor
        assert "need not be the first" in text
    else:
        assert "It has not fallen after the last edit." in text


def test_a_stored_trajectory_is_loaded_and_left_again(panel, tiny, tmp_path):
    fields = {"model": tiny, "hyperparameters": {"layer": 1, "v_num_grad_steps": 2, "contexts": ["{}"]}, "tasks": None}
    spec = wb.ExperimentSpec(**fields, perplexity=None, n_operations=2, edit_protocols=["teacher_forced"])
    [key] = wb.run(spec, store=tmp_path / "store")["trajectory"].unique()
    tab = open_tab(panel, TimelineTab)
    tab._folder.value = str(tmp_path / "nowhere")
    press(panel, "List trajectories")
    assert errors(panel) == [f"there is no folder &#39;{tmp_path / 'nowhere'}&#39;; give the folder of a store."]
    tab._folder.value = str(tmp_path / "store")
    press(panel, "List trajectories")
    assert [value for _, value in tab._stored.options] == [key]
    press(panel, "Load trajectory")
    assert errors(panel) == []
    assert len(tab.views()[0].data["edits"]) == 2
    edit(panel, FACT)
    assert len(tab.views()[0].data["edits"]) == 2  # the stored one stays
    press(panel, "Back to the session")
    assert [each["subject"] for each in tab.views()[0].data["edits"]] == ["The Eiffel Tower"]


@pytest.fixture
def quick_rome(monkeypatch):
    """Let the preset of ROME take few steps."""
    preset = wb.ROME.for_model

    def for_model(lm):
        return wb.ROME(layer=1, v_num_grad_steps=2, contexts=("{}",)) if lm.n_layers == 4 else preset(lm)

    monkeypatch.setattr(wb.ROME, "for_model", for_model)


@pytest.mark.usefixtures("quick_rome")
def test_a_sequence_runs_fact_by_fact_with_its_health_and_its_retention(panel):
    tab = open_tab(panel, SequenceTab)
    tab._choice.value = (3, 5)
    tab._add.click()
    tab._choice.value = (5, 8)
    tab._add.click()
    assert "3 facts wait" in shown(tab)
    press(panel, "Run")
    assert errors(panel) == []
    assert [e.request for e in panel.session.edits] == [tab._facts[i] for i in (3, 5, 8)]
    [view] = tab.views()
    assert [line["name"] for line in view.data["series"]] == ["as computed", "PRUNE of the sum"]
    for line in view.data["series"]:
        assert [row["edits"] for row in line["rows"]] == [0, 1, 2, 3]
        assert line["rows"][0] == {"edits": 0, "factor": 1, "locality": 1, "reliability": None, "kl": 0}
    retention = view.data["retention"]
    assert retention["edits"] == [1, 2, 3]
    values = np.array(retention["values"], dtype=float)
    assert np.isnan(values[np.tril_indices(3, -1)]).all()
    assert not np.isnan(values[np.triu_indices(3)]).any()
    press(panel, "Undo last")
    assert tab.views() == []
    assert "wb-stale" in tab._live._dom_classes
    tab._choice.value = (9,)
    tab._add.click()
    press(panel, "Run")
    [again] = tab.views()
    assert "wb-stale" not in tab._live._dom_classes
    assert again.data["series"][0]["rows"][:3] == view.data["series"][0]["rows"][:3]
    assert again.data["retention"]["facts"][2] == tab._facts[9].name


@pytest.mark.usefixtures("quick_rome")
def test_a_pause_ends_after_the_current_edit_and_the_rest_waits(panel):
    tab = open_tab(panel, SequenceTab)
    tab._choice.value = (0, 1, 2)
    tab._add.click()
    measure, paused = tab._log.bring_up_to_date, []

    def pausing(*args):
        measure(*args)
        if len(panel.session.edits) == 1 and not paused:
            paused.append(1)
            tab._pause.click()

    tab._log.bring_up_to_date = pausing
    press(panel, "Run")
    assert (len(panel.session.edits), len(tab._waiting)) == (1, 2)
    assert "Paused; 2 facts wait." in shown(tab)
    press(panel, "Run")
    assert (len(panel.session.edits), tab._waiting) == (3, [])


def test_hard_facts_and_files_are_lists_of_their_own(panel, tmp_path):
    tab = open_tab(panel, SequenceTab)
    ordinary = tab._facts
    tab._source.value = "bundled-hard"
    assert len(tab._facts) == 83
    assert not set(tab._facts) & set(ordinary)
    tab._source.value = "file"
    assert tab._facts == ()
    file = tmp_path / "facts.csv"
    file.write_text("subject,prompt,target_new\nRome,{} is in,France\n,{} is in,Italy\n")
    tab._file.value = str(file)
    tab._read.click()
    assert [fact.subject for fact in tab._facts] == ["Rome"]
    assert "1 facts read, 1 records left out." in shown(tab)
    tab._file.value = str(tmp_path / "none.csv")
    tab._read.click()
    assert "none.csv" in shown(tab)


def test_drawn_facts_depend_on_the_seed_alone(panel):
    tab = open_tab(panel, SequenceTab)
    tab._count.value = 20
    tab._draw.click()
    first = tab._choice.value
    assert len(set(first)) == 20
    tab._seed.value = 1
    tab._draw.click()
    assert tab._choice.value != first
    tab._seed.value = 0
    tab._draw.click()
    assert tab._choice.value == first
