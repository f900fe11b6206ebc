"""Claims: the statements of Gu et al. 2024, tested on stored experiments: effect, interval, verdict.

Comparisons are paired: the same example, or the same fact, before and after edits, or under two regularizers. Pairs are
resampled together, within their task and seed. A claim holds if the 95 % bootstrap interval of its effect lies on the
claimed side of the bound, and does not hold if it lies on the other side. Otherwise, or with fewer than ten pairs,
there is not enough data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from workbench.evaluation.statistics import RESAMPLES, weighted_mean
from workbench.evaluation.tasks import TASKS
from workbench.experiment.measures import AFTER_EDIT, EDITS
from workbench.experiment.store import Store
from workbench.regularize import PCAK, RECT, RandomK, Unregularized

FloatArray = npt.NDArray[np.float64]
Combine = Callable[[FloatArray, FloatArray], FloatArray]

FEWEST_PAIRS = 10  # the intervals of a bootstrap of fewer are far too narrow
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not enough data"

PLAIN, RECT40, RANDOM40, PCA40 = (each.label for each in (Unregularized(), RECT(0.4), RandomK(0.4), PCAK(0.4)))

# columns that identify a pair, and those within which pairs are resampled
_STRATUM = ["facts", "seed", "task", "metric", "protocol", "source"]
_PAIR = [*_STRATUM, "example"]


@dataclass(frozen=True)
class Effect:
    """The measured quantity of a claim, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int  # pairs


