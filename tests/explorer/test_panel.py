"""The panel without a browser: buttons reach the session, and its results are shown."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import ipywidgets as widgets
import pytest

import workbench as wb
from tests.explorer.conftest import FACT, SECOND
from workbench.explorer.panel import Explorer

PATIENCE = 120


def shown(widget) -> str:
    """Return all HTML that a widget and its children show."""
    own = widget.value if isinstance(widget, widgets.HTML) else ""
    return own + "".join(shown(child) for child in getattr(widget, "children", ()))


def button(panel, label) -> widgets.Button:
    found = [b for b in buttons(panel) if b.description == label]
    assert len(found) == 1, label
    return found[0]


def buttons(widget):
    if isinstance(widget, widgets.Button):
        yield widget
    for child in getattr(widget, "children", ()):
        yield from buttons(child)


def press(panel, label):
    """Press a button and wait until all work is done."""
    assert not button(panel, label).disabled, label
    button(panel, label).click()
    assert panel.wait(PATIENCE)


def errors(panel) -> list[str]:
    return re.findall(r'<div class="wb-error" role="alert">(.*?)</div>', shown(panel))


def fill_quick(panel, fact=FACT):
    """Fill in a fact and a small number of steps."""
    panel._facts.fill(fact)
    panel._method._fields["layer"][1].value = "1"
    panel._method._fields["v_num_grad_steps"][1].value = "3"


@pytest.fixture
def panel(tiny, tmp_path):
    """Give a panel with a tiny model, a fact, and a small number of steps."""
    panel = Explorer(tiny, exports_dir=tmp_path / "exports")
    assert panel.wait(PATIENCE)
    fill_quick(panel)
    yield panel
    panel.close()


def test_the_panel_appears_without_importing_torch():
    code = "import sys, workbench.explorer.panel; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_before_an_edit_the_unedited_models_answer_is_shown(panel):
    assert "The unedited model predicts <b>" in shown(panel)
    assert button(panel, "Undo last").disabled
    assert button(panel, "Export").disabled


def test_an_edit_is_shown_and_undone(panel):
    press(panel, "Ask only")
    before = panel._results.answers._table.value
    press(panel, "Edit")
    assert len(panel.session.edits) == 1
    assert panel.session.edits[0].request == FACT
    assert panel.session.edits[0].editor.v_num_grad_steps == 3
    text = shown(panel)
    assert text.count("<img ") == 2
    assert "<b>100.0 %</b> of the entries changed" in text
    assert "1 edit" in panel._status.value
    assert "wb-numbers" in text
    press(panel, "Undo")
    assert panel.session.edits == ()
    assert panel._results.answers._table.value == before
    assert shown(panel).count("<img ") == 0
    assert errors(panel) == []


def test_moving_the_slider_regularizes_the_last_edit_again(panel):
    press(panel, "Edit")
    computed, before = panel.session.edits[0].computed, panel._results.weights._histogram.value
    panel._regularizer._kind.value = "rect"
    assert panel.wait(PATIENCE)
    assert panel.session.edits[0].regularizer == wb.RECT(0.4)
    panel._regularizer._keep.value = 15
    assert panel.wait(PATIENCE)
    [edit] = panel.session.edits
    assert edit.regularizer == wb.RECT(0.15)
    assert edit.computed is computed
    assert "<b>15.0 %</b> of the entries changed" in shown(panel)
    assert panel._results.weights._histogram.value != before


def test_the_sum_of_all_edits_is_regularized_and_stays_so_for_later_edits(panel):
    press(panel, "Edit")
    answers, [edit] = panel._results.answers._table.value, panel.session.edits
    panel._of_sum._kind.value = "rect"
    assert panel.wait(PATIENCE)
    assert panel.session.accumulated == wb.RECT(0.4)
    assert panel.session.edits[0].computed is edit.computed
    assert panel._results.answers._table.value != answers
    assert "<b>40.0 %</b> of the entries changed" in panel._of_sum._kept.value
    assert "wb.EditSequence(lm, accumulated=wb.RECT())" in panel._results.export._code.value
    fill_quick(panel, SECOND)
    press(panel, "Edit")
    assert "RECT 40 % of the sum" in panel._results.history._growth.value
    panel._of_sum._kind.value = "none"
    assert panel.wait(PATIENCE)
    assert panel.session.accumulated is None
    assert panel._of_sum._kept.value == ""


def test_an_edit_that_would_break_the_model_is_applied_only_on_request(panel):
    panel._method._method.value = "ft"
    panel._method._fields["lr"][1].value = "1.0"
    assert panel._anyway.layout.display == "none"
    press(panel, "Edit")
    assert panel.session.edits == ()
    assert "high risk: predictions on other text move by " in panel._message.value
    assert panel._anyway.layout.display == ""
    press(panel, "Apply anyway")
    [edit] = panel.session.edits
    assert edit.risk.is_high
    assert panel._anyway.layout.display == "none"
    assert "high risk" in panel._results.history._rows.children[0].children[0].value


def test_undoing_shows_the_regularizer_of_the_edit_before_and_leaves_it_alone(panel):
    press(panel, "Edit")
    first = panel.session.edits[0]
    fill_quick(panel, SECOND)
    press(panel, "Edit")
    panel._regularizer._kind.value = "random"
    assert panel.wait(PATIENCE)
    press(panel, "Undo last")
    assert panel.session.edits == (first,)
    assert panel._regularizer.read_choice() == ("none", None)
    press(panel, "Edit")
    assert button(panel, "Undo 1 to 2")


def test_bad_input_is_reported_in_one_sentence_and_the_panel_works_on(panel):
    panel._facts._prompt.value = "no mark at all"
    press(panel, "Edit")
    sentence = f"subject {FACT.subject!r} is not in the prompt 'no mark at all'; mark its place with {{}}."
    assert errors(panel) == [sentence.replace("'", "&#39;")]
    panel._facts.fill(FACT)
    panel._method._fields["layer"][1].value = "99"
    press(panel, "Edit")
    assert errors(panel) == [f"layer 99 is out of range: {panel.session.lm.name} has layers 0 to 3."]
    assert panel.session.edits == ()
    fill_quick(panel)
    press(panel, "Edit")
    assert errors(panel) == []
    assert len(panel.session.edits) == 1


def test_unexpected_errors_are_reported_in_one_escaped_sentence(panel, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("<b>first</b> line\nsecond line")

    monkeypatch.setattr(panel.session, "predict", broken)
    press(panel, "Ask only")
    assert errors(panel) == ["This did not work: &lt;b&gt;first&lt;/b&gt; line (RuntimeError)."]


def test_cancel_ends_an_edit_and_nothing_is_changed(panel, monkeypatch):
    started = threading.Event()
    report = panel._show_progress

    def report_and_signal(job, progress):
        if progress.stage.startswith("Editing"):
            started.set()
        report(job, progress)

    monkeypatch.setattr(panel, "_show_progress", report_and_signal)
    panel._method._fields["v_num_grad_steps"][1].value = "100000"
    panel._method._fields["v_loss_threshold"][1].value = "0"
    button(panel, "Edit").click()
    assert started.wait(PATIENCE)
    assert button(panel, "Edit").disabled
    button(panel, "Cancel").click()
    assert panel.wait(PATIENCE)
    assert "Cancelled; nothing was changed." in shown(panel)
    assert panel.session.edits == ()
    fill_quick(panel)
    press(panel, "Edit")
    assert len(panel.session.edits) == 1


def test_a_model_that_cannot_be_loaded_leaves_the_current_one(panel, tmp_path):
    press(panel, "Edit")
    session = panel.session
    panel._model.value = str(tmp_path / "nowhere")
    press(panel, "Load")
    [error] = errors(panel)
    assert error.startswith("no model &#39;")
    assert panel.session is session
    press(panel, "Edit")
    assert len(session.edits) == 2


def test_two_panels_of_one_process_share_a_model_and_do_not_disturb_each_other(panel, tiny):
    other = Explorer(tiny)
    try:
        assert other.wait(PATIENCE)
        fill_quick(other)
        fill_quick(panel)
        button(other, "Edit").click()
        button(panel, "Edit").click()
        assert other.wait(PATIENCE)
        assert panel.wait(PATIENCE)
        [mine], [theirs] = panel.session.edits, other.session.edits
        [name] = mine.update
        assert (mine.update.delta(name) == theirs.update.delta(name)).all()
        assert panel.session.lm is other.session.lm
        assert panel.session.lm.applied_updates == ()
        press(other, "Undo last")
        assert len(panel.session.edits) == 1
        assert len(other.session.update) == 0
    finally:
        other.close()


def test_continuations_follow_the_edits(panel):
    panel._results.continuations._prompts.value = "The river\n\nThe sea"
    press(panel, "Continue")
    assert "<td>" in panel._results.continuations._table.value
    assert "Edited" not in panel._results.continuations._table.value
    press(panel, "Edit")
    assert "Edited" in panel._results.continuations._table.value
    rows = panel.session.continue_prompts(["The river", "The sea"], 20)
    assert len(rows) == 2
    panel._results.continuations._prompts.value = ""
    press(panel, "Continue")
    assert errors(panel) == ["there is no prompt to continue; type at least one."]


def test_an_export_lists_its_files_and_offers_small_ones(panel):
    press(panel, "Edit")
    press(panel, "Export")
    written = panel._results.export._written.value
    folder = Path(re.search(r"<code>(.*?)</code>", written)[1])
    assert (folder / "update.safetensors").is_file()
    assert '<a download="report.html" href="data:' in written
    assert "sequence.total.save" in panel._results.export._code.value


def test_abilities_are_shown_and_fade_when_the_edits_change(panel, small_tasks):
    press(panel, "Edit")
    panel._results.abilities.limit.value = 1
    press(panel, "Check abilities")
    figure = panel._results.abilities._figure
    assert 'alt="Scores with 95 % intervals. ' in figure.value
    assert "wb-stale" not in figure._dom_classes
    press(panel, "Undo last")
    assert "wb-stale" in figure._dom_classes


def test_the_figures_show_the_chosen_matrix(panel):
    panel._method._method.value = "ft-l"
    panel._method._fields["layers"][1].value = "1, 2"
    panel._method._fields["num_steps"][1].value = "2"
    press(panel, "Edit")
    names = panel.session.matrices()
    assert len(names) == 2
    assert f"Heatmap of |ΔW| of {names[0]}" in panel._results.weights._heatmap.value
    panel._results.weights._matrix.value = names[1]
    assert panel.wait(PATIENCE)
    assert f"Heatmap of |ΔW| of {names[1]}" in panel._results.weights._heatmap.value
    panel._regularizer._kind.value = "rect"
    assert panel.wait(PATIENCE)
    assert f"Heatmap of |ΔW| of {names[1]}" in panel._results.weights._heatmap.value
