"""Edits that a session has not made yet: schemes that are compared, one that is chosen, and a refused edit's repair."""

import time
from collections.abc import Callable, Sequence

from workbench.assessment import Guard
from workbench.errors import EditError
from workbench.explorer.edits import Edit
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.session import Session
from workbench.microscope.schemes import Scheme, SchemeResult, compare_schemes
from workbench.request import EditRequest


def try_schemes(
    session: Session,
    request: EditRequest,
    schemes: Sequence[Scheme],
    *,
    after_row: Callable[[SchemeResult], None],
    monitor: ProgressMonitor | None = None,
) -> list[SchemeResult]:
    """Compare schemes on the model with all edits of a session, which stays as it is; see `compare_schemes`.

    Parameters
    ----------
    session : Session
        The session.
    request : EditRequest
        The fact.
    schemes : sequence of Scheme
        The schemes.
    after_row : callable
        Called with each result, so that what is known is not lost if the comparison is cancelled.
    monitor : ProgressMonitor, optional
        Receives the progress, row by row, and cancels the comparison.

    Returns
    -------
    list of SchemeResult

    Raises
    ------
    SpecError
        If there is no scheme, or too many.
    RequestError
        If an answer has no tokens.
    Cancelled
        If `monitor` cancels the comparison.
    """
    monitor = monitor or ProgressMonitor()

    def begin(number: int, scheme: Scheme) -> None:
        monitor.step(f"Row {number + 1}, {scheme.method}", number, len(schemes))

    session.predict(request)  # raises where an answer has no token
    with session.exclusive(monitor):
        return compare_schemes(session.sequence, request, schemes, before_row=begin, after_row=after_row)


def use_scheme(session: Session, result: SchemeResult) -> Edit:
    """Make the edit of a compared scheme, which is not computed again.

    Parameters
    ----------
    session : Session
        The session on which it was compared. The scheme's regularizer of the sum replaces that of the session.
    result : SchemeResult
        A result of `try_schemes`.

    Returns
    -------
    Edit
        The new last edit.

    Raises
    ------
    EditError
        If the scheme failed, or the edits have changed since.
    """
    if result.error is not None or result.computed is None or result.editor is None:
        raise EditError(f"this scheme made no edit: {result.error}")
    if result.earlier != session.sequence.edits:
        raise EditError("the edits have changed since the schemes were compared; compare them again.")
    scheme, before = result.scheme, session.accumulated
    with session.exclusive(None):
        session.regularize_sum(scheme.accumulated)
        try:
            return session.add(result.request, result.editor, result.computed, scheme.regularizer, result.seconds)
        except Exception:
            session.regularize_sum(before)
            raise


def repair_refused(session: Session, *, monitor: ProgressMonitor | None = None) -> Edit:
    """Make the edit that was refused last as a `workbench.Guard` repairs it.

    Parameters
    ----------
    session : Session
        A session whose last edit was refused.
    monitor : ProgressMonitor, optional
        Receives the progress, and cancels the call.

    Returns
    -------
    Edit
        The new last edit.

    Raises
    ------
    EditError
        If no edit has been refused.
    RiskError
        If no repair lowers the risk.
    """
    if (refused := session.refused) is None:
        raise EditError("no edit has been refused since the last one.")
    monitor = monitor or ProgressMonitor()
    start, base = time.perf_counter(), session.sequence.base
    with session.exclusive(monitor):
        monitor.stage("Repairing the edit")
        with session.on(base):
            computed, regularizer = Guard().admit(refused.computed, refused.editor, refused.regularizer, session.lm)
        editor = refused.editor
        if computed is not refused.computed:  # by another variant of the method
            editor = type(editor)(**computed.records[0].hyperparameters)
        seconds = refused.seconds + time.perf_counter() - start
        return session.add(refused.request, editor, computed, regularizer, seconds)
