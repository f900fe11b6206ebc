"""A model and the edits of a session, as it is read: answers, abilities and weights, unedited and edited.

Between calls the model is as it was loaded, bit for bit: `EditSequence` applies the sum of the edits where it is
needed, under the model's lock. Sessions may therefore share a model.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from workbench.arguments import checked
from workbench.editing.editor import Editor
from workbench.encoding import encode
from workbench.errors import EditError
from workbench.evaluation.abilities import evaluate_tasks, select_headlines
from workbench.evaluation.decoding import continue_texts
from workbench.evaluation.edits import Probe, probes_of
from workbench.evaluation.predictions import BeforeAfter, PromptPrediction, predict_probes
from workbench.evaluation.tasks import TASKS
from workbench.explorer.edits import Answers, Continuation, Edit, check_prompts
from workbench.explorer.progress import ProgressMonitor, passes_counted
from workbench.explorer.weights import KeptShare, WeightView, measure_kept, weight_view
from workbench.lm import LanguageModel
from workbench.plots.style import edits_label
from workbench.registry import make_editor
from workbench.regularize import Regularizer
from workbench.request import EditRequest
from workbench.sequence import EditSequence
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate


class EditedModel:
    """A model and edits of it, to read; `workbench.explorer.session.Session` changes the edits.

    Parameters
    ----------
    lm : LanguageModel
        The model, without applied updates.

    Attributes
    ----------
    abilities : DataFrame or None
        The last result of `check_abilities`; None once the edits have changed.

    Raises
    ------
    EditError
        If an update is applied to the model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        with lm.lock:  # another session may just be using the model
            self._check_unedited()
        self._sequence = EditSequence(lm)
        self._edits: list[Edit] = []
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

    def _unedited_predictions(self, probes: Sequence[Probe]) -> list[PromptPrediction]:
        by_key = {(probe.prompt, probe.target, probe.rival): probe for probe in probes}
        return compute_missing(
            self.lm.unedited_memo("explorer predictions"),
            [(probe.prompt, probe.target, probe.rival) for probe in probes],
            lambda missing: predict_probes(self.lm, [by_key[key] for key in missing]),
        )
