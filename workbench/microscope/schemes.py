"""Editing schemes side by side: one fact under several methods, hyperparameters and regularizers, on the same state."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from workbench.arguments import checked
from workbench.assessment import Assessment, assess_side_by_side
from workbench.editing.editor import describe_layers, hyperparameters_of
from workbench.errors import SpecError, WorkbenchError, reason_of
from workbench.evaluation.edits import Probe, force_side_by_side, gives_answer, probes_of
from workbench.evaluation.natural import NATURAL_PROTOCOLS, answer_side_by_side, answer_unedited
from workbench.registry import make_editor
from workbench.regularize import Regularizer, Unregularized
from workbench.request import EditRequest
from workbench.sequence import EditSequence
from workbench.sequence_parts import SequenceEdit
from workbench.update import WeightUpdate

if TYPE_CHECKING:
    from workbench.editing.editor import Editor
    from workbench.lm import LanguageModel

MAX_SCHEMES = 6
METRICS = ("reliability", "generalization", "locality")


@dataclass(frozen=True)
class Scheme:
    """One way to make an edit.

    Attributes
    ----------
    method : str
        Name of a row of `workbench.registry.methods`.
    fields : mapping of str to object
        Hyperparameters that differ from the method's preset for the model.
    regularizer : Regularizer or None
        Regularizer of the edit.
    accumulated : Regularizer or None
        Regularizer of the sum of all edits.
    """

    method: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    regularizer: Regularizer | None = None
    accumulated: Regularizer | None = None


@dataclass(frozen=True, eq=False)
class SchemeResult:
    """What a scheme did to a fact.

    Attributes
    ----------
    scheme : Scheme
        The scheme.
    request : EditRequest
        The fact.
    label, settings : str
        The method's name; where it edits, and the hyperparameters that differ from its preset.
    earlier : tuple of SequenceEdit
        The edits on which it was computed.
    editor : Editor or None
        The method with all its hyperparameters; None if there is no such method.
    computed : WeightUpdate or None
        The update as the method computed it; None if it failed.
    seconds : float
        Time to compute the update; that of the row it is shared with, if `is_shared`.
    is_shared : bool
        Whether an earlier row computed the same update.
    scores : mapping of str to float
        The columns of `scheme_table` that are measured; empty if the scheme failed.
    answer : str
        What the edited model says after the prompt when it may say what it likes.
    risk : Assessment or None
        What the edit does to the model with the earlier edits.
    error : str or None
        Why the scheme failed, in one sentence.
    """

    scheme: Scheme
    request: EditRequest
    label: str
    settings: str
    earlier: tuple[SequenceEdit, ...]
    editor: "Editor | None" = None
    computed: WeightUpdate | None = None
    seconds: float = 0.0
    is_shared: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)
    answer: str = ""
    risk: Assessment | None = None
    error: str | None = None


_Row = tuple[SchemeResult, EditSequence | None]  # what is known of a row, and its edits; None if it failed


@checked
@torch.no_grad()
def compare_schemes(
    sequence: EditSequence,
    request: EditRequest,
    schemes: Sequence[Scheme],
    *,
    before_row: Callable[[int, Scheme], None] = lambda number, scheme: None,
    after_row: Callable[[SchemeResult], None] = lambda result: None,
) -> list[SchemeResult]:
    """Make one edit of a fact by several schemes, each on the same model, and measure what each does.

    An update is computed once for all schemes with the same method and hyperparameters. Those that follow each other
    answer the prompts together, which takes little longer than one of them does. Nothing is added to the sequence. A
    scheme that fails has a sentence instead of scores, and the others are not affected.

    Parameters
    ----------
    sequence : EditSequence
        The edits so far, on top of which each scheme edits.
    request : EditRequest
        The fact.
    schemes : sequence of Scheme
        One to six schemes.
    before_row : callable
        Called with the index of each scheme and the scheme before its work begins; an error that it raises ends the
        comparison.
    after_row : callable
        Called with each result, in the order of the schemes.

    Returns
    -------
    list of SchemeResult
        One per scheme.

    Raises
    ------
    SpecError
        If there is no scheme, or too many.
    EditError
        If an update is applied to the model.
    """
    if not 1 <= len(schemes) <= MAX_SCHEMES:
        raise SpecError(f"compare 1 to {MAX_SCHEMES} schemes; got {len(schemes)}.")
    computed: dict[str, SchemeResult] = {}
    results: list[SchemeResult] = []
    for _, group in groupby(enumerate(schemes), key=lambda row: (row[1].method, dict(row[1].fields))):
        rows = []
        for number, scheme in group:
            before_row(number, scheme)
            rows.append(_regularized(sequence, _edited(sequence, request, scheme, computed)))
        for result in _scored(sequence.lm, sequence.base, rows):
            results.append(result)
            after_row(result)
    return results


def scheme_table(results: Sequence[SchemeResult]) -> pd.DataFrame:
    """Return results as a table.

    Parameters
    ----------
    results : sequence of SchemeResult
        From `compare_schemes`.

    Returns
    -------
    DataFrame
        One row per scheme; columns row (from 1), method, settings (where it edits, and what differs from the preset),
        regularizer, accumulated (their labels); reliability, generalization and locality (protocol `natural`), and the
        same with the ending ``_forced`` (protocol `teacher_forced`), NaN where the fact has no such prompts; answer;
        kl (of the whole edited model from the unedited one, on the text of `assess`, in nats per token); norm (‖ΔW‖ of
        the regularized edit), relative_norm (over that of the unedited weights), risk ("high" or "low"), seconds,
        is_shared, error.
    """
    measured = [f"{metric}{ending}" for ending in ("", "_forced") for metric in METRICS]
    rows = [
        {
            "row": number,
            "method": result.label,
            "settings": result.settings,
            "regularizer": _label_of(result.scheme.regularizer),
            "accumulated": _label_of(result.scheme.accumulated),
            **dict.fromkeys([*measured, "kl", "norm", "relative_norm"], float("nan")),
            **result.scores,
            "answer": result.answer,
            "risk": "" if result.risk is None else result.risk.level,
            "seconds": result.seconds,
            "is_shared": result.is_shared,
            "error": result.error or "",
        }
        for number, result in enumerate(results, start=1)
    ]
    return pd.DataFrame(rows)


def _label_of(regularizer: Regularizer | None) -> str:
    return (regularizer or Unregularized()).label


def _edited(
    sequence: EditSequence, request: EditRequest, scheme: Scheme, computed: dict[str, SchemeResult]
) -> SchemeResult:
    """Compute the update of a scheme, or take it from the results by method and hyperparameters."""
    result = SchemeResult(scheme, request, scheme.method, "", sequence.edits)
    try:
        editor = make_editor(scheme.method, sequence.lm, scheme.fields)
        words = describe_layers(editor) + _differences(editor, make_editor(scheme.method, sequence.lm))
        result = replace(result, label=editor.label, settings=", ".join(words), editor=editor)
        key = json.dumps([type(editor).__name__, hyperparameters_of(editor)], sort_keys=True, default=str)
        if key in computed:
            return replace(computed[key], scheme=scheme, is_shared=True)
        computed[key] = _computed(sequence, request, result, editor)
        return computed[key]
    except WorkbenchError as err:
        return replace(result, error=reason_of(err))


def _differences(editor: "Editor", preset: "Editor") -> list[str]:
    """Return the hyperparameters that differ from the preset, in a few words each; layers and contexts left aside."""
    usual = hyperparameters_of(preset)
    return [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in hyperparameters_of(editor).items()
        if value != usual[name] and name not in ("layer", "layers", "contexts")
    ]


def _computed(sequence: EditSequence, request: EditRequest, result: SchemeResult, editor: "Editor") -> SchemeResult:
    try:
        prepared = editor.prepared(sequence.lm)
        start = time.perf_counter()
        update = sequence.compute([request], prepared)
        return replace(result, editor=prepared, computed=update, seconds=time.perf_counter() - start)
    except (WorkbenchError, RuntimeError) as err:  # such as too little memory for one of the methods
        return replace(result, error=reason_of(err))


def _regularized(sequence: EditSequence, result: SchemeResult) -> _Row:
    """Add the update of a scheme to a sequence of its own, with the regularizers of the scheme."""
    if (computed := result.computed) is None:
        return result, None
    scheme = result.scheme
    try:
        accumulated, feed_back = scheme.accumulated, sequence.feed_back
        fork = EditSequence(sequence.lm, accumulated=accumulated, feed_back=feed_back, start=sequence.base)
        fork.add(computed, scheme.regularizer)
        return result, fork
    except (WorkbenchError, RuntimeError) as err:
        return replace(result, error=reason_of(err)), None


def _scored(lm: "LanguageModel", base: WeightUpdate, rows: Sequence[_Row]) -> list[SchemeResult]:
    """Return the results of rows with their scores; all are run together."""
    edited = [(result, fork) for result, fork in rows if fork is not None]
    try:
        scored = iter(_scored_together(lm, base, edited) if edited else [])
    except (WorkbenchError, RuntimeError) as err:  # such as too little memory
        if len(rows) > 1:
            return [result for row in rows for result in _scored(lm, base, [row])]
        return [replace(result, error=reason_of(err)) for result, _ in rows]
    return [result if fork is None else next(scored) for result, fork in rows]


def _scored_together(
    lm: "LanguageModel", base: WeightUpdate, rows: Sequence[tuple[SchemeResult, EditSequence]]
) -> list[SchemeResult]:
    probes = [probe for probe in probes_of([rows[0][0].request]) if probe.metric in METRICS]
    updates, totals = [fork.edits[-1].update for _, fork in rows], [fork.total for _, fork in rows]
    with base.applied(lm) if len(base) else nullcontext():
        risks = assess_side_by_side(updates, lm)
    are_first = not len(base) and all(result.scheme.accumulated is None for result, _ in rows)
    of_whole_models = risks if are_first else assess_side_by_side(totals, lm)
    texts_of = answer_side_by_side(lm, totals, [probe.prompt for probe in probes])
    forced_of = force_side_by_side(lm, totals, probes)
    scored = []
    columns = zip(rows, updates, risks, of_whole_models, texts_of, forced_of, strict=True)
    for (result, _), update, risk, of_whole_model, texts, forced in columns:
        scores = {f"{metric}_forced": value for metric, value in zip(forced["metric"], forced["value"], strict=True)}
        scores |= _natural_scores(lm, probes, texts)
        sizes = {"kl": of_whole_model.kl, "norm": update.norm(), "relative_norm": update.relative_norm(lm)}
        scored.append(replace(result, scores={**scores, **sizes}, answer=texts[0], risk=risk))
    return scored


def _natural_scores(lm: "LanguageModel", probes: Sequence[Probe], texts: Sequence[str]) -> dict[str, float]:
    """Return the score of each metric by what the edited model says to probes: the natural protocol."""
    local = [probe.prompt for probe in probes if probe.metric == "locality"]
    unedited = dict(zip(local, answer_unedited(lm, local), strict=True))
    hits: dict[str, list[bool]] = {}
    for probe, text in zip(probes, texts, strict=True):
        before = unedited[probe.prompt] if probe.metric == "locality" else None
        hits.setdefault(probe.metric, []).append(gives_answer(NATURAL_PROTOCOLS["natural"], probe, text, before))
    return {metric: sum(each) / len(each) for metric, each in hits.items()}
