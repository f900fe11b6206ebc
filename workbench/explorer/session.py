"""A session of the explorer, without widgets: edits in sequence, each regularized, measured and undone.

Between calls the model is as it was loaded, bit for bit: `EditSequence` applies the sum of the edits where it is
needed. Two sessions may therefore share a model, and a session leaves no trace when it ends.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from workbench.arguments import checked
from workbench.assessment import assess
from workbench.editing.editor import Editor
from workbench.encoding import encode
from workbench.errors import EditError, RiskError
from workbench.evaluation.abilities import evaluate_tasks, select_headlines
from workbench.evaluation.decoding import continue_texts
from workbench.evaluation.edits import Probe, probes_of
from workbench.evaluation.predictions import BeforeAfter, PromptPrediction, predict_probes
from workbench.evaluation.tasks import TASKS
from workbench.explorer.edits import Answers, Continuation, Edit, check_prompts, expected_passes
from workbench.explorer.progress import ProgressMonitor, passes_counted
from workbench.explorer.weights import KeptShare, WeightView, growth_row, measure_kept, thresholds_of, weight_view
from workbench.lm import LanguageModel
from workbench.plots.style import edits_label
from workbench.registry import make_editor
from workbench.regularize import Regularizer
from workbench.request import EditRequest
from workbench.sequence import EditSequence
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate


class Session:
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
        self.lm = lm
        self._check_unedited()
        self._sequence = EditSequence(lm)
        self._edits: list[Edit] = []
        self._refused: Edit | None = None
        self.thresholds: tuple[float, ...] = ()
        self.abilities: pd.DataFrame | None = None

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits, first to last."""
        return tuple(self._edits)

    @property
    def sequence(self) -> EditSequence:
        """The edits as the model sees them; the methods of the session change it."""
        return self._sequence

    @property
    def update(self) -> WeightUpdate:
        """Sum of all edits, after the regularizer of the sum; empty without edits."""
        return self._sequence.total

    @property
    def refused(self) -> Edit | None:
        """The last edit if it was refused; see `apply_refused`."""
        return self._refused

    @property
    def accumulated(self) -> Regularizer | None:
        """The regularizer of the sum of all edits."""
        return self._sequence.accumulated

    def editor(self, method: str, fields: Mapping[str, Any] | None = None) -> Editor:
        """Return a method with its preset for the model; see `make_editor`."""
        return make_editor(method, self.lm, fields)

    @contextmanager
    def edited(self, monitor: ProgressMonitor | None = None) -> Iterator[LanguageModel]:
        """Apply all edits to the model inside the ``with`` block."""
        with self.exclusive(monitor), self._sequence.applied():
            yield self.lm

    @contextmanager
    def unedited(self, monitor: ProgressMonitor | None = None) -> Iterator[EditSequence]:
        """Keep other threads from the model, which stays unedited, inside the ``with`` block; it binds the edits."""
        with self.exclusive(monitor):
            yield self._sequence

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

    @checked
    def predict(self, request: EditRequest, *, monitor: ProgressMonitor | None = None) -> Answers:
        """Return the answers of the unedited and the edited model to a fact's prompts and to the prompt of each edit.

        Parameters
        ----------
        request : EditRequest
            The fact, edited or not.
        monitor : ProgressMonitor, optional
            Cancels the call.

        Returns
        -------
        Answers

        Raises
        ------
        RequestError
            If an answer has no tokens.
        """
        probes = probes_of([request])
        probes += [probes_of([replace(edit.request, rephrase=(), locality=())])[0] for edit in self._edits]
        with self.exclusive(monitor):
            before = self._unedited_predictions(probes)
            after = before
            if self._edits:
                with self._sequence.applied():
                    after = predict_probes(self.lm, probes)
        answers = [BeforeAfter(*each) for each in zip(probes, before, after, strict=True)]
        n_prompts = len(answers) - len(self._edits)
        return Answers(answers[:n_prompts], answers[n_prompts:])

    @checked
    def continue_prompts(
        self, prompts: Sequence[str], n_tokens: int = 20, *, monitor: ProgressMonitor | None = None
    ) -> list[Continuation]:
        """Return the greedy continuations of prompts by the unedited and the edited model.

        Parameters
        ----------
        prompts : sequence of str
            The texts to continue.
        n_tokens : int
            Largest number of tokens to generate.
        monitor : ProgressMonitor, optional
            Cancels the call.

        Returns
        -------
        list of Continuation
            One per prompt.

        Raises
        ------
        EditError
            If there is no prompt, one is empty, or one is too long for the model.
        """
        ids = [encode(self.lm.tokenizer, prompt).ids for prompt in prompts]
        check_prompts(self.lm, prompts, ids, n_tokens)
        with self.exclusive(monitor):
            before = compute_missing(
                self.lm.unedited_memo("explorer continuations"),
                [(row, n_tokens) for row in ids],
                lambda missing: continue_texts(self.lm, [row for row, _ in missing], n_tokens),
            )
            after = before
            if self._edits:
                with self._sequence.applied():
                    after = continue_texts(self.lm, ids, n_tokens)
        return [Continuation(*each) for each in zip(prompts, before, after, strict=True)]

    @checked
    def check_abilities(self, limit: int = 10, *, monitor: ProgressMonitor | None = None) -> pd.DataFrame:
        """Return the scores of the unedited and the edited model on the eight tasks, and keep them in `abilities`.

        Parameters
        ----------
        limit : int
            Number of examples of each task.
        monitor : ProgressMonitor, optional
            Receives the progress, and cancels the call.

        Returns
        -------
        DataFrame
            `select_headlines` of each task, with n_edits, 0 first.

        Raises
        ------
        SpecError, DataError
            As in `evaluate_tasks`.
        """
        monitor = monitor or ProgressMonitor()
        states = {0: nullcontext} | ({len(self._edits): self._sequence.applied} if self._edits else {})
        parts: list[pd.DataFrame] = []
        with self.exclusive(monitor):
            for n_edits, state in states.items():
                with state():
                    for task in TASKS.values():
                        monitor.step(f"{task.title}, {edits_label(n_edits)}", len(parts), len(states) * len(TASKS))
                        scores = evaluate_tasks(self.lm, tasks=[task.name], limit=limit)
                        parts.append(select_headlines(scores).assign(n_edits=n_edits))
        self.abilities = pd.concat(parts, ignore_index=True)
        return self.abilities

    def growth(self) -> pd.DataFrame:
        """Return the distance from the unedited weights after each edit: n_edits, and the columns of `growth_row`."""
        return pd.DataFrame([{"n_edits": i, **edit.growth} for i, edit in enumerate(self._edits, start=1)])

    def matrices(self) -> list[str]:
        """Return the names of the parameters that the last edit changes."""
        return list(self._edits[-1].update) if self._edits else []

    def weight_view(self, name: str | None = None) -> WeightView:
        """Return one matrix of the last edit as the figures show it.

        Parameters
        ----------
        name : str, optional
            One of `matrices`; the first by default.

        Returns
        -------
        WeightView

        Raises
        ------
        EditError
            If there is no edit, or it does not change that parameter.
        """
        last = self._last()
        name = self.matrices()[0] if name is None else name
        if name not in last.update:
            raise EditError(f"the last edit does not change {name!r}; it changes {', '.join(self.matrices())}.")
        earlier = self._sequence.base_after(len(self._edits) - 1)
        with self.exclusive(None), self.on(earlier):
            return weight_view(self.lm, last, name)

    def measure_kept(self) -> KeptShare:
        """Return what the regularizer leaves of the last edit; raise `EditError` if there is no edit."""
        last = self._last()
        return measure_kept(last.computed, last.update)

    def measure_kept_of_sum(self) -> KeptShare:
        """Return what the regularizer of the sum leaves of it; raise `EditError` if there is no edit."""
        self._last()
        return measure_kept(self._sequence.base, self._sequence.total)

    @contextmanager
    def exclusive(self, monitor: ProgressMonitor | None) -> Iterator[None]:
        """Keep other threads from the model inside the block; `monitor` counts its forward passes."""
        with self.lm.lock, torch.no_grad():
            self._check_unedited()
            if monitor is None:
                yield
            else:
                monitor.check()
                with passes_counted(self.lm, monitor):
                    yield

    def on(self, earlier: WeightUpdate) -> AbstractContextManager[object]:
        """Apply the sum of earlier edits inside a ``with`` block; without any, the model counts as unedited."""
        return earlier.applied(self.lm) if len(earlier) else nullcontext()

    def _check_unedited(self) -> None:
        if self.lm.applied_updates:
            raise EditError(f"an update is applied to {self.lm.name}; undo it before exploring.")

    def _last(self) -> Edit:
        if not self._edits:
            raise EditError("there is no edit yet; make one first.")
        return self._edits[-1]

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

    def _unedited_predictions(self, probes: Sequence[Probe]) -> list[PromptPrediction]:
        by_key = {(probe.prompt, probe.target, probe.rival): probe for probe in probes}
        return compute_missing(
            self.lm.unedited_memo("explorer predictions"),
            [(probe.prompt, probe.target, probe.rival) for probe in probes],
            lambda missing: predict_probes(self.lm, [by_key[key] for key in missing]),
        )
