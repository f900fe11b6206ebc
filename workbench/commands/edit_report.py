"""What `workbench edit` prints: each prompt before and after, then the size of the update."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.commands.printing import bare_table, show, shown, titled
from workbench.request import EditRequest

if TYPE_CHECKING:
    from workbench.commands.before_after import Reading
    from workbench.editing.rome import ROME
    from workbench.evaluation.edits import Probe
    from workbench.lm import LanguageModel
    from workbench.update import WeightUpdate


@dataclass(frozen=True)
class Outcome:
    """What an edit did."""

    probes: list["Probe"]
    before: list["Reading"]
    after: list["Reading"]
    editor: "ROME"
    update: "WeightUpdate"  # regularised
    label: str  # of the regulariser
    changes: dict[tuple[str, float | None], float]  # (metric, at) -> value, from `weight_change`
    seconds: dict[str, float]  # of the edit, and of sampling its contexts


def report(
    outcome: Outcome, lm: "LanguageModel", request: EditRequest, earlier: list[tuple[Path, "WeightUpdate"]]
) -> None:
    """Print an edit: each prompt before and after, then the update.

    Parameters
    ----------
    outcome : Outcome
        What the edit did.
    lm : LanguageModel
        The model edited.
    request : EditRequest
        The fact.
    earlier : list of (Path, WeightUpdate)
        What was applied before.
    """
    show(titled(lm.name, f"{request.filled_prompt} → {request.target_new}"))
    if earlier:
        show(f"on top of {', '.join(str(path) for path, _ in earlier)}")
    for probe, before, after in zip(outcome.probes, outcome.before, outcome.after, strict=True):
        show()
        _report_probe(probe, before, after)
    show()
    _report_update(outcome)


_TITLES = {"reliability": "Prompt", "generalization": "Rephrased", "locality": "Elsewhere"}


def _report_probe(probe: "Probe", before: "Reading", after: "Reading") -> None:
    show(titled(_TITLES[probe.metric], probe.prompt))
    table = bare_table("", "before", "after")
    for answer, chance in before.chances.items():
        table.add_row(f"P({shown(answer)})", _chance(chance), _chance(after.chances[answer]))
    table.add_row("next token", _next_tokens(before), _next_tokens(after))
    table.add_row("continued", shown(before.continuation).strip(), shown(after.continuation).strip())
    show(table)


def _next_tokens(reading: "Reading") -> str:
    return "\n".join(f"{shown(token).strip() or repr(token)} {_chance(p)}" for token, p in reading.next_tokens)


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.1g}"


def _report_update(outcome: Outcome) -> None:
    [name], [info], changes = outcome.update, outcome.update.info, outcome.changes
    n_rows, n_cols = outcome.update[name].shape
    show(titled("Update", f"{info['method']}, layer {outcome.editor.layer}, {outcome.label}"))
    quantiles = [(100 * at, value) for (metric, at), value in changes.items() if metric == "relative_change"]
    losses, seconds = info["losses"], outcome.seconds
    rows = {
        "weight": f"{name}, {n_rows} × {n_cols}",
        "Σ|ΔW|": f"{changes['manhattan_distance', None]:.1f} (Manhattan distance)",
        "‖ΔW‖/‖W‖": f"{changes['relative_norm', None]:.4f}",
        "δ = |ΔW/W|": ", ".join(f"{value:.4f} ({percent:g} % quantile)" for percent, value in quantiles),
        "changed": f"{100 * changes['share_changed', None]:.1f} % of the entries",
        "denominator": f"{info['denominator']:.4g} (uᵀk, ‖u‖ = 1)",
        "loss": f"{losses[0]:.3f} → {losses[-1]:.3f} in {len(losses)} steps",
        "seconds": f"{seconds['edit']:.1f}, and {seconds['contexts']:.1f} for {len(outcome.editor.contexts)} contexts",
    }
    table = bare_table("", "")
    for label, value in rows.items():
        table.add_row(label, value)
    show(table)


def file_size(n_bytes: int) -> str:
    """A number of bytes for people, such as "10.4 kB"."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
