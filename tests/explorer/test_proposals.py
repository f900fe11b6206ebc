"""Schemes that a session compares and uses, and the repair of a refused edit."""

from dataclasses import replace

import pytest

import workbench as wb
from tests.explorer.conftest import CONTEXTS, EDITOR, FACT, SECOND
from tests.explorer.test_session import BREAKING, assert_same_update
from tests.helpers import assert_same_bits, error_of, weights_of
from workbench import assessment
from workbench.errors import EditError
from workbench.explorer.progress import Cancelled, ProgressMonitor
from workbench.explorer.proposals import repair_refused, try_schemes, use_scheme
from workbench.explorer.script import script_of
from workbench.microscope.schemes import Scheme

FIELDS = {"layer": 1, "v_num_grad_steps": 4, "contexts": CONTEXTS}
SCHEMES = [Scheme("rome", FIELDS), Scheme("rome", FIELDS, wb.RECT(0.3), wb.RECT(0.5)), Scheme("r-rome", {"layer": 9})]


def test_using_a_scheme_gives_the_edit_that_the_session_would_have_made(edited):
    results = try_schemes(edited, SECOND, SCHEMES, after_row=lambda result: None)
    assert len(edited.edits) == 1
    used = use_scheme(edited, results[1])
    plain = wb.EditSequence(edited.lm, accumulated=wb.RECT(0.5))
    plain.edit([FACT], EDITOR)
    plain.edit([SECOND], wb.ROME(**FIELDS), wb.RECT(0.3))
    assert edited.edits[1] is used
    assert used.computed is results[1].computed
    assert edited.accumulated == wb.RECT(0.5)
    assert_same_update(used.update, plain.edits[1].update)
    assert_same_update(edited.update, plain.total)
    assert used.risk == results[1].risk


def test_the_first_edit_can_come_from_a_scheme(session):
    [result] = try_schemes(session, FACT, SCHEMES[:1], after_row=lambda result: None)
    use_scheme(session, result)
    plain = type(session)(session.lm)
    plain.edit(FACT, wb.ROME(**FIELDS))
    assert session.thresholds == plain.thresholds
    assert session.growth().equals(plain.growth())


def test_a_scheme_that_failed_or_is_out_of_date_cannot_be_used(edited):
    results = try_schemes(edited, SECOND, SCHEMES, after_row=lambda result: None)
    assert error_of(EditError, use_scheme, edited, results[2]) == (
        f"this scheme made no edit: layer 9 is out of range: {edited.lm.name} has layers 0 to 3."
    )
    edited.undo()
    assert error_of(EditError, use_scheme, edited, results[0]) == (
        "the edits have changed since the schemes were compared; compare them again."
    )
    assert edited.edits == ()


def test_a_scheme_that_cannot_be_added_leaves_the_session_as_it_was(edited, monkeypatch):
    [result] = try_schemes(edited, SECOND, SCHEMES[1:2], after_row=lambda result: None)
    edits, update = edited.edits, edited.update
    monkeypatch.setattr("workbench.explorer.session.assess", lambda update, lm: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        use_scheme(edited, result)
    assert edited.accumulated is None
    assert [edit.update for edit in edited.edits] == [edit.update for edit in edits]
    assert_same_update(edited.update, update)


def test_a_comparison_that_is_cancelled_keeps_the_rows_before(session):
    known, weights = [], weights_of(session.lm)
    seen = []

    def cancel_in_second(progress):
        seen.append(progress.line)
        if progress.done == 1:
            monitor.cancel()

    monitor = ProgressMonitor(cancel_in_second)
    with pytest.raises(Cancelled):
        try_schemes(
            session, FACT, [SCHEMES[1], Scheme("r-rome", FIELDS), SCHEMES[0]], after_row=known.append, monitor=monitor
        )
    assert [result.scheme for result in known] == SCHEMES[1:2]
    assert seen == ["Row 1, rome: 0 of 3", "Row 2, r-rome: 1 of 3"]
    assert_same_bits(session.lm, weights)


def refuse(session, editor=BREAKING):
    with pytest.raises(wb.RiskError):
        session.edit(SECOND, editor, cautious=True)


def test_a_refused_edit_is_repaired_as_a_guard_does(session, monkeypatch):
    session.edit(FACT, EDITOR)
    refuse(session)
    refused = session.refused
    with session.edits[0].update.applied(session.lm):
        pruned = wb.PRUNE()(refused.computed, session.lm)
        kls = [wb.assess(update, session.lm).kl for update in (refused.computed, pruned)]
    assert kls[1] < kls[0]
    limit = sum(kls) / 2
    monkeypatch.setattr("workbench.explorer.proposals.Guard", lambda: wb.Guard(limit=limit))
    edit = repair_refused(session)
    assert (edit.regularizer, session.refused) == (wb.PRUNE(), None)
    assert edit.computed is refused.computed
    assert_same_update(edit.update, pruned)
    assert error_of(EditError, repair_refused, session) == "no edit has been refused since the last one."


def test_a_repair_by_another_variant_is_recorded_with_its_hyperparameters(session, monkeypatch):
    refuse(session)
    session._refused = replace(session.refused, editor=EDITOR)
    computed = replace(EDITOR, variant="r-rome").compute_update(session.lm, [SECOND])
    monkeypatch.setattr(assessment.Guard, "admit", lambda self, *args: (computed, None))
    edit = repair_refused(session)
    assert edit.editor == replace(EDITOR, variant="r-rome")
    assert "variant='r-rome'" in script_of(session.lm, session.edits)


def test_an_edit_that_no_repair_helps_stays_refused(session):
    refuse(session)
    refused = session.refused
    with pytest.raises(wb.RiskError, match=r"^the edit of 'Edith Piaf' was not applied because of its high risk: "):
        repair_refused(session)
    assert (session.edits, session.refused) == ((), refused)
    assert session.apply_refused().computed is refused.computed
