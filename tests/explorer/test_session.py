"""Edits in a session are computed by the editors on the model with all earlier edits, and leave no trace."""

import threading
from dataclasses import dataclass, replace

import pytest
import torch

import workbench as wb
from tests.explorer.conftest import EDITOR, FACT, SECOND, THIRD
from tests.helpers import assert_same_bits, error_of, weights_of
from tests.tiny_models import build_tiny_lm, dropping_tokenizer
from workbench.errors import EditError, RequestError, UpdateError
from workbench.explorer.markup import render_growth
from workbench.explorer.progress import Cancelled, ProgressMonitor
from workbench.explorer.session import Session
from workbench.weightstats import relative_change


def assert_same_update(a, b):
    assert list(a) == list(b)
    assert len(a) > 0
    for name in a:
        assert torch.equal(a.delta(name), b.delta(name)), name


@dataclass(frozen=True)
class Counting:
    """An editor that counts its calls."""

    asked: list
    inner: wb.ROME = EDITOR
    label = "Counting"
    supports_batch = False

    def prepared(self, lm):
        return self

    def compute_update(self, lm, requests):
        self.asked.append(requests)
        return self.inner.compute_update(lm, requests)


@dataclass(frozen=True)
class Infinite(Counting):
    """An editor whose update is not finite."""

    def compute_update(self, lm, requests):
        name = lm.arch.mlp_out_weight(1)
        return wb.WeightUpdate({name: torch.full_like(lm.weight(name), torch.inf)})


def test_an_edit_is_what_the_editor_computes_and_the_model_stays_as_it_was(session):
    before = weights_of(session.lm)
    edit = session.edit(FACT, EDITOR)
    assert_same_update(edit.update, EDITOR.compute_update(session.lm, [FACT]))
    assert session.edits == (edit,)
    assert session.lm.applied_updates == ()
    assert_same_bits(session.lm, before)


def test_a_second_edit_is_computed_on_the_model_that_the_first_one_left(session):
    first, second = session.edit(FACT, EDITOR), session.edit(SECOND, EDITOR)
    with first.update.applied(session.lm):
        on_edited = EDITOR.compute_update(session.lm, [SECOND])
    assert_same_update(second.computed, on_edited)
    [name] = second.computed
    assert not torch.equal(second.computed.delta(name), EDITOR.compute_update(session.lm, [SECOND]).delta(name))
    assert_same_update(session.update, first.update + second.update)


def test_regularizing_again_computes_no_edit_and_compares_with_the_weights_it_is_added_to(session):
    asked = []
    first = session.edit(FACT, EDITOR, wb.RECT(0.5))
    session.edit(SECOND, Counting(asked))
    edit = session.regularize(wb.RECT(0.3))
    assert len(asked) == 1
    with first.update.applied(session.lm):
        assert_same_update(edit.update, wb.RECT(0.3)(edit.computed, session.lm))
    assert_same_update(session.update, first.update + edit.update)
    assert session.edits[0] is first


def test_keeping_all_after_less_gives_the_computed_update_again(edited):
    raw = edited.edits[0].computed
    edited.regularize(wb.RECT(0.1))
    edited.regularize(wb.Unregularized())
    assert edited.edits[0].update is raw


def test_a_regularizer_of_the_sum_changes_what_is_measured_and_no_edit(session):
    asked = []
    session.edit(FACT, EDITOR)
    session.edit(SECOND, Counting(asked))
    plain, answers, growth = session.update, session.predict(FACT).prompts[0].after, session.growth()
    session.regularize_sum(wb.RECT(0.2))
    assert len(asked) == 1
    assert_same_update(session.update, wb.RECT(0.2)(plain, session.lm))
    assert session.predict(FACT).prompts[0].after != answers
    assert (session.growth()["relative_norm"] < growth["relative_norm"]).all()
    assert session.measure_kept_of_sum().share == pytest.approx(0.2, abs=1e-3)
    third = session.edit(THIRD, EDITOR)  # on the plain sum, as PRUNE was published
    assert_same_update(session.update, wb.RECT(0.2)(plain + third.update, session.lm))
    session.undo()
    session.regularize_sum(None)
    assert_same_update(session.update, plain)
    assert session.growth().equals(growth)


def test_a_regularizer_of_the_sum_that_fails_leaves_the_session_as_it_was(session):
    session.edit(FACT, EDITOR)
    before = session.update
    with pytest.raises(RuntimeError):
        session.regularize_sum(Failing())
    assert session.accumulated is None
    assert_same_update(session.update, before)


