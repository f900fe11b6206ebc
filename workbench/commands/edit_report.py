"""Printed report of `workbench edit`: prompts or scores before and after the edit, then the update."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench.assessment import Assessment
from workbench.commands.printing import bare_table, show, titled
from workbench.edit_record import EditRecord
from workbench.editing.editor import Editor, describe_layers
from workbench.evaluation.edits import Probe
from workbench.evaluation.predictions import PromptPrediction
from workbench.lm import LanguageModel
from workbench.printable import printable
from workbench.request import EditRequest
from workbench.update import WeightUpdate


@dataclass(frozen=True)
class Outcome:
    """Everything that the report of an edit shows."""

    probes: list[Probe]  # all prompts of one fact, or the prompts of the first facts of a batch
    before: list[PromptPrediction]  # one per probe
    after: list[PromptPrediction]
    scores: tuple[pd.DataFrame, pd.DataFrame] | None  # of `evaluate_edits` before and after, for a batch
    editor: Editor
    update: WeightUpdate  # after the regularizer
    regularizer: str  # its label
    changes: pd.DataFrame  # of `weight_change`
    risk: Assessment
    seconds: dict[str, float]  # to prepare the method, and to compute the edit


def report(
    outcome: Outcome, lm: LanguageModel, requests: list[EditRequest], earlier: list[tuple[Path, WeightUpdate]]
) -> None:
    """Print an edit: prompts of one fact, or scores and first facts of a batch, before and after; then the update.

    Parameters
    ----------
    outcome : Outcome
        Result of the edit.
    lm : LanguageModel
        The edited model.
    requests : list of EditRequest
        The edited facts.
    earlier : list of (Path, WeightUpdate)
        Saved updates that the edit is on top of.
    """
    first = f"{requests[0].filled_prompt} → {requests[0].target_new}"
    show(titled(lm.name, first if len(requests) == 1 else f"{len(requests)} facts in one operation, such as: {first}"))
    if earlier:
        show(f"on top of {', '.join(str(path) for path, _ in earlier)}")
    if outcome.scores is not None:
        _report_scores(*outcome.scores)
        _report_first_facts(outcome)
    else:
        _report_probes(outcome)
    show()
    _report_update(outcome)


def _report_probes(outcome: Outcome) -> None:
    for probe, before, after in zip(outcome.probes, outcome.before, outcome.after, strict=True):
        show()
        _report_probe(probe, before, after)


def _report_scores(scores_before: pd.DataFrame, scores_after: pd.DataFrame) -> None:
    table = bare_table("", "", "before", "after", "facts")
    for before, after in zip(scores_before.itertuples(), scores_after.itertuples(), strict=True):
        protocol = str(before.protocol).replace("_", " ")
        table.add_row(str(before.metric), protocol, f"{before.value:.2f}", f"{after.value:.2f}", str(after.n))
    show()
    show(table)


def _report_first_facts(outcome: Outcome) -> None:
    show()
    show(titled("First facts", f"{len(outcome.probes)} of them, and P(target)"))
    for probe, before, after in zip(outcome.probes, outcome.before, outcome.after, strict=True):
        values = [_format_probability(each.probabilities[probe.target]) for each in (before, after)]
        show(printable(f"{probe.prompt} → {probe.target}  {values[0]} → {values[1]}"))


_TITLES = {"reliability": "Prompt", "generalization": "Rephrased", "locality": "Elsewhere", "portability": "Follows"}


def _report_probe(probe: Probe, before: PromptPrediction, after: PromptPrediction) -> None:
    show(titled(_TITLES[probe.metric], probe.prompt))
    table = bare_table("", "before", "after")
    for answer, probability in before.probabilities.items():
        cells = [_format_probability(p) for p in (probability, after.probabilities[answer])]
        table.add_row(f"P({printable(answer)})", *cells)
    table.add_row("next token", _next_tokens(before), _next_tokens(after))
    table.add_row("continued", printable(before.continuation).strip(), printable(after.continuation).strip())
    show(table)


def _next_tokens(prediction: PromptPrediction) -> str:
    return "\n".join(
        f"{printable(token.text).strip() or repr(token.text)} {_format_probability(token.probability)}"
        for token in prediction.next_tokens
    )


def _format_probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.1g}"


def _report_update(outcome: Outcome) -> None:
    [record] = outcome.update.records
    show(titled("Update", ", ".join([record.method, *describe_layers(outcome.editor), outcome.regularizer])))
    table = bare_table("", "")
    for name, changes in outcome.changes.groupby("parameter", sort=False):
        for label, value in _matrix_rows(str(name), outcome.update[str(name)].shape, changes).items():
            table.add_row(label, value)
    for label, value in _edit_rows(record, outcome).items():
        table.add_row(label, value)
    show(table)


def _matrix_rows(name: str, shape: tuple[int, ...], changes: pd.DataFrame) -> dict[str, str]:
    values = changes.groupby("metric")["value"].first()
    quantiles = changes[changes["metric"] == "relative_change"]
    return {
        "weight": f"{name}, {shape[0]} × {shape[1]}",
        "Σ|ΔW|": f"{values['manhattan_distance']:.1f} (Manhattan distance)",
        "‖ΔW‖/‖W‖": f"{values['relative_norm']:.4f}",
        "δ = |ΔW/W|": ", ".join(
            f"{value:.4f} ({100 * at:g} % quantile)"
            for at, value in zip(quantiles["at"], quantiles["value"], strict=True)
        ),
        "changed": f"{100 * values['share_changed']:.1f} % of the entries",
    }


def _edit_rows(record: EditRecord, outcome: Outcome) -> dict[str, str]:
    rows = {}
    if "denominator" in record.diagnostics:
        rows["denominator"] = f"{record.diagnostics['denominator']:.4g} (uᵀk, ‖u‖ = 1)"
    if len(record.losses) == 1 and record.steps[0] > 1:
        [losses] = record.losses
        rows["loss"] = f"{losses[0]:.3f} → {losses[-1]:.3f} in {len(losses)} steps"
    rows["risk"] = f"{outcome.risk.level}: {outcome.risk.summary}"
    seconds = outcome.seconds
    rows["seconds"] = f"{seconds['edit']:.1f}" + (
        f", and {seconds['prepared']:.1f} to prepare the method" if seconds["prepared"] >= 0.05 else ""
    )
    return rows
