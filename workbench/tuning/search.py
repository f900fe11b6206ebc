"""Successive halving over the hyperparameters of a method, and a confirmation on facts that chose nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.tables import select_edit_metrics
from workbench.data.facts import load_facts
from workbench.editing.contexts import sample_contexts
from workbench.editing.presets import check_tunable
from workbench.editing.second_moment.estimate import SecondMoment
from workbench.errors import SpecError
from workbench.experiment.models import load_model
from workbench.experiment.resolved import ResolvedRun, resolve_all
from workbench.experiment.runner import open_store, run_resolved
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.registry import method_row
from workbench.tuning.spaces import SPACES, Choices, Stage

TARGETS = {"reliability": 0.95, "natural": 0.8, "locality": 0.85}
_SHORTFALL = 10.0  # weight of what is missing to a target: no gain elsewhere outweighs a tenth of it
_READ = {
    ("reliability", "teacher_forced"): "reliability",
    ("reliability", "natural"): "natural",
    ("generalization", "teacher_forced"): "generalization",
    ("locality", "teacher_forced"): "locality",
}
CONFIRMATION = "confirmation"
_FINALISTS = 2
_N_SIZED = 8  # facts whose states tell how large a step is
_EVERY_CONTEXT = 5  # of ROME's 21: the bare prompt and two of either length
_TRIED_SEEDS = 1000


@dataclass(frozen=True)
class Tuning:
    """What a search has found.

    Attributes
    ----------
    method : str
        Name of the method.
    hyperparameters : dict
        The chosen values, of the fields that were searched or fixed at the start.
    trials : DataFrame
        One row per stage and candidate, the best first within a stage: stage, n_facts, a column per hyperparameter,
        reliability, natural, generalization, locality (means over facts), kl (mean KL per token on probe text, in
        nats), seconds (per fact) and merit. The stage ``"confirmation"`` has facts that no other stage has.
    """

    method: str
    hyperparameters: dict[str, Any]
    trials: pd.DataFrame

    @property
    def confirmed(self) -> "pd.Series[Any]":
        """The row of the chosen hyperparameters on the facts that chose nothing but between the finalists."""
        return self.trials[self.trials["stage"] == CONFIRMATION].iloc[0]


def tune(
    model: str,
    method: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    facts: str | Path = "bundled",
    n_confirm: int = 20,
    store: str | Path | Store | None = None,
    cluster: str | None = None,
    seed: int = 0,
    after_stage: Callable[[pd.DataFrame], object] = lambda _: None,
) -> Tuning:
    """Find hyperparameters with which a method edits a model well.

    Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943) over the stages of `SPACES`: in each, the
    candidates edit the same few facts, and the best go on, with more facts and with every combination of the next
    stage's values; ROME averages over 5 of its 21 contexts there, which takes less than half of the time. The best two
    then edit `n_confirm` facts that no stage has seen, in all contexts. A candidate's merit is
    generalization + locality − KL (at most 1), and 10 times less for what each of `TARGETS` lacks.

    Every trial is a trajectory of a store, so that an interrupted search continues where it was, and candidates that
    differ in nothing but facts share their edits.

    Parameters
    ----------
    model, dtype, device : str
        The model, as for `workbench.load`.
    method : str
        ``"rome"``, which edits one fact at a time, or ``"memit"``, which edits all facts of a stage in one operation.
    facts : str or Path
        Source of the facts, as for `load_facts`; those with words before the subject are used.
    n_confirm : int
        Number of facts of the confirmation.
    store, cluster : optional
        As for `workbench.run`.
    seed : int
        Seed of the draws of facts and of the context templates.
    after_stage : callable
        Called with the trials of each stage.

    Returns
    -------
    Tuning

    Raises
    ------
    SpecError
        If the method cannot be tuned.
    RequestError
        If there are too few facts for the stages and the confirmation.
    RunError
        As `workbench.run`.
    """
    check_tunable(method)
    lm = load_model(model, dtype, device=device)
    shown = load_facts(facts).with_words_before_subject().sample(_N_SIZED, seed=seed)
    start, stages = SPACES[method](lm, list(shown))
    if method == "memit":  # all layers that are tried in one pass over the text
        SecondMoment().compute(lm, sorted({layer for choice in stages[0].axes[0] for layer in choice["layers"]}))
    store, found = open_store(store), list[pd.DataFrame]()
    base = {"model": model, "dtype": dtype, "method": method, "seed": seed, "tasks": None, "perplexity": None}
    base |= {"edit_protocols": ("teacher_forced", "natural")}

    few = {"contexts": sample_contexts(lm, seed=seed)[::_EVERY_CONTEXT]} if method == "rome" else {}

    def try_all(
        stage: Stage, candidates: Sequence[Mapping[str, Any]], facts_seed: int, shared: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        drawn = {"source": str(facts), "seed": facts_seed, "words_before_subject": True}
        fields = {**base, "facts": drawn}
        runs = resolve_all([_spec(fields, {**candidate, **shared}, stage.n_facts) for candidate in candidates])
        edits = select_edit_metrics(run_resolved(runs, store, cluster=cluster, device=device))
        trials = _score(runs, edits, store, candidates)
        trials.insert(0, "stage", stage.name)
        trials.insert(1, "n_facts", stage.n_facts)
        found.append(trials)
        after_stage(trials)
        return [dict(candidates[i]) for i in trials.index[: stage.keep]]

    survivors: list[dict[str, Any]] = [start]
    for stage in stages:
        survivors = try_all(stage, _cross(survivors, stage.axes), seed, few)
    unseen = _seed_of_other_facts(facts, seed, max(stage.n_facts for stage in stages), n_confirm)
    [best] = try_all(Stage(CONFIRMATION, (), n_confirm, 1), survivors[:_FINALISTS], unseen, {})
    return Tuning(method, best, pd.concat(found, ignore_index=True))


def _cross(candidates: Sequence[Mapping[str, Any]], axes: Sequence[Choices]) -> list[dict[str, Any]]:
    """Return every candidate with every combination of choices, each once."""
    combined = [
        {**each, **{name: value for choice in chosen for name, value in choice.items()}}
        for each in candidates
        for chosen in product(*axes)
    ]
    seen: list[dict[str, Any]] = []
    for each in combined:
        if each not in seen:
            seen.append(each)
    return seen


def _spec(base: Mapping[str, Any], fields: Mapping[str, Any], n_facts: int) -> ExperimentSpec:
    together = method_row(base["method"]).supports_batch
    size: dict[str, Any] = {"batch_size": n_facts, "n_operations": 1} if together else {"n_operations": n_facts}
    return ExperimentSpec(**base, **size, hyperparameters=dict(fields), setting="single", checkpoints=(0,))


def _score(
    runs: Sequence[ResolvedRun], edits: pd.DataFrame, store: Store, candidates: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Return a row per candidate, the best first, with the candidate's number as index."""
    rows = []
    for run, candidate in zip(runs, candidates, strict=True):
        own = edits[edits["trajectory"] == run.key]
        scores = {
            name: own.loc[(own["metric"] == m) & (own["protocol"] == p), "value"] for (m, p), name in _READ.items()
        }
        operations = store.operations([run.key])
        means = {name: float(value.mean()) for name, value in scores.items()}
        means["kl"] = float(operations["probe_kl"].mean())
        means["seconds"] = float(operations["seconds"].sum() / run.spec.n_facts)
        rows.append({**candidate, **means, "merit": merit(means)})
    return pd.DataFrame(rows).sort_values("merit", ascending=False, kind="stable")


def merit(scores: Mapping[str, float]) -> float:
    """Return what a search maximizes, from reliability, natural, generalization, locality and kl; see `tune`.

    Scores that are missing because no edit succeeded make it −∞.
    """
    short = sum(max(0.0, least - scores[name]) for name, least in TARGETS.items())
    value = scores["generalization"] + scores["locality"] - min(scores["kl"], 1.0) - _SHORTFALL * short
    return value if value == value else float("-inf")


def _seed_of_other_facts(source: str | Path, seed: int, n_seen: int, n: int) -> int:
    """Return the first seed after another whose draw has none of its facts."""
    facts = load_facts(source).with_words_before_subject()
    seen = set(facts.sample(n_seen, seed=seed))
    for other in range(seed + 1, seed + _TRIED_SEEDS):
        if not seen.intersection(facts.sample(n, seed=other)):
            return other
    raise SpecError(f"{source} has too few facts to confirm on {n} others than the {n_seen} that chose.")