BREAKING = wb.FT(layers=(1,), lr=1.0, num_steps=3, norm_constraint=None)


def test_a_cautious_edit_that_would_break_the_model_waits_to_be_applied_anyway(session):
    first = session.edit(FACT, EDITOR)
    before = session.update
    with pytest.raises(wb.RiskError, match=r"^this edit was not applied because of its high risk: "):
        session.edit(SECOND, BREAKING, cautious=True)
    assert session.edits == (first,)
    assert_same_update(session.update, before)
    edit = session.apply_refused()
    assert (session.edits, session.refused) == ((first, edit), None)
    assert edit.risk.is_high
    assert_same_update(session.update, before + edit.update)
    assert error_of(EditError, session.apply_refused) == "no edit has been refused since the last one."


def test_a_refused_edit_is_forgotten_once_the_edits_change(session):
    session.edit(FACT, EDITOR)
    with pytest.raises(wb.RiskError):
        session.edit(SECOND, BREAKING, cautious=True)
    session.undo()
    assert session.refused is None


@dataclass(frozen=True)
class Failing:
    """A regularizer that fails."""

    label = "Failing"

    def __call__(self, update, lm):
        raise RuntimeError("no")


def test_a_regularizer_that_fails_leaves_the_session_as_it_was(session):
    first, second = session.edit(FACT, EDITOR), session.edit(SECOND, EDITOR, wb.RECT(0.5))
    with pytest.raises(RuntimeError):
        session.regularize(Failing())
    with pytest.raises(RuntimeError):
        session.edit(THIRD, EDITOR, Failing())
    assert session.edits == (first, second)
    assert_same_update(session.update, first.update + second.update)
    third = session.edit(THIRD, EDITOR)
    assert_same_update(session.update, first.update + second.update + third.update)


def test_undo_of_one_in_the_middle_takes_the_later_ones_with_it(session):
    first = session.edit(FACT, EDITOR)
    second, third = session.edit(SECOND, EDITOR), session.edit(THIRD, EDITOR)
    assert session.undo(2) == (second, third)
    assert session.edits == (first,)
    assert_same_update(session.update, first.update)
    assert session.edit(SECOND, EDITOR).computed is not second.computed
    assert_same_update(session.edits[1].computed, second.computed)


def test_after_undoing_all_the_model_answers_as_it_did_before(session):
    before, _ = session.predict(FACT)
    session.edit(FACT, EDITOR)
    session.edit(SECOND, EDITOR)
    edited, _ = session.predict(FACT)
    assert edited[0].after.probabilities != before[0].after.probabilities
    session.undo()
    session.undo()
    after, history = session.predict(FACT)
    assert after == before
    assert history == []
    assert len(session.update) == 0


@pytest.mark.parametrize("number", [0, 2, -1])
def test_undoing_an_edit_that_is_not_there_is_refused(edited, number):
    with pytest.raises(EditError) as caught:
        edited.undo(number)
    assert str(caught.value) == f"there is no edit {number}; the sequence has edits 1 to 1."


@pytest.mark.parametrize("act", ["undo", "measure_kept", "weight_view"])
def test_what_needs_an_edit_is_refused_without_one(session, act):
    with pytest.raises(EditError) as caught:
        getattr(session, act)()
    assert str(caught.value) == "there is no edit yet; make one first."


def test_scores_are_those_of_score_edits(session):
    session.edit(FACT, EDITOR)
    session.edit(SECOND, EDITOR)
    answers, _ = session.predict(FACT)
    with session.edited() as lm:
        table = wb.score_edits(lm, [FACT], protocols=["teacher_forced"]).set_index("metric")["value"]
    scores = {metric: [a.score for a in answers if a.probe.metric == metric] for metric in table.index}
    assert {metric: sum(values) / len(values) for metric, values in scores.items()} == pytest.approx(dict(table))


def test_history_holds_the_prompt_of_every_edit_as_the_model_answers_now(session):
    session.edit(FACT, EDITOR)
    session.edit(SECOND, EDITOR)
    _, history = session.predict(THIRD)
    assert [now.probe.prompt for now in history] == [FACT.filled_prompt, SECOND.filled_prompt]
    assert history[0].after == session.predict(FACT)[0][0].after