@dataclass(frozen=True)
class Runs:
    """Scores and results of stored experiments.

    Attributes
    ----------
    scores : DataFrame
        Table of `Store.scores`.
    results : DataFrame
        Table of `Store.results`.
    """

    scores: pd.DataFrame
    results: pd.DataFrame

    @classmethod
    def read(cls, store: Store, model: str) -> "Runs":
        """Read the finished trajectories of a model with the preset of each method.

        Parameters
        ----------
        store : Store
            The store to read.
        model : str
            Name of the model in the specs.

        Returns
        -------
        Runs
        """
        trajectories = [
            trajectory
            for trajectory, record in store.trajectories().items()
            if record["finished"] and record["spec"]["model"] == model and not record["spec"]["hyperparameters"]
        ]
        scores, results = store.scores(trajectories), store.results(trajectories)
        # a trajectory may have been run with other tasks, or to other checkpoints
        identity = ["method", "regularizer", "setting", "batch_size", "operation", "moment", *_PAIR]
        return cls(scores.drop_duplicates(identity), results)

    def abilities(self, **where: object) -> pd.DataFrame:
        """Return the headline scores of tasks in which the unedited model is above chance."""
        return _select(self.scores[self._is_headline & self.scores["task"].isin(self._tasks_above_chance)], where)

    def edits(self, metric: str, **where: object) -> pd.DataFrame:
        """Return the scores of facts right after their edits, teacher forced as in the paper."""
        fixed = {"task": EDITS, "metric": metric, "protocol": "teacher_forced", "moment": AFTER_EDIT}
        return _select(self.scores, {**fixed, **where})

    @property
    def _is_headline(self) -> "pd.Series[bool]":
        headlines = {
            (name, metric, protocol) for name, task in TASKS.items() for protocol, metric in task.headline.items()
        }
        rows = zip(self.scores["task"], self.scores["metric"], self.scores["protocol"], strict=True)
        return pd.Series([row in headlines for row in rows], index=self.scores.index, dtype=bool)

    @property
    def _tasks_above_chance(self) -> list[str]:
        unedited = self.results[(self.results["operation"] == 0) & self.results["task"].isin(list(TASKS))]
        above = set()
        columns = (unedited[column] for column in ("task", "protocol", "metric", "low"))
        for name, protocol, metric, low in zip(*columns, strict=True):
            if TASKS[name].headline[protocol] == metric and low > TASKS[name].floor:
                above.add(name)
        return sorted(above)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, how it is measured, and the side of a bound on which the effect must lie."""

    statement: str
    measured: str
    bound: float
    above: bool
    effect: Callable[[Runs], Effect | None]


def judge_claims(runs: Runs) -> pd.DataFrame:
    """Judge every claim by the experiments with one model.

    Parameters
    ----------
    runs : Runs
        Stored experiments.

    Returns
    -------
    DataFrame
        Columns claim, measured, effect, low, high, bound, n (pairs), verdict.
    """
    rows = []
    for claim in CLAIMS:
        effect = claim.effect(runs) or Effect(np.nan, np.nan, np.nan, 0)
        bound = f"{'>' if claim.above else '<'} {claim.bound:g}"
        numbers = effect.value, effect.low, effect.high, bound, effect.n
        rows.append((claim.statement, claim.measured, *numbers, judge(claim, effect)))
    return pd.DataFrame(rows, columns=["claim", "measured", "effect", "low", "high", "bound", "n", "verdict"])


def judge(claim: Claim, effect: Effect) -> str:
    """Judge a claim by its effect.

    Parameters
    ----------
    claim : Claim
        The claim, with its bound.
    effect : Effect
        The measured effect, with its interval; NaN where there is none.

    Returns
    -------
    str
        `HOLDS`, `FAILS` or `UNDECIDED`.
    """
    over, under = effect.low > claim.bound, effect.high < claim.bound
    if over or under:
        return HOLDS if over == claim.above else FAILS
    return UNDECIDED


def compare_pairs(first: pd.DataFrame, second: pd.DataFrame, combine: Combine) -> Effect | None:
    """Compare the means of two sets of paired scores by their difference or ratio.

    Parameters
    ----------
    first, second : DataFrame
        Rows of `Store.scores`; rows without a partner in the other table are ignored.
    combine : callable
        Function of both means, each the mean over tasks and seeds of the means over examples.

    Returns
    -------
    Effect or None
        None if there are fewer pairs than `FEWEST_PAIRS`.
    """
    pairs = first.merge(second, on=_PAIR, suffixes=("_1", "_2"))
    if len(pairs) < FEWEST_PAIRS:
        return None
    generator = np.random.default_rng(0)
    means, resampled = [], []
    for _, part in pairs.groupby(_STRATUM, dropna=False):
        draws = generator.integers(len(part), size=(RESAMPLES, len(part)))
        columns = [(part[f"value_{i}"].to_numpy(), part[f"weight_{i}"].to_numpy()) for i in (1, 2)]
        means.append([weighted_mean(values, weights) for values, weights in columns])
        resampled.append([weighted_mean(values[draws], weights[draws]) for values, weights in columns])
    value = combine(*np.mean(means, axis=0))
    low, high = np.nanquantile(combine(*np.nanmean(resampled, axis=0)), [0.025, 0.975])
    return Effect(float(value), float(low), float(high), len(pairs))


def _difference(after: FloatArray, before: FloatArray) -> FloatArray:
    return after - before


def _share(after: FloatArray, before: FloatArray) -> FloatArray:
    return after / before


def _select(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    return table


def _fall(method: str, setting: str) -> Callable[[Runs], Effect | None]:
    """Effect: change of the abilities from the unedited model to the last checkpoint of the longest sequences."""

    def effect(runs: Runs) -> Effect | None:
        scores = runs.abilities(method=method, setting=setting, regularizer=PLAIN)
        scores = scores[scores["batch_size"] == scores["batch_size"].max()]
        last = scores[scores["operation"] == scores["operation"].max()]
        return compare_pairs(last, scores[scores["operation"] == 0], _difference)

    return effect


def _left_after_one(method: str) -> Callable[[Runs], Effect | None]:
    """Effect: share of the abilities that is left after the first edit."""

    def effect(runs: Runs) -> Effect | None:
        scores = runs.abilities(method=method, setting="sequential-instance", regularizer=PLAIN)
        return compare_pairs(scores[scores["operation"] == 1], scores[scores["operation"] == 0], _share)

    return effect


def _larger_batch(method: str) -> Callable[[Runs], Effect | None]:
    """Effect: abilities after one operation on the largest batch, minus those after the smallest."""

    def effect(runs: Runs) -> Effect | None:
        scores = runs.abilities(method=method, regularizer=PLAIN, operation=1)
        scores = scores[scores["setting"].str.startswith("single")]
        sizes = scores["batch_size"]
        return compare_pairs(scores[sizes == sizes.max()], scores[sizes == sizes.min()], _difference)

    return effect


def _growth(metric: str, at: float | None = None) -> Callable[[Runs], Effect | None]:
    """Effect: factor per edit by which a measure of the weights grows between the checkpoints of ROME sequences."""

    def effect(runs: Runs) -> Effect | None:
        rows = _select(runs.results, {"method": "ROME", "setting": "sequential-instance", "regularizer": PLAIN})
        rows = rows[(rows["metric"] == metric) & (rows["at"].isna() if at is None else rows["at"] == at)]
        rows = rows.drop_duplicates(["facts", "seed", "parameter", "operation"]).sort_values("operation")
        by_trajectory = rows.groupby(["facts", "seed", "parameter"])[["operation", "value"]]
        parts = [np.diff(np.log(part["value"])) / np.diff(part["operation"]) for _, part in by_trajectory]
        steps: FloatArray = np.concatenate([*parts, np.empty(0)])
        if len(steps) < 2:
            return None
        half = stats.t.ppf(0.975, len(steps) - 1) * steps.std(ddof=1) / np.sqrt(len(steps))
        value, low, high = np.exp([steps.mean(), steps.mean() - half, steps.mean() + half])
        return Effect(float(value), float(low), float(high), len(steps))

    return effect


def _editing(metric: str, regularizer: str, rival: str, combine: Combine) -> Callable[[Runs], Effect | None]:
    """Effect: score of single ROME edits under one regularizer, compared with that under another."""

    def effect(runs: Runs) -> Effect | None:
        rows = runs.edits(metric, method="ROME", setting="single-instance")
        first, second = (rows[rows["regularizer"] == label] for label in (regularizer, rival))
        return compare_pairs(first, second, combine)

    return effect


def _preserved(runs: Runs) -> Effect | None:
    """Effect: abilities at the last checkpoint of ROME sequences under RECT, minus those without it."""
    scores = runs.abilities(method="ROME", setting="sequential-instance")
    last = scores[scores["operation"] == scores["operation"].max()]
    return compare_pairs(last[last["regularizer"] == RECT40], last[last["regularizer"] == PLAIN], _difference)


_ABILITIES = "mean over the abilities in which the unedited model is above chance"
_OF_PLAIN = "share of the unregularized edit"
_FALL = "Abilities fall as sequential edits accumulate"
_BATCH = "Larger batches harm more"
_KEEPS = "RECT 40 % keeps at least 94 % of editing performance"
_BEATS = "RECT 40 % edits better than {}"

CLAIMS: tuple[Claim, ...] = (
    Claim(_FALL, f"ROME, last checkpoint − unedited; {_ABILITIES}", 0, False, _fall("ROME", "sequential-instance")),
    Claim(_FALL, "MEMIT in batches, the same", 0, False, _fall("MEMIT", "sequential-batch")),
    Claim(_FALL, "MEND in batches, the same", 0, False, _fall("MEND", "sequential-batch")),
    Claim("KN collapses at once", f"share left after one edit; {_ABILITIES}", 0.5, False, _left_after_one("KN")),
    Claim(_BATCH, f"MEMIT, largest − smallest batch; {_ABILITIES}", 0, False, _larger_batch("MEMIT")),
    Claim(_BATCH, "MEND, the same", 0, False, _larger_batch("MEND")),
    Claim(
        "The weights move further with every edit",
        "ROME, Manhattan distance, factor per edit",
        1,
        True,
        _growth("manhattan_distance"),
    ),
    Claim(
        "More entries change much, relative to their size",
        "ROME, 90 % quantile of δ, factor per edit",
        1,
        True,
        _growth("relative_change", 0.9),
    ),
    Claim(_KEEPS, f"reliability, {_OF_PLAIN}", 0.94, True, _editing("reliability", RECT40, PLAIN, _share)),
    Claim(
        _KEEPS,
        f"generalization, {_OF_PLAIN}",
        0.94,
        True,
        _editing("generalization", RECT40, PLAIN, _share),
    ),
    Claim(
        "RECT 40 % does not lower locality",
        "difference to the unregularized edit, with a margin of 0.01",
        -0.01,
        True,
        _editing("locality", RECT40, PLAIN, _difference),
    ),
    Claim(
        "RECT 40 % preserves abilities better",
        f"ROME, last checkpoint, difference to the unregularized edit; {_ABILITIES}",
        0,
        True,
        _preserved,
    ),
    *(
        Claim(_BEATS.format(rival), f"{metric}, difference", 0, True, _editing(metric, RECT40, rival, _difference))
        for rival in (RANDOM40, PCA40)
        for metric in ("reliability", "generalization")
    ),
)
