"""Pairs: stored scores of trajectories, joined one to one, before and after edits or under two regularizers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from workbench.evaluation.statistics import score_interval
from workbench.evaluation.tasks import TASKS
from workbench.evaluation.tasks.choices import AUC, AUC_FLOOR
from workbench.evaluation.tasks.task import LOG_LIKELIHOOD
from workbench.experiment.measures import AFTER_EDIT, EDITS
from workbench.experiment.store import Store

Array = npt.NDArray[np.float64]

# what makes a trajectory: runs that differ only in tasks, checkpoints or length are parts of one
TRAJECTORY = ["model", "dtype", "method", "hyperparameters", "regularizer", "setting", "batch_size", "facts"]
TRAJECTORY += ["draw", "seed"]
STRATUM = ["task", "metric", "protocol", "source", "split"]
_TEXTS = [*STRATUM, "moment"]
_ONE_SIDED = 0.9  # confidence of an interval whose lower end is exceeded with 95 %


@dataclass(frozen=True)
class Paired:
    """Values of two arms: one pair of matrices per stratum, one row per unit, one column per example.

    Attributes
    ----------
    first, second : tuple of array (J, E_k)
        The values of each arm.
    abilities : str
        Names of the strata.
    facts : str
        Source of the facts.
    """

    first: tuple[Array, ...]
    second: tuple[Array, ...]
    abilities: str
    facts: str


@dataclass(frozen=True)
class Runs:
    """Scores and results of stored trajectories of one model.

    Attributes
    ----------
    scores : DataFrame
        One row per trajectory (the columns `TRAJECTORY`), checkpoint, score and example, whatever number of stored runs
        measured it.
    results : DataFrame
        Likewise for numbers without examples: perplexity, drift, weights.
    """

    scores: pd.DataFrame
    results: pd.DataFrame

    @classmethod
    def read(cls, store: Store, model: str) -> "Runs":
        """Read the finished trajectories of a model, under whatever hyperparameters.

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
        records = store.trajectories().items()
        dtypes = {
            key: each["spec"]["dtype"] for key, each in records if each["finished"] and each["spec"]["model"] == model
        }
        tables = [store.scores(list(dtypes)), store.results(list(dtypes))]
        return cls.of(*(table.assign(dtype=table["trajectory"].map(dtypes)) for table in tables))

    @classmethod
    def of(cls, scores: pd.DataFrame, results: pd.DataFrame) -> "Runs":
        """Join the rows of runs that are parts of one trajectory; rows without `draw` are left out.

        Of several runs, the one that measured most examples of a task counts. Scores of facts right after their edits
        are repeated at every later checkpoint, and count once.
        """
        used = {metric for task in TASKS.values() for metric in task.headline.values()} | {LOG_LIKELIHOOD, AUC}
        scores = _identified(scores[scores["metric"].isin(used) | (scores["task"] == EDITS)])
        after = scores["moment"] == AFTER_EDIT
        own = scores[after].drop_duplicates(["trajectory", *_TEXTS, "example"])
        by = [*TRAJECTORY, *_TEXTS]
        scores = pd.concat([_largest(scores[~after], [*by, "operation"]), _largest(own, by)], ignore_index=True)
        results = _identified(results)
        results = results[~results["task"].isin([*TASKS, EDITS])]
        place = [*TRAJECTORY, *_TEXTS, "parameter", "at", "operation"]
        return cls(scores, results.sort_values("trajectory").drop_duplicates(place))

    def abilities(self, **where: object) -> pd.DataFrame:
        """Return the scores of abilities above guessing, less what guessing gives, in examples that chose none of them.

        A share of them is a share of what the unedited model can do: an area under the curve that falls from 0.9 to 0.5
        leaves nothing.
        """
        return select(self._of_abilities, where)

    def smooth(self, **where: object) -> pd.DataFrame:
        """Return the log-likelihoods of reference answers, of all tasks."""
        rows = self.scores[(self.scores["metric"] == LOG_LIKELIHOOD) & self.scores["task"].isin(list(TASKS))]
        return select(rows, where)

    def edits(self, metric: str, protocol: str, **where: object) -> pd.DataFrame:
        """Return the scores of facts right after their edits, one row per fact."""
        fixed = {"task": EDITS, "metric": metric, "protocol": protocol, "moment": AFTER_EDIT}
        return select(self.scores, {**fixed, **where})

    @cached_property
    def _of_abilities(self) -> pd.DataFrame:
        chosen = self.scores.merge(self._above_guessing, on=["dtype", *STRATUM], validate="many_to_one")
        chosen["value"] -= chosen.pop("floor")
        return chosen[~_chooses(chosen)]

    @cached_property
    def _above_guessing(self) -> pd.DataFrame:
        """Headline scores in which the unedited model is above guessing; where only its ranking is, that."""
        rows = self.scores[(self.scores["operation"] == 0) & self.scores["task"].isin(list(TASKS))]
        rows = rows[_chooses(rows)].drop_duplicates(["dtype", *STRATUM, "example"])
        headlines = {(name, p, m) for name, task in TASKS.items() for p, m in task.headline.items()}
        found: dict[tuple[str, ...], tuple[object, ...]] = {}
        for is_headline in (True, False):
            for key, part in rows.groupby(["dtype", *STRATUM], sort=True):
                dtype, task, metric, protocol, source, split = map(str, key)
                floor = TASKS[task].floor if is_headline else AUC_FLOOR
                if (task, protocol, metric) in headlines if is_headline else metric == AUC:
                    values, weights = part["value"].to_numpy(), part["weight"].to_numpy()
                    low, _ = score_interval(values, weights=weights, confidence=_ONE_SIDED)
                    if low > floor:
                        found.setdefault((dtype, task, protocol, source, split), (*map(str, key), floor))
        above = pd.DataFrame(list(found.values()), columns=["dtype", *STRATUM, "floor"])
        return above.astype(dict.fromkeys(["dtype", *STRATUM], "str") | {"floor": float})


