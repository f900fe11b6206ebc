"""The anatomy of a collapse: ordinary facts and a hard one in sequence, from the key of an edit to the abilities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from workbench.analysis.curves import select_smooth
from workbench.analysis.spectra import output_norms
from workbench.data.facts import load_facts
from workbench.editing.rome import ROME
from workbench.errors import EditError
from workbench.evaluation.abilities import evaluate_tasks
from workbench.evaluation.edits import score_edits
from workbench.evaluation.perplexity import perplexity
from workbench.lm import LanguageModel
from workbench.regularize import RECT, Regularizer
from workbench.request import EditRequest
from workbench.sequence import EditSequence
from workbench.spectral import PRUNE
from workbench.update import WeightUpdate
from workbench.weightstats import change_singular_values, singular_values, spectral_ratio, unedited_singular_values

UNEDITED, BEFORE, AFTER = "unedited", "before the edit", "after the edit"
CHANGE = "ΔW of the edit"
AS_COMPUTED = "ROME"
KEY, RATIO = "uᵀk", "σ₁(ΔW) / σ₁(W₀)"
COLUMNS = ("panel", "series", "x", "name", "value")
_TEXTS, _WINDOW = 8, 16  # on which the activations are measured
_VALUES = 64  # singular values per matrix


@dataclass(frozen=True, eq=False)
class Collapse:
    """A sequence of ROME edits, and the one that does the damage.

    Attributes
    ----------
    sequence : EditSequence
        The edits.
    method : ROME
        The method that computed them.
    perplexities : tuple of float
        Perplexity after 0, 1, … edits.
    fatal : int
        Number of the edit, from 1, that multiplies perplexity most.
    """

    sequence: EditSequence
    method: ROME
    perplexities: tuple[float, ...]
    fatal: int

    @property
    def request(self) -> EditRequest:
        """The fact of the fatal edit."""
        return self.sequence.edits[self.fatal - 1].requests[0]


def choose_facts(n_ordinary: int, *, hard: str, hard_at: int, seed: int) -> list[EditRequest]:
    """Draw ordinary bundled facts, and put a hard one among them.

    Parameters
    ----------
    n_ordinary : int
        Number of ordinary facts, with words before their subjects.
    hard : str
        Subject of a fact of the source ``"bundled-hard"``: one token that opens its prompt.
    hard_at : int
        Place of the hard fact, from 1.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of EditRequest

    Raises
    ------
    EditError
        If no hard fact has that subject, or the place is out of range.
    RequestError
        If there are fewer ordinary facts.
    """
    known = {request.subject: request for request in load_facts("bundled-hard").requests}
    if hard not in known:
        raise EditError(f"no hard fact has the subject {hard!r}; known: {', '.join(map(str, known))}.")
    if not 1 <= hard_at <= n_ordinary + 1:
        raise EditError(f"hard_at must lie in 1 to {n_ordinary + 1}; got {hard_at}.")
    facts = list(load_facts("bundled").with_words_before_subject().sample(n_ordinary, seed=seed))
    return [*facts[: hard_at - 1], known[hard], *facts[hard_at - 1 :]]


def make_collapse(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    limit: int | None = 8,
) -> Collapse:
    """Edit facts in sequence by ROME, and find the edit that multiplies perplexity most.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model; not changed.
    requests : sequence of EditRequest
        The facts, in order.
    hyperparameters : mapping, optional
        Fields of `ROME` in place of its preset's.
    limit : int, optional
        Number of windows of `perplexity`; all by default.

    Returns
    -------
    Collapse

    Raises
    ------
    EditError, RequestError
        If a fact cannot be edited.
    """
    method = replace(ROME.for_model(lm), **(hyperparameters or {})).prepared(lm)
    sequence = EditSequence(lm)
    found = [_perplexity(lm, limit)]
    for request in tqdm(requests, desc="ROME edits"):
        sequence.edit([request], method)
        with sequence.applied():
            found.append(_perplexity(lm, limit))
    growth = [after / before for before, after in pairwise(found)]
    return Collapse(sequence, method, tuple(found), 1 + growth.index(max(growth)))


@torch.no_grad()
def tabulate_collapse(
    collapse: Collapse, *, limit: int | None = 8, tasks: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Follow the fatal edit from its key to the abilities.

    Parameters
    ----------
    collapse : Collapse
        The sequence.
    limit : int, optional
        Number of windows of `perplexity`, as for `make_collapse`.
    tasks : mapping, optional
        Arguments of `evaluate_tasks`; all eight with all examples by default.

    Returns
    -------
    DataFrame
        Columns panel, series, x, name, value. By panel: ``perplexity`` (x: edits; name: subject of the edit), ``key``
        (series "uᵀk" and "σ₁(ΔW) / σ₁(W₀)" of each edit), ``spectrum`` (series W₀, W before and after the edit, and ΔW;
        x: index from 1), ``activations`` (mean norm of the outputs of the edited layer; x: position in the text),
        ``abilities`` (change of the log-likelihood of reference answers, in nats per token; name: task), ``remedies``
        (series "perplexity", a factor of the unedited model's, "this fact" and "earlier facts", their teacher-forced
        reliability; name: what the edit was put through).
    """
    parts = {
        "perplexity": _perplexity_rows(collapse),
        "key": _key_rows(collapse),
        "spectrum": _spectrum_rows(collapse),
        "activations": _activation_rows(collapse),
        "abilities": _ability_rows(collapse, tasks or {}),
        "remedies": _remedy_rows(collapse, limit),
    }
    rows = [{"panel": panel, **row} for panel, of_panel in parts.items() for row in of_panel]
    return pd.DataFrame(rows, columns=COLUMNS)


