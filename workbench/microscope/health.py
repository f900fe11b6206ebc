"""The health of a model during a sequence: perplexity, neighbors and facts after every edit; edits that stand out."""

import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from workbench.arguments import checked
from workbench.data.facts import load_bundled_facts
from workbench.errors import EditError
from workbench.evaluation.edits import Probe, score_probes
from workbench.microscope.timeline import Timeline
from workbench.request import EditRequest

NEIGHBORS = 20
JUMP = 3.0  # times the median ‖ΔW‖ of the sequence
LONG = 2.0  # σ₁(ΔW)/σ₁(W₀); where `wb.assess` gives it as a reason, too
COLUMNS = ("edits", "series", "perplexity", "factor", "kl", "locality", "reliability", "norm")


def choose_neighbors(requests: Iterable[EditRequest], *, count: int = NEIGHBORS, seed: int = 0) -> list[Probe]:
    """Choose prompts that should be answered as before, from bundled facts that have nothing to do with those edited.

    Parameters
    ----------
    requests : iterable of EditRequest
        The facts that are edited. Facts that share a subject or a target with one of them are left out.
    count : int
        Number of prompts, at most one per bundled fact.
    seed : int
        Seed of the choice.

    Returns
    -------
    list of Probe
        Probes of the metric locality; `request` is their number.

    Raises
    ------
    EditError
        If there are fewer such facts.
    """
    edited = list(requests)
    names = {text.casefold() for r in edited for text in (r.subject, r.target_new, r.target_true) if text}
    prompts = {r.filled_prompt for r in edited} | {probe.prompt for r in edited for probe in r.locality}
    others = []
    for fact in load_bundled_facts().requests:
        if not {text.casefold() for text in (fact.subject, fact.target_true) if text} & names:
            others += [probe for probe in fact.locality[:1] if probe.prompt not in prompts]
    distinct = list({probe.prompt: probe for probe in others}.values())
    if not 1 <= count <= len(distinct):
        raise EditError(f"the number of neighbors must lie in 1 to {len(distinct)}; got {count}.")
    chosen = random.Random(seed).sample(distinct, count)
    return [Probe(i, "locality", probe.prompt, probe.target, None) for i, probe in enumerate(chosen)]


def follow_health(
    timelines: Mapping[str, Timeline], neighbors: Sequence[Probe], edits: Iterable[int] | None = None
) -> pd.DataFrame:
    """Measure a model after every edit, for several versions of the sum of its edits side by side.

    Parameters
    ----------
    timelines : mapping of str to Timeline
        The versions by name, such as without and with a regularizer.
    neighbors : sequence of Probe
        Prompts that should be answered as before, as from `choose_neighbors`.
    edits : iterable of int, optional
        Numbers of edits; by default 0 to the last.

    Returns
    -------
    DataFrame
        One row per number of edits and series: edits, series, perplexity (on eight windows of 32 tokens), factor (of
        the unedited model's), kl (nats per token), locality (of the neighbors, teacher forced), reliability (mean of
        the facts so far; NaN before the first), norm (‖W_t − W₀‖).
    """
    rows = []
    for series, timeline in timelines.items():
        for t in range(len(timeline) + 1) if edits is None else edits:
            rows.append({"edits": t, "series": series, **_health_after(timeline, t, neighbors)})
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("edits", kind="stable", ignore_index=True)


@checked
def find_jumps(timeline: Timeline) -> pd.DataFrame:
    """Return the norm of each edit, and whether it stands out.

    An edit stands out where ‖ΔW‖ is more than 3 times the median over the edits of the sequence, itself included, or
    where σ₁(ΔW) is more than 2 times σ₁(W₀). The first needs three edits to mean anything, the second only one.

    Parameters
    ----------
    timeline : Timeline
        The edits.

    Returns
    -------
    DataFrame
        One row per edit: edit (from 1), subject (of its first fact), norm (‖ΔW‖), times_median, spectral_ratio
        (σ₁(ΔW)/σ₁(W₀)), denominator (uᵀk of ROME; NaN for other methods), jumps.
    """
    found = [timeline.describe(edit) for edit in range(1, len(timeline) + 1)]
    norms = np.array([each.norm for each in found])
    median = float(np.median(norms[norms > 0])) if (norms > 0).any() else np.nan
    table = pd.DataFrame(
        {
            "edit": np.arange(1, len(found) + 1),
            "subject": [each.requests[0].name for each in found],
            "norm": norms,
            "times_median": norms / median,
            "spectral_ratio": [each.spectral_ratio for each in found],
            "denominator": [np.nan if each.denominator is None else each.denominator for each in found],
        }
    )
    return table.assign(jumps=(table["times_median"] > JUMP) | (table["spectral_ratio"] > LONG))


@checked
def retention_matrix(timeline: Timeline, edits: Iterable[int] | None = None) -> pd.DataFrame:
    """Return the reliability of every fact after every edit since its own.

    Parameters
    ----------
    timeline : Timeline
        The edits.
    edits : iterable of int, optional
        Numbers of edits; by default 1 to the last.

    Returns
    -------
    DataFrame (facts, edits)
        Teacher-forced reliability; NaN before the fact is edited. Rows are facts in order, by their number from 0,
        columns numbers of edits.
    """
    numbers = list(range(1, len(timeline) + 1) if edits is None else edits)
    columns = {t: pd.Series(timeline.measure(t).reliability, dtype=float) for t in numbers}
    return pd.DataFrame(columns).rename_axis(index="fact", columns="edits")


@torch.no_grad()
def _health_after(timeline: Timeline, edits: int, neighbors: Sequence[Probe]) -> dict[str, float]:
    measured = timeline.measure(edits)
    with timeline.state(edits) as lm:
        scores = score_probes(lm, list(neighbors), ["teacher_forced"])
    held_out = measured.held_out
    return {
        "perplexity": held_out.perplexity,
        "factor": held_out.factor,
        "kl": held_out.kl,
        "locality": float(scores["value"].mean()),
        "reliability": float(np.mean(measured.reliability)) if measured.reliability else np.nan,
        "norm": measured.norm,
    }
