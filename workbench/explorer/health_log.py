"""What has been measured of a session's sequence: only the states that are new are measured again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.interactive import View

if TYPE_CHECKING:
    import pandas as pd  # takes a second to import, and the panel shows before

    from workbench.evaluation.edits import Probe
    from workbench.explorer.progress import ProgressMonitor
    from workbench.explorer.session import Session
    from workbench.regularize import Regularizer
    from workbench.request import EditRequest
    from workbench.update import WeightUpdate

PLAIN = "as computed"


class HealthLog:
    """Health after each edit, without a regularizer and with one of the sum, and which facts are held."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what has been measured."""
        self._edits: list[WeightUpdate] = []  # that the rows belong to, as computed
        self._rows: list[pd.DataFrame] = []  # one table per number of edits, from 0
        self._columns: list[pd.DataFrame] = []  # of the retention matrix, from 1
        self._jumps: pd.DataFrame | None = None
        self._facts: tuple[EditRequest, ...] = ()
        self._neighbors: list[Probe] | None = None
        self._regularizer: Regularizer | None = None

    def bring_up_to_date(
        self,
        session: "Session",
        regularizer: "Regularizer",
        planned: "Sequence[EditRequest]",
        monitor: "ProgressMonitor",
    ) -> None:
        """Measure the states of a session that are new, and forget those of edits that were undone.

        Parameters
        ----------
        session : Session
            The session.
        regularizer : Regularizer
            Regularizer of the sum that is measured beside the edits as they were computed.
        planned : sequence of EditRequest
            Facts that will be edited; no neighbor shares a subject or target with them.
        monitor : ProgressMonitor
            Cancels the call; what was measured is kept.
        """
        from workbench.microscope.health import choose_neighbors, find_jumps, follow_health, retention_matrix
        from workbench.microscope.timeline import unregularized_timeline_of

        with session.unedited(monitor) as sequence:
            if regularizer != self._regularizer:
                self.clear()
                self._regularizer = regularizer
            computed = [edit.computed for edit in sequence.edits]
            kept = next(
                (i for i, pair in enumerate(zip(self._edits, computed, strict=False)) if pair[0] is not pair[1]), None
            )
            self._cut(min(len(self._edits), len(computed)) if kept is None else kept)
            if self._neighbors is None:
                self._neighbors = choose_neighbors((*sequence.requests, *planned))
            plain = unregularized_timeline_of(sequence)
            series = {PLAIN: plain, f"{regularizer.label} of the sum": plain.through(regularizer)}
            self._jumps, self._facts = find_jumps(plain), sequence.requests
            for t in range(len(self._rows), len(computed) + 1):
                self._rows.append(follow_health(series, self._neighbors, [t]))
                if t:
                    self._columns.append(retention_matrix(plain, [t]))
            self._edits = computed

    def is_of(self, session: "Session") -> bool:
        """Return whether all edits of a session, and no others, have been measured."""
        edits = session.edits
        pairs = zip(self._edits, edits, strict=False)
        return len(self._edits) == len(edits) and all(known is edit.computed for known, edit in pairs)

    def to_view(self) -> View:
        """Return what has been measured as a view; `bring_up_to_date` comes first."""
        import pandas as pd

        from workbench.explorer.sequence_views import health_view

        assert self._jumps is not None
        retention = pd.concat(self._columns, axis=1) if self._columns else pd.DataFrame()
        return health_view(pd.concat(self._rows, ignore_index=True), self._jumps, retention, self._facts)

    def _cut(self, edits: int) -> None:
        del self._rows[edits + 1 :], self._columns[edits:]