def describe_collapse(collapse: Collapse, table: pd.DataFrame) -> str:
    """Say which edit brought the model down, by what, and what would have saved it.

    Parameters
    ----------
    collapse : Collapse
        The sequence.
    table : DataFrame
        Table of `tabulate_collapse`.

    Returns
    -------
    str
    """
    before, after = collapse.perplexities[collapse.fatal - 1 : collapse.fatal + 1]
    keys = table[(table["panel"] == "key") & (table["x"] == collapse.fatal)].set_index("series")["value"]
    others = table[(table["panel"] == "key") & (table["x"] != collapse.fatal)].groupby("series")["value"].median()
    remedies = table[(table["panel"] == "remedies") & (table["name"] != AS_COMPUTED)]
    factors = remedies[remedies["series"] == "perplexity"].set_index("name")["value"]
    kept = remedies[remedies["series"] == "this fact"].set_index("name")["value"]
    would_be = [f"with {name} {factors[name]:.3g} times ({kept[name]:.2f})" for name in factors.index]
    return (
        f"Edit {collapse.fatal} of {len(collapse.sequence.edits)} ({collapse.request.name!r}) takes perplexity from "
        f"{before:.3g} to {after:.3g}: its uᵀk is {keys[KEY]:.2g} where the others have {others[KEY]:.2g}, so that "
        f"σ₁(ΔW) is {keys[RATIO]:.2g} times σ₁(W₀), for the others {others[RATIO]:.2g}. Perplexity over the "
        f"unedited model's, and in brackets the reliability of the fact, would be {', '.join(would_be)}."
    )


def _perplexity(lm: LanguageModel, limit: int | None) -> float:
    return float(perplexity(lm, limit=limit)["value"].iloc[0])


def _perplexity_rows(collapse: Collapse) -> Iterator[dict[str, Any]]:
    names = [UNEDITED, *(edit.requests[0].name for edit in collapse.sequence.edits)]
    for t, (name, value) in enumerate(zip(names, collapse.perplexities, strict=True)):
        yield {"series": AS_COMPUTED, "x": t, "name": name, "value": value}


def _key_rows(collapse: Collapse) -> Iterator[dict[str, Any]]:
    for t, edit in enumerate(collapse.sequence.edits, start=1):
        [record] = edit.computed.records
        ratio = spectral_ratio(edit.computed, collapse.sequence.lm)
        for series, value in ((KEY, float(record.diagnostics["denominator"])), (RATIO, ratio)):
            yield {"series": series, "x": t, "name": edit.requests[0].name, "value": value}