def select(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """Return the rows whose columns have the given values."""
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    return table


def largest_group(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the source of facts and batch size with the most draws; of equal ones, the largest batches.

    Facts of one kind, such as those whose prompt opens with the subject, are never mixed with others.
    """
    if table.empty:
        return table
    counts = table.groupby(["facts", "batch_size"])["draw"].nunique().reset_index()
    best = counts.sort_values(["draw", "batch_size", "facts"], ascending=[False, False, True]).iloc[0]
    return table[(table["facts"] == best["facts"]) & (table["batch_size"] == best["batch_size"])]


def reach(table: pd.DataFrame, *, enough: int) -> int:
    """Return the number of operations that a comparison goes to: the largest that `enough` draws reach, or most do."""
    counts = table[table["operation"] > 0].groupby("operation")["draw"].nunique()
    if counts.empty:
        return 0
    return int(counts.index[counts >= min(enough, counts.max())].max())


def pair(first: pd.DataFrame, second: pd.DataFrame, unit: Sequence[str]) -> Paired | None:
    """Join two arms one to one, and keep the units and examples that make a full design.

    Tasks are kept if the most units have them, units if they have all of those, examples if all of those units have
    them. Seeds that share a draw are averaged. The mean of weighted scores is linearized: m + w (v − m) / mean(w) has
    the weighted mean m as its mean, and its variance to first order.

    Parameters
    ----------
    first, second : DataFrame
        Rows of `Runs.scores`.
    unit : sequence of str
        Columns that identify an independent unit.

    Returns
    -------
    Paired or None
        None if nothing has a partner.

    Raises
    ------
    pandas.errors.MergeError
        If a row has several partners.
    """
    by = [*unit, "seed", *STRATUM]
    columns = [*by, "example", "value", "weight"]
    joined = first[columns].merge(second[columns], on=[*by, "example"], suffixes=("_1", "_2"), validate="one_to_one")
    for arm in ("1", "2"):
        joined[f"value_{arm}"] = _linearized(joined, by, f"value_{arm}", f"weight_{arm}")
    joined = joined.dropna(subset=["value_1", "value_2"])
    if joined.empty:
        return None
    joined["unit"] = joined.groupby(list(unit), dropna=False).ngroup()
    means = joined.groupby(["unit", *STRATUM, "example"], as_index=False)[["value_1", "value_2"]].mean()
    counts = means.groupby(STRATUM)["unit"].nunique()
    strata = counts.index[counts == counts.max()]
    of_unit = means[["unit", *STRATUM]].drop_duplicates().set_index(STRATUM).loc[strata].groupby("unit").size()
    units = of_unit.index[of_unit == len(strata)]
    names, arms = [], ([], [])  # type: tuple[list[str], tuple[list[Array], list[Array]]]
    for key, part in means[means["unit"].isin(units)].groupby(STRATUM):
        wide = part.pivot(index="example", columns="unit", values=["value_1", "value_2"]).dropna()
        if key in strata and len(wide):
            names.append(str(key[0]) + f" ({AUC})" * (key[1] == AUC))
            for matrices, name in zip(arms, ("value_1", "value_2"), strict=True):
                matrices.append(wide[name].to_numpy().T)
    if not names:
        return None
    return Paired(tuple(arms[0]), tuple(arms[1]), ", ".join(names), str(first["facts"].iloc[0]))


def area_under_curves(scores: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of each example over numbers of edits: the area under its curve, divided by the range.

    Parameters
    ----------
    scores : DataFrame
        Rows of `Runs.scores` at several checkpoints, by the trapezoidal rule.

    Returns
    -------
    DataFrame
        One row per trajectory, score and example; weights are averaged likewise.
    """
    by = [*TRAJECTORY, *STRATUM, "example"]
    ordered = scores.sort_values([*by, "n_edits"])
    groups = ordered.groupby(by, sort=False)
    width = groups["n_edits"].diff()
    areas = {name: width * (ordered[name] + groups[name].shift()) / 2 for name in ("value", "weight")}
    sums = ordered.assign(width=width, **areas).groupby(by, sort=False, as_index=False)[["width", *areas]].sum()
    sums = sums[sums["width"] > 0]
    return sums.assign(value=sums["value"] / sums["width"], weight=sums["weight"] / sums["width"])


def share_checkpoints(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of two arms at checkpoints, and of examples, that both have."""
    place = ["draw", "seed", *STRATUM, "example", "operation"]
    both = first[place].merge(second[place], on=place, validate="one_to_one")
    return first.merge(both, on=place), second.merge(both, on=place)


def _linearized(table: pd.DataFrame, by: list[str], value: str, weight: str) -> "pd.Series[float]":
    w, v = table[weight], table[value].where(table[weight] > 0)
    keys = [table[name] for name in by]
    totals = (w * v).groupby(keys).transform("sum") / w.groupby(keys).transform("sum")
    return totals + w / w.groupby(keys).transform("mean") * (v.fillna(0) - totals)


def _chooses(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which examples choose the abilities; the others compare them."""
    return rows["example"] % 2 == 0


def _identified(table: pd.DataFrame) -> pd.DataFrame:
    known = table[table["draw"].notna()]
    present = [name for name in (*_TEXTS, "parameter") if name in known]
    texts = {name: known[name].astype("string").fillna("").astype("str") for name in present}
    return known.assign(**texts)


def _largest(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return, for each group, the rows of the run that has most of them; of equal ones, that with the first key."""
    sizes = rows.groupby([*by, "trajectory"], sort=False).size().reset_index(name="rows")
    first = sizes.sort_values(["rows", "trajectory"], ascending=[False, True]).drop_duplicates(by)
    return rows.merge(first[[*by, "trajectory"]], on=[*by, "trajectory"], validate="many_to_one")
