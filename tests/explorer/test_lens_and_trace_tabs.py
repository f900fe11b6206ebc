"""The tabs of the lens and of causal traces: what the model says reaches the view, and a pick sets the layer."""

import pytest

from tests.explorer.conftest import FACT
from tests.explorer.test_panel import PATIENCE, button, errors, panel, press, shown  # noqa: F401  panel is a fixture
from tests.helpers import ids_of
from workbench.explorer.tabs.lens import LensTab
from workbench.explorer.tabs.trace import TraceTab
from workbench.microscope.lens import OWN, read_lenses, watch_answers
from workbench.microscope.trace import CausalTrace


def open_tab(panel, kind):  # noqa: F811
    [tab] = [tab for tab in panel._results.tabs if isinstance(tab, kind)]
    panel._results._tabs.selected_index = panel._results.tabs.index(tab)
    assert panel.wait(PATIENCE)
    return tab


def test_the_lens_shows_the_prompt_of_the_fact_when_the_tab_is_opened(panel):  # noqa: F811
    tab = open_tab(panel, LensTab)
    [view] = tab.views()
    lm = panel.session.lm
    assert view.data["tokens"] == lm.tokenizer.batch_decode([[token] for token in ids_of(lm, FACT.filled_prompt)])
    assert view.data["layers"] == list(range(-1, lm.n_layers))
    assert [side["name"] for side in view.data["sides"]] == ["before"]
    assert [each["label"] for each in view.data["watched"]] == ["new answer", "true answer", OWN]


def test_after_an_edit_the_lens_shows_both_models(panel):  # noqa: F811
    tab = open_tab(panel, LensTab)
    press(panel, "Edit")
    [view] = tab.views()
    assert [side["name"] for side in view.data["sides"]] == ["before", "after"]
    with panel.session.edited() as lm:
        before, after = read_lenses(lm, FACT.filled_prompt, watch=watch_answers(FACT))
    last = len(before.layers) * len(before.tokens) - 1
    for side, reading in zip(view.data["sides"], (before, after), strict=True):
        found = [column[last] for column in side["watched"]]
        assert found == pytest.approx((reading.log_probs[-1, -1] / 2.302585).tolist(), abs=0.006)
    press(panel, "Undo last")
    assert [side["name"] for side in tab.views()[0].data["sides"]] == ["before"]
    assert errors(panel) == []


def test_a_text_of_the_user_is_read(panel):  # noqa: F811
    tab = open_tab(panel, LensTab)
    tab.text.value = "Marie Curie spoke"
    press(panel, "Read states")
    assert "".join(tab.views()[0].data["tokens"]).replace("<s>", "").strip().endswith("spoke")
    assert len(tab.views()[0].data["tokens"]) < 12


def test_a_trace_is_shown_and_a_picked_cell_sets_the_layer(panel):  # noqa: F811
    tab = open_tab(panel, TraceTab)
    assert tab.views() == []
    tab.samples.value = 2
    press(panel, "Trace")
    [view] = tab.views()
    [kind] = view.data["kinds"]
    expected = CausalTrace(kind="mlp", n_samples=2)(panel.session.lm, FACT)
    assert kind["name"] == "mlp"
    assert kind["effects"] == [[round(1000 * effect) for effect in row] for row in expected.effects.tolist()]
    assert "has the largest mean indirect effect" in shown(panel)
    assert "Hase et al. 2023" in shown(panel)
    tab._live.gesture = {"layer": 3, "position": 1, "number": 1}
    assert panel._method._fields["layer"][1].value == "3"
    assert errors(panel) == []


def test_all_kinds_are_traced_for_the_chosen_answer(panel):  # noqa: F811
    tab = open_tab(panel, TraceTab)
    tab.kind.value, tab.answer.value, tab.samples.value = "All three", "the true answer", 1
    press(panel, "Trace")
    [view] = tab.views()
    assert [kind["name"] for kind in view.data["kinds"]] == ["state", "mlp", "attention"]
    lm = panel.session.lm
    with_answer = CausalTrace(n_samples=1)(lm, FACT, answer=FACT.target_true)
    assert view.data["answer"] == with_answer.answer
    assert view.data["kinds"][0]["clean"] == pytest.approx(with_answer.clean, abs=1e-4)


def test_the_trace_is_of_the_unedited_model(panel):  # noqa: F811
    tab = open_tab(panel, TraceTab)
    tab.samples.value = 1
    press(panel, "Trace")
    [before] = tab.views()
    press(panel, "Edit")
    press(panel, "Trace")
    assert tab.views()[0].data == before.data
    assert panel.session.lm.applied_updates == ()


def test_a_layer_is_suggested_from_several_facts_and_set(panel):  # noqa: F811
    tab = open_tab(panel, TraceTab)
    tab.samples.value = 1
    press(panel, "Suggest a layer")
    layer = panel._method._fields["layer"][1].value
    assert f"Layer {layer} has the largest mean indirect effect" in shown(panel)
    assert "over 10 facts" in shown(panel)