def _spectrum_rows(collapse: Collapse) -> Iterator[dict[str, Any]]:
    sequence, fatal = collapse.sequence, collapse.fatal
    [name] = sequence.edits[fatal - 1].computed
    W = sequence.lm.unedited_weight(name).double()
    found = {UNEDITED: unedited_singular_values(sequence.lm, name)}
    for series, t in ((BEFORE, fatal - 1), (AFTER, fatal)):
        total = sequence.total_after(t)
        found[series] = singular_values(W + total.delta(name).to(W)) if len(total) else found[UNEDITED]
    found[CHANGE] = change_singular_values(sequence.edits[fatal - 1].computed[name])
    for series, values in found.items():
        for i, value in enumerate(values[:_VALUES].tolist(), start=1):
            yield {"series": series, "x": i, "name": name, "value": value}


def _activation_rows(collapse: Collapse) -> Iterator[dict[str, Any]]:
    sequence, lm = collapse.sequence, collapse.sequence.lm
    [name] = sequence.edits[collapse.fatal - 1].computed
    for series, t in ((UNEDITED, 0), (BEFORE, collapse.fatal - 1), (AFTER, collapse.fatal)):
        with sequence.applied(upto=t):
            norms = output_norms(lm, name, texts=_TEXTS, window=_WINDOW).mean(dim=0)
        for position, value in enumerate(norms.tolist()):
            yield {"series": series, "x": position, "name": name, "value": value}


def _ability_rows(collapse: Collapse, tasks: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sequence, lm = collapse.sequence, collapse.sequence.lm
    found = {}
    for series, t in ((UNEDITED, 0), (BEFORE, collapse.fatal - 1), (AFTER, collapse.fatal)):
        with sequence.applied(upto=t):
            scores = select_smooth(evaluate_tasks(lm, **tasks, written=False))
        found[series] = scores.set_index("title")["value"]
    for series in (BEFORE, AFTER):
        for x, (title, value) in enumerate((found[series] - found[UNEDITED]).items()):
            yield {"series": series, "x": x, "name": title, "value": value}


def _remedy_rows(collapse: Collapse, limit: int | None) -> Iterator[dict[str, Any]]:
    sequence, lm, fatal = collapse.sequence, collapse.sequence.lm, collapse.fatal
    earlier = [edit.requests[0] for edit in sequence.edits[: fatal - 1]]
    for x, (label, make) in enumerate(_remedies(collapse).items()):
        repaired = EditSequence(lm, start=sequence.base_after(fatal - 1))
        repaired.add(*make(repaired))
        with repaired.applied():
            factor = _perplexity(lm, limit) / collapse.perplexities[0]
            reliability = {"this fact": _reliability(lm, [collapse.request])}
            if earlier:
                reliability["earlier facts"] = _reliability(lm, earlier)
        for series, value in {"perplexity": factor, **reliability}.items():
            yield {"series": series, "x": x, "name": label, "value": value}


def _remedies(
    collapse: Collapse,
) -> dict[str, Callable[[EditSequence], tuple[WeightUpdate, Regularizer | None]]]:
    """Return what makes the fatal edit, and its regularizer, on the model before it, by name."""
    computed, rect, prune = collapse.sequence.edits[collapse.fatal - 1].computed, RECT(), PRUNE()
    r_rome = replace(collapse.method, variant="r-rome")
    return {
        AS_COMPUTED: lambda _: (computed, None),
        rect.label: lambda _: (computed, rect),
        prune.label: lambda _: (computed, prune),
        r_rome.label: lambda before: (before.compute([collapse.request], r_rome), None),
    }


def _reliability(lm: LanguageModel, requests: Sequence[EditRequest]) -> float:
    bare = [replace(request, rephrase=(), locality=(), portability=()) for request in requests]
    return float(score_edits(lm, bare, protocols=["teacher_forced"])["value"].mean())
