"""A session of the explorer, without widgets: edits one after another, each regularized, measured and undone.

Between calls the model is as it was loaded, bit for bit. Whatever needs the edits applies their sum to the unedited
weights, for the time of the call, as the runner of experiments does. So undoing is forgetting, two sessions that share
a model do not disturb each other, and a session ends without a trace.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from workbench.editing.editor import Editor
from workbench.encoding import encode
from workbench.errors import EditError
from workbench.evaluation.abilities import evaluate_tasks, headlines
from workbench.evaluation.decoding import continued_texts
from workbench.evaluation.edits import Probe, probes_of
from workbench.evaluation.predictions import Answered, Reading, read_probes
from workbench.evaluation.tasks import TASKS
from workbench.explorer.edits import Continued, Edit, expected_passes
from workbench.explorer.progress import Watch, watched
from workbench.explorer.weights import Kept, WeightView, growth_row, kept_of, thresholds_of, weight_view
from workbench.lm import LanguageModel
from workbench.plots.abilities import edits_label
from workbench.registry import editor_for
from workbench.regularize import Regularizer, Unregularized
from workbench.request import EditRequest
from workbench.update import WeightUpdate


class Session:
    """Edits of one model, one after another.

    Parameters
    ----------
    lm : LanguageModel
        Unedited. Sessions in several threads may share it: they wait for one another.

    Raises
    ------
    EditError
        If an update is applied to the model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._check_unedited()
        self._edits: list[Edit] = []
        self._thresholds: tuple[float, ...] = ()
        self._lock: threading.RLock = lm.memo.setdefault("explorer lock", threading.RLock())
        self.abilities: pd.DataFrame | None = None  # from `check_abilities`; None once the edits have changed

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The history, first edit first."""
        return tuple(self._edits)

    @property
    def update(self) -> WeightUpdate:
        """The sum of all edits; empty without any."""
        return self._edits[-1].total if self._edits else WeightUpdate({})

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The δ that the table of weight changes counts from: quantiles of the first edit, before regularization."""
        return self._thresholds

    def editor(self, method: str, fields: dict[str, Any] | None = None) -> Editor:
        """A method by its name, with its preset for the model; `fields` win over it. Raises as `editor_for` does."""
        return editor_for(method, self.lm, fields)

    @contextmanager
    def edited(self, watch: Watch | None = None) -> Iterator[LanguageModel]:
        """The model with all edits, for the time of the block."""
        with self._alone(watch), self._with(self.update):
            yield self.lm

    def edit(
        self,
        request: EditRequest,
        editor: Editor,
        regularizer: Regularizer | None = None,
        *,
        watch: Watch | None = None,
    ) -> Edit:
        """Edit a fact on the model as the earlier edits left it. All of it happens, or nothing.

        Parameters
        ----------
        request : EditRequest
            The fact.
        editor : Editor
            The method; what it takes from a model once, such as contexts, it takes from the unedited one.
        regularizer : Regularizer, optional
            Of the update; none by default.
        watch : Watch, optional
            Reported to, and asked whether to stop.

        Returns
        -------
        Edit
            The last of `edits` now.

        Raises
        ------
        WorkbenchError
            If the fact, the hyperparameters or what the method computes cannot be used.
        Cancelled
            If `watch` says so.
        """
        watch = watch or Watch()
        with self._alone(watch):
            watch.stage("Reading the prompts")
            self.look(request)  # raises where an answer has no token
            watch.stage(f"Preparing {editor.label}")
            editor = editor.prepared(self.lm)
            with self._with(self.update):
                watch.stage(f"Editing with {editor.label}", expected_passes(editor, self.lm))
                start = time.perf_counter()
                raw = editor.compute_update(self.lm, [request])
                seconds = time.perf_counter() - start
            if bad := [name for name in raw if not torch.isfinite(raw.delta(name)).all()]:
                raise EditError(f"the update of {bad[0]} is not finite; milder hyperparameters may help.")
            watch.stage("Measuring")
            if not self._edits:
                self._thresholds = thresholds_of(raw, self.lm)
            edit = Edit(request, editor, raw, seconds, Unregularized(), raw, raw, {})
            edit = self._regularized(edit, regularizer or Unregularized(), self._edits)
            self._edits.append(edit)
            self.abilities = None
            return edit

    def regularize(self, regularizer: Regularizer, *, watch: Watch | None = None) -> Edit:
        """Put another regularizer's update in the place of the last edit's, which is not computed again.

        Parameters
        ----------
        regularizer : Regularizer
            Applied to what the method computed.
        watch : Watch, optional
            Asked whether to stop.

        Returns
        -------
        Edit
            The last of `edits` now.

        Raises
        ------
        EditError
            If there is no edit.
        """
        last = self._last()
        with self._alone(watch):
            self._edits[-1] = self._regularized(last, regularizer, self._edits[:-1])
            self.abilities = None
            return self._edits[-1]

    def undo(self, number: int | None = None) -> tuple[Edit, ...]:
        """Go back to before an edit. Later edits were computed on top of it, so they go with it.

        Parameters
        ----------
        number : int, optional
            Which edit, from 1; the last by default.

        Returns
        -------
        tuple of Edit
            What was undone, first edit first.

        Raises
        ------
        EditError
            If there is no such edit.
        """
        self._last()
        number = len(self._edits) if number is None else number
        if not 1 <= number <= len(self._edits):
            raise EditError(f"there is no edit {number}; the history has 1 to {len(self._edits)}.")
        with self._lock:
            undone = tuple(self._edits[number - 1 :])
            del self._edits[number - 1 :]
            self.abilities = None
        return undone

    def look(self, request: EditRequest, *, watch: Watch | None = None) -> tuple[list[Answered], list[Answered]]:
        """What the unedited and the edited model make of a fact's prompts, and of every edited fact's own prompt.

        Parameters
        ----------
        request : EditRequest
            Edited or not.
        watch : Watch, optional
            Asked whether to stop.

        Returns
        -------
        shown : list of Answered
            Prompt, rephrasings, locality probes.
        history : list of Answered
            The prompt of each edit, in order.

        Raises
        ------
        RequestError
            If an answer tokenises to nothing.
        """
        probes = probes_of([request])
        probes += [probes_of([replace(edit.request, rephrase=(), locality=())])[0] for edit in self._edits]
        with self._alone(watch):
            before = self._unedited_readings(probes)
            after = before
            if self._edits:
                with self._with(self.update):
                    after = read_probes(self.lm, probes)
        answered = [Answered(*each) for each in zip(probes, before, after, strict=True)]
        n_shown = len(answered) - len(self._edits)
        return answered[:n_shown], answered[n_shown:]

    def continue_prompts(
        self, prompts: Sequence[str], n_tokens: int = 20, *, watch: Watch | None = None
    ) -> list[Continued]:
        """How the unedited and the edited model go on, greedily.

        Parameters
        ----------
        prompts : sequence of str
            Texts.
        n_tokens : int
            Tokens to write at most.
        watch : Watch, optional
            Asked whether to stop.

        Returns
        -------
        list of Continued
            One a prompt.

        Raises
        ------
        EditError
            If there is no prompt, one is empty, or it is too long for the model.
        """
        ids = [encode(self.lm.tokenizer, prompt).ids for prompt in prompts]
        self._check_prompts(prompts, ids, n_tokens)
        with self._alone(watch):
            known = self.lm.unedited_memo("explorer continuations")
            keys = [(row, n_tokens) for row in ids]
            if missing := [key for key in dict.fromkeys(keys) if key not in known]:
                known.update(zip(missing, continued_texts(self.lm, [row for row, _ in missing], n_tokens), strict=True))
            before = [known[key] for key in keys]
            after = before
            if self._edits:
                with self._with(self.update):
                    after = continued_texts(self.lm, ids, n_tokens)
        return [Continued(*each) for each in zip(prompts, before, after, strict=True)]

    def check_abilities(self, limit: int = 10, *, watch: Watch | None = None) -> pd.DataFrame:
        """Scores on the eight tasks, unedited and with all edits; kept in `abilities` until the edits change.

        Parameters
        ----------
        limit : int
            Examples of each task.
        watch : Watch, optional
            Reported to, and asked whether to stop.

        Returns
        -------
        DataFrame
            The headline of each task, as `headlines` gives it, with n_edits, 0 first.

        Raises
        ------
        SpecError, DataError
            As `evaluate_tasks`.
        """
        watch = watch or Watch()
        states = {0: WeightUpdate({})} | ({len(self._edits): self.update} if self._edits else {})
        parts = []
        with self._alone(watch):
            for n_edits, update in states.items():
                with self._with(update):
                    for task in TASKS.values():
                        watch.step(f"{task.title}, {edits_label(n_edits)}", len(parts), len(states) * len(TASKS))
                        scores = evaluate_tasks(self.lm, tasks=[task.name], limit=limit)
                        parts.append(headlines(scores).assign(n_edits=n_edits))
        self.abilities = pd.concat(parts, ignore_index=True)
        return self.abilities

    def growth(self) -> pd.DataFrame:
        """How far the weights are from the unedited ones after each edit: n_edits and the columns of `growth_row`."""
        return pd.DataFrame([{"n_edits": i, **edit.growth} for i, edit in enumerate(self._edits, start=1)])

    def matrices(self) -> list[str]:
        """The parameters that the last edit changes."""
        return list(self._edits[-1].update) if self._edits else []

    def weight_view(self, name: str | None = None) -> WeightView:
        """One matrix of the last edit, as the figures show it.

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
        with self._alone(None), self._with(self._total_before_last()):
            return weight_view(self.lm, last.raw, last.update, last.regularizer, name)

    def kept(self) -> Kept:
        """How much of the last edit its regularizer leaves; raises `EditError` if there is no edit."""
        last = self._last()
        return kept_of(last.raw, last.update)

    @contextmanager
    def _alone(self, watch: Watch | None) -> Iterator[None]:
        """Nobody else uses the model; every forward pass goes by `watch`."""
        with self._lock, torch.no_grad():
            self._check_unedited()
            if watch is None:
                yield
            else:
                watch.check()
                with watched(self.lm, watch):
                    yield

    @contextmanager
    def _with(self, update: WeightUpdate) -> Iterator[None]:
        """`update` on the model; an empty one is not applied, so that answers may be kept as the unedited model's."""
        if not update:
            yield
        else:
            with update.applied(self.lm):
                yield

    def _check_unedited(self) -> None:
        if self.lm.applied_updates:
            raise EditError(f"an update is applied to {self.lm.name}; undo it before exploring.")

    def _last(self) -> Edit:
        if not self._edits:
            raise EditError("there is no edit yet; make one first.")
        return self._edits[-1]

    def _total_before_last(self) -> WeightUpdate:
        return self._edits[-2].total if len(self._edits) > 1 else WeightUpdate({})

    def _regularized(self, edit: Edit, regularizer: Regularizer, earlier: Sequence[Edit]) -> Edit:
        """What an edit behind `earlier` ones is with another regularizer."""
        base = earlier[-1].total if earlier else WeightUpdate({})
        with self._with(base):
            update = regularizer(edit.raw, self.lm)
        total = base + update
        growth = growth_row(total, self.lm, self._thresholds)
        return replace(edit, regularizer=regularizer, update=update, total=total, growth=growth)

    def _unedited_readings(self, probes: Sequence[Probe]) -> list[Reading]:
        known = self.lm.unedited_memo("explorer readings")
        keys = [(probe.prompt, probe.target, probe.rival) for probe in probes]
        if missing := {key: probe for key, probe in zip(keys, probes, strict=True) if key not in known}:
            known.update(zip(missing, read_probes(self.lm, list(missing.values())), strict=True))
        return [known[key] for key in keys]

    def _check_prompts(self, prompts: Sequence[str], ids: Sequence[tuple[int, ...]], n_tokens: int) -> None:
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise EditError("there is no prompt to continue; type at least one.")
        if n_tokens < 1:
            raise EditError(f"the number of tokens must be at least 1; got {n_tokens}.")
        longest = getattr(self.lm.model.config, "max_position_embeddings", None)
        if longest and (length := max(map(len, ids)) + n_tokens) > longest:
            raise EditError(f"prompt and continuation have {length} tokens; {self.lm.name} takes {longest}.")