def test_an_edit_that_is_cancelled_changes_nothing_and_the_session_goes_on(session):
    before, stages = weights_of(session.lm), []
    first = session.edit(FACT, EDITOR)

    def cancel_while_editing(progress):
        stages.append(progress)
        if progress.stage.startswith("Editing") and progress.done == 3:
            monitor.cancel()

    monitor = ProgressMonitor(cancel_while_editing)
    with pytest.raises(Cancelled):
        session.edit(SECOND, EDITOR, monitor=monitor)
    assert stages[-1].stage == "Editing with ROME"
    assert stages[-1].expected == EDITOR.v_num_grad_steps + 3
    assert session.edits == (first,)
    assert session.lm.applied_updates == ()
    assert_same_bits(session.lm, before)
    session.edit(SECOND, EDITOR)
    assert len(session.edits) == 2


def test_nothing_stays_hooked_to_the_model(edited):
    assert not edited.lm.model._forward_pre_hooks


def test_a_fact_without_a_token_in_its_answer_is_refused_before_the_edit():
    lm, asked = build_tiny_lm("gpt2"), []
    lm.tokenizer = dropping_tokenizer()
    with pytest.raises(RequestError, match="tokenizes to nothing"):
        Session(lm).edit(replace(FACT, target_new="\u200b"), Counting(asked))
    assert asked == []


def test_an_update_that_is_not_finite_is_refused(session):
    name = session.lm.arch.mlp_out_weight(1)
    with pytest.raises(UpdateError) as caught:
        session.edit(FACT, Infinite([]))
    assert str(caught.value) == f"the update of {name} is not finite; milder hyperparameters may help."
    assert session.edits == ()


def test_a_model_with_an_applied_update_is_refused(edited):
    update = edited.update
    with update.applied(edited.lm):
        for act in (lambda: Session(edited.lm), lambda: edited.predict(FACT)):
            with pytest.raises(EditError) as caught:
                act()
            assert str(caught.value) == f"an update is applied to {edited.lm.name}; undo it before exploring."


