"""A session of the explorer, without widgets: edits in sequence, each regularized, measured and undone.

Between calls the model is as it was loaded, bit for bit. Two sessions may therefore share a model
(`workbench.explorer.shared_models`), and a session leaves no trace when it ends.
"""

import time
from dataclasses import replace

from workbench.arguments import checked
from workbench.assessment import assess
from workbench.editing.editor import Editor
from workbench.errors import EditError, RiskError
from workbench.explorer.edited_model import EditedModel
from workbench.explorer.edits import Edit, expected_passes
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.weights import growth_row, thresholds_of
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer
from workbench.request import EditRequest
from workbench.update import WeightUpdate


class Session(EditedModel):
    """Edits of one model in sequence.

    Parameters
    ----------
    lm : LanguageModel
        The model, without applied updates. Sessions in several threads may share it; they wait for one another.

    Attributes
    ----------
    abilities : DataFrame or None
        The last result of `check_abilities`; None once the edits have changed.
    thresholds : tuple of float
        Thresholds of δ in the table of weight changes: quantiles of the first edit, before regularization.

    Raises
    ------
    EditError
        If an update is applied to the model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__(lm)
        self._refused: Edit | None = None
        self.thresholds: tuple[float, ...] = ()

    @property
    def refused(self) -> Edit | None:
        """The last edit if it was refused; see `apply_refused`."""
        return self._refused

    @checked
    def edit(
        self,
        request: EditRequest,
        editor: Editor,
        regularizer: Regularizer | None = None,
        *,
        cautious: bool = False,
        monitor: ProgressMonitor | None = None,
    ) -> Edit:
        """Edit a fact on the model with all earlier edits; if it fails, the session stays as it was.

        Parameters
        ----------
        request : EditRequest
            The fact.
        editor : Editor
            The editing method. What it takes from a model once, such as context templates, comes from the unedited one.
        regularizer : Regularizer, optional
            Regularizer of the update; none by default.
        cautious : bool
            Whether an edit that would break the model is refused; `apply_refused` makes it after all.
        monitor : ProgressMonitor, optional
            Receives the progress, and cancels the edit.

        Returns
        -------
        Edit
            The new last edit.

        Raises
        ------
        WorkbenchError
            If the fact, the hyperparameters or the computed update cannot be used.
        RiskError
            If the edit would break the model and `cautious` is set.
        Cancelled
            If `monitor` cancels the edit.
        """
        monitor = monitor or ProgressMonitor()
        with self.exclusive(monitor):
            monitor.stage("Reading the prompts")
            self.predict(request)  # raises where an answer has no token
            monitor.stage(f"Preparing {editor.label}")
            editor = editor.prepared(self.lm)
            monitor.stage(f"Editing with {editor.label}", expected_passes(editor, self.lm))
            start = time.perf_counter()
            computed = self._sequence.compute([request], editor)
            seconds = time.perf_counter() - start
            monitor.stage("Measuring")
            edit = self._add(request, editor, computed, regularizer, seconds)
            if cautious and edit.risk.is_high:
                self._sequence.undo()
                self._refused = edit
                raise RiskError(f"this edit was not applied because of its {edit.risk}.", edit.risk)
            return self._accept(edit)

    def apply_refused(self) -> Edit:
        """Make the edit that was refused last, without computing it again; raise `EditError` if there is none."""
        if (refused := self._refused) is None:
            raise EditError("no edit has been refused since the last one.")
        parts = (refused.request, refused.editor, refused.computed, refused.regularizer, refused.seconds)
        return self.add(*parts)

    def add(
        self,
        request: EditRequest,
        editor: Editor,
        computed: WeightUpdate,
        regularizer: Regularizer | None,
        seconds: float,
    ) -> Edit:
        """Add an edit whose update has been computed on the model with all earlier edits; see `edit`."""
        with self.exclusive(None):
            return self._accept(self._add(request, editor, computed, regularizer, seconds))

    def _accept(self, edit: Edit) -> Edit:
        self._edits.append(edit)
        self.abilities = self._refused = None
        return edit

    @checked
    def regularize(self, regularizer: Regularizer, *, monitor: ProgressMonitor | None = None) -> Edit:
        """Regularize the last edit again, from the update as the method computed it.

        Parameters
        ----------
        regularizer : Regularizer
            The new regularizer.
        monitor : ProgressMonitor, optional
            Cancels the call.

        Returns
        -------
        Edit
            The new last edit.

        Raises
        ------
        EditError
            If there is no edit.
        """
        with self.exclusive(monitor):
            last = self._last()
            self._sequence.undo()
            try:
                edit = self._add(last.request, last.editor, last.computed, regularizer, last.seconds)
            except Exception:  # put back what was there
                self._sequence.add(last.computed, last.regularizer, seconds=last.seconds)
                raise
            self._edits[-1] = edit
            self.abilities = self._refused = None
            return edit

    @checked
    def regularize_sum(self, regularizer: Regularizer | None, *, monitor: ProgressMonitor | None = None) -> None:
        """Regularize the sum of all edits, which is what is measured and exported; edits are computed without it.

        Parameters
        ----------
        regularizer : Regularizer or None
            The new regularizer of the sum, which stays for later edits; None: none.
        monitor : ProgressMonitor, optional
            Cancels the call.
        """
        with self.exclusive(monitor):
            before = self._sequence.accumulated
            self._sequence.regularize_sum(regularizer)
            try:
                totals = [self._sequence.total_after(number) for number in range(1, len(self._edits) + 1)]
                growths = [growth_row(total, self.lm, self.thresholds) for total in totals]
            except Exception:  # put back what was there
                self._sequence.regularize_sum(before)
                raise
            self._edits = [replace(edit, growth=growth) for edit, growth in zip(self._edits, growths, strict=True)]
            self.abilities = None

    @checked
    def undo(self, number: int | None = None) -> tuple[Edit, ...]:
        """Remove an edit and all later ones, which were computed on top of it.

        Parameters
        ----------
        number : int, optional
            Number of the edit, from 1; the last edit by default.

        Returns
        -------
        tuple of Edit
            The removed edits, first to last.

        Raises
        ------
        EditError
            If there is no such edit.
        """
        with self.lm.lock:
            removed = len(self._sequence.undo(number))
            undone = tuple(self._edits[-removed:])
            del self._edits[-removed:]
            self.abilities = self._refused = None
        return undone

    def _add(
        self,
        request: EditRequest,
        editor: Editor,
        computed: WeightUpdate,
        regularizer: Regularizer | None,
        seconds: float,
    ) -> Edit:
        earlier = self._sequence.base
        if not self._edits:
            self.thresholds = thresholds_of(computed, self.lm)
        added = self._sequence.add(computed, regularizer, seconds=seconds)
        try:
            with self.on(earlier):
                risk = assess(added.update, self.lm)
            growth = growth_row(self._sequence.total, self.lm, self.thresholds)
        except Exception:  # such as too little memory
            self._sequence.undo()
            raise
        return Edit(**vars(added), request=request, editor=editor, growth=growth, risk=risk)