def test_two_sessions_that_share_a_model_in_two_threads_do_not_disturb_each_other(tiny_lm):
    alone = Session(build_tiny_lm(tiny_lm.model.config.model_type))
    facts = [FACT, SECOND, THIRD]
    for fact in facts:
        alone.edit(fact, EDITOR, wb.RECT(0.5))
    sessions, errors = [Session(tiny_lm), Session(tiny_lm)], []

    def work(session):
        try:
            for fact in facts:
                session.edit(fact, EDITOR)
                session.predict(fact)
                session.regularize(wb.RECT(0.5))
        except Exception as err:  # pragma: no cover  shown below
            errors.append(err)

    threads = [threading.Thread(target=work, args=[session]) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    for session in sessions:
        assert_same_update(session.update, alone.update)


def test_continuations_are_those_that_generate_writes(edited):
    prompts = ["The Eiffel Tower is", "I think that the river"]
    lm = edited.lm
    rows = edited.continue_prompts(prompts, 6)
    for row, prompt in zip(rows, prompts, strict=True):
        ids = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
        for text, update in ((row.before, wb.WeightUpdate({})), (row.after, edited.update)):
            with update.applied(lm), torch.no_grad():
                written = lm.model.generate(ids, max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(ids))
            assert text == lm.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("prompts", "n_tokens", "sentence"),
    [
        ([], 5, "there is no prompt to continue; type at least one."),
        (["The river", " "], 5, "there is no prompt to continue; type at least one."),
        (["The river"], 0, "the number of tokens must be at least 1; got 0."),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(session, prompts, n_tokens, sentence):
    with pytest.raises(EditError) as caught:
        session.continue_prompts(prompts, n_tokens)
    assert str(caught.value) == sentence


def test_a_prompt_that_the_model_has_no_room_for_is_refused(session):
    with pytest.raises(EditError, match=r"^prompt and continuation have \d+ tokens; tiny-\w+ takes 512\.$"):
        session.continue_prompts(["The river " * 400], 20)


def test_abilities_are_scored_unedited_and_edited_until_the_edits_change(edited, small_tasks):
    steps = []
    scores = edited.check_abilities(2, monitor=ProgressMonitor(steps.append))
    assert edited.abilities is scores
    assert set(scores["n_edits"]) == {0, 1}
    assert list(scores.loc[scores["n_edits"] == 1, "task"]) == list(scores.loc[scores["n_edits"] == 0, "task"])
    assert scores["task"].nunique() == 8
    with edited.edited() as lm:
        table = wb.evaluate_tasks(lm, limit=2)
    merged = scores[scores["n_edits"] == 1].merge(table, on=["task", "metric"])
    assert len(merged) == 8
    assert (merged["value_x"] == merged["value_y"]).all()
    assert [step.done for step in steps] == list(range(16))
    edited.regularize(wb.RECT(0.5))
    assert edited.abilities is None


def test_the_first_edits_own_quantiles_are_what_the_table_counts_from(session):
    session.edit(FACT, EDITOR)
    session.edit(SECOND, replace(EDITOR, layer=2))
    growth = session.growth()
    assert list(growth["n_edits"]) == [1, 2]
    assert list(growth["matrices"]) == [1, 2]
    assert growth.loc[0, "share_above_1"] == pytest.approx(0.2, abs=0.01)
    assert growth.loc[0, "share_above_2"] == pytest.approx(0.1, abs=0.01)


def test_growth_is_the_weight_change_of_the_sum(session):
    session.edit(FACT, EDITOR)
    session.edit(SECOND, EDITOR, wb.RECT(0.4))
    row = session.growth().iloc[1]
    table = wb.weight_change(session.update, session.lm, thresholds=session.thresholds)
    values = table.groupby("metric")["value"].first()
    for name in ("manhattan_distance", "relative_norm", "share_changed"):
        assert row[name] == pytest.approx(values[name])
    above = table[table["metric"] == "share_above"]["value"].tolist()
    assert [row["share_above_1"], row["share_above_2"]] == pytest.approx(above)


@pytest.mark.parametrize("keep", [0.1, 0.4, 1.0])
def test_the_threshold_is_the_smallest_relative_change_that_rect_keeps(edited, keep):
    edit = edited.edit(SECOND, EDITOR, wb.RECT(keep))
    view = edited.weight_view()
    [name] = edit.update
    with edited.edits[0].update.applied(edited.lm):
        delta = relative_change(edit.computed.delta(name), edited.lm.weight(name))
    assert view.threshold == pytest.approx(float(delta[edit.update.delta(name) != 0].min()))
    kept = edited.measure_kept()
    assert kept.share == pytest.approx(keep, abs=1e-3)
    assert kept.total == delta.numel()


def test_what_is_kept_of_the_norm_is_the_ratio_of_the_squares(edited):
    edit = edited.regularize(wb.RandomK(0.3))
    [name] = edit.update
    ratio = edit.update.delta(name).norm() ** 2 / edit.computed.delta(name).norm() ** 2
    assert edited.measure_kept().norm_share == pytest.approx(float(ratio), rel=1e-5)


def test_the_color_scale_stays_when_the_regularizer_changes(edited):
    before = edited.weight_view()
    edited.regularize(wb.RECT(0.05))
    after = edited.weight_view()
    assert after.limits == before.limits
    assert not after.means.equals(before.means)
    assert after.threshold is not None
    assert before.threshold is None


def test_a_matrix_that_the_edit_leaves_alone_has_no_view(edited):
    other = edited.lm.arch.mlp_out_weight(2)
    with pytest.raises(EditError) as caught:
        edited.weight_view(other)
    assert str(caught.value) == f"the last edit does not change {other!r}; it changes {edited.matrices()[0]}."


@pytest.mark.parametrize("method", ["rome", "r-rome", "kn", "ft", "ft-l"])
def test_every_method_that_needs_no_files_edits_with_its_preset(session, method):
    fields = {"contexts": ("{}",)} if method in ("rome", "r-rome", "kn") else {}
    edit = session.edit(FACT, session.editor(method, fields), wb.RECT(0.4))
    sizes = [(int((dW != 0).sum()), dW.numel()) for dW in map(edit.computed.delta, edit.computed)]
    expected = sum(min(changed, round(0.4 * size)) for changed, size in sizes)  # KN changes few entries by itself
    assert session.measure_kept().entries == expected > 0


def test_an_edit_of_few_entries_counts_from_no_relative_change(session):
    session.edit(FACT, session.editor("kn", {"contexts": ("{}",)}))
    assert session.thresholds == ()
    table = render_growth(session.growth(), session.thresholds)
    assert "δ" not in table
    assert table.count("<th ") == 6  # five columns, and one row


@pytest.mark.parametrize("n_contexts", [1, 8, 9])
def test_the_bar_of_kn_ends_where_it_was_said_to(session, n_contexts):
    seen = []
    contexts = tuple(f"In {i} books: {{}}" if i else "{}" for i in range(n_contexts))
    session.edit(FACT, session.editor("kn", {"contexts": contexts}), monitor=ProgressMonitor(seen.append))
    editing = [progress for progress in seen if progress.stage == "Editing with KN"]
    assert editing[-1].done == editing[-1].expected > session.lm.n_layers
