"""The eight abilities of a model: its answers to the examples of tasks, and their scores with intervals."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from workbench.arguments import checked
from workbench.data.records import Rejected
from workbench.data.tasks.examples import TaskExample
from workbench.data.tasks.load import TaskData, load_task
from workbench.errors import DataError, SpecError
from workbench.evaluation.engine import Answer, Query, answer_queries, count_tokens
from workbench.evaluation.statistics import summarize
from workbench.evaluation.tasks import TASKS, find_tasks
from workbench.evaluation.tasks.choices import AUC, UNWRITTEN, compare_choices
from workbench.evaluation.tasks.task import (
    LOG_LIKELIHOOD,
    LOG_LIKELIHOOD_PER_BYTE,
    PROTOCOLS,
    Ratio,
    Scores,
    Task,
    TaskProtocol,
)
from workbench.lm import LanguageModel

log = logging.getLogger(__name__)

DataSource = str | Path | Mapping[str, str | Path] | None


@dataclass(frozen=True)
class TaskRun:
    """Answers of a model to the examples of one task.

    Attributes
    ----------
    task : Task
        The task that was asked.
    data : TaskData
        The examples that were asked, with their source and split.
    protocol : str
        The protocol of prompts and scores.
    answers : tuple of tuple of Answer
        For each example, the answers to its queries.
    written : bool
        Whether answers were decoded; without them, scores are those that need none.
    """

    task: Task[Any]
    data: TaskData
    protocol: TaskProtocol
    answers: tuple[tuple[Answer, ...], ...]
    written: bool = True

    def scores(self) -> pd.DataFrame:
        """Return the scores of each example.

        Returns
        -------
        DataFrame
            One row per example and metric; columns task, metric, protocol, source, split, example (index), value,
            weight. The score of the task is the weighted mean of the values. `choice_auc` and `majority_share` compare
            the examples of this run with each other (`workbench.evaluation.tasks.choices.compare_choices`).
        """
        rows = []
        for i, scores in enumerate(self._score_examples()):
            for metric, score in scores.items():
                ratio = score if isinstance(score, Ratio) else Ratio(score, 1.0)
                value = ratio.numerator / ratio.denominator if ratio.denominator else math.nan
                origin = (self.protocol, self.data.source, self.data.split)
                rows.append((self.task.name, metric, *origin, i, value, ratio.denominator))
        columns = ["task", "metric", "protocol", "source", "split", "example", "value", "weight"]
        return pd.DataFrame(rows, columns=columns)

    def _score_examples(self) -> list[Scores]:
        """Return the scores of each example; without written answers, those that need none."""
        pairs = list(zip(self.data.examples, self.answers, strict=True))
        compared: list[Scores] = [{} for _ in pairs]
        if self.task.choose is not None:
            compared = compare_choices([self.task.choose(*pair, self.protocol) for pair in pairs])
        scores = [
            {
                **self.task.score(example, answers, self.protocol),
                **of_choice,
                **_score_references(self.task.ask(example, self.protocol), answers),
            }
            for (example, answers), of_choice in zip(pairs, compared, strict=True)
        ]
        if self.written:
            return scores
        return [{metric: score for metric, score in one.items() if metric in UNWRITTEN} for one in scores]

    def outputs(self) -> pd.DataFrame:
        """Return the answer to each example.

        Returns
        -------
        DataFrame
            One row per example; columns task, example (index), prompt (of its first query), expected, answered, and
            one per metric.
        """
        rows = []
        for i, (example, answers) in enumerate(zip(self.data.examples, self.answers, strict=True)):
            expected, answered = self.task.show(example, answers, self.protocol)
            prompt = self.task.ask(example, self.protocol)[0].prompt
            rows.append((self.task.name, i, prompt, expected, answered))
        answers_shown = pd.DataFrame(rows, columns=["task", "example", "prompt", "expected", "answered"])
        metrics = self.scores().pivot(index="example", columns="metric", values="value")
        return answers_shown.join(metrics, on="example")


def _score_references(queries: Sequence[Query], answers: Sequence[Answer]) -> Scores:
    """Return the log-likelihood of an example's reference answers, in nats per token and per byte.

    The nats, tokens and UTF-8 bytes of all queries of the example are summed before the division, and every example
    counts once, whatever the length of its reference. A space before a reference belongs to its first token but not to
    its bytes. The end of the answer is not part of it: after the gold number 5, the model may continue with 50.
    """
    known = [
        (answer.reference, len(query.reference.encode()))
        for query, answer in zip(queries, answers, strict=True)
        if answer.reference is not None
    ]
    if not known:
        return {LOG_LIKELIHOOD: Ratio(0, 0), LOG_LIKELIHOOD_PER_BYTE: Ratio(0, 0)}
    nats = sum(reference.log_likelihood for reference, _ in known)
    n_tokens = sum(reference.n_tokens for reference, _ in known)
    return {LOG_LIKELIHOOD: nats / n_tokens, LOG_LIKELIHOOD_PER_BYTE: nats / sum(n_bytes for _, n_bytes in known)}


@checked
def ask_tasks(
    lm: LanguageModel,
    *,
    tasks: str | Sequence[str] = "all",
    limit: int | None = None,
    protocol: TaskProtocol = "standard",
    data: DataSource = None,
    batch_size: int = 32,
    written: bool = True,
) -> list[TaskRun]:
    """Ask the current model the examples of some tasks, and return its answers.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed. Answers of the unedited model are kept in its memo.
    tasks : str or sequence of str
        ``"all"``, or names of `workbench.evaluation.tasks.TASKS`.
    limit : int, optional
        Number of examples per task: the first `limit` that fit the model; all by default. Examples that are too long
        are logged as a warning and added to the rejected records.
    protocol : str
        ``"standard"`` or ``"paper"``.
    data : str, Path or mapping, optional
        Source of the examples: ``"bundled"``, ``"hub"``, a folder or, for one task, a file; or a mapping from task
        names to such sources. By default the folder in the environment variable WORKBENCH_DATA, or the bundled sets.
    batch_size : int
        Number of prompts per forward pass; it affects time and memory, not the answers.
    written : bool
        Whether written answers are decoded, which takes most of the time. Without them there are only the scores that
        need none, and they are the same: log-likelihoods of the reference answers, and choices between options.

    Returns
    -------
    list of TaskRun
        One per task, in the order of `tasks`.

    Raises
    ------
    SpecError
        If a task or protocol is unknown, `limit` or `batch_size` is below 1, or `data` names a task that is not asked.
    DataError
        If a task's examples cannot be loaded, or none of them fits the model.
    """
    chosen = find_tasks(tasks)
    _check_settings(protocol, limit, batch_size)
    loaded = [load_task(task.name, _source_of(task, data, chosen)) for task in chosen]
    return _run_tasks(lm, loaded, protocol, limit=limit, batch_size=batch_size, written=written)


def run_task(
    lm: LanguageModel,
    data: TaskData,
    *,
    protocol: TaskProtocol = "standard",
    limit: int | None = None,
    batch_size: int = 32,
    written: bool = True,
) -> TaskRun:
    """Ask the current model the examples of one task that are already loaded, and return its answers.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed. Answers of the unedited model are kept in its memo.
    data : TaskData
        The examples, as from `load_task`.
    protocol, limit, batch_size, written
        As for `ask_tasks`.

    Returns
    -------
    TaskRun

    Raises
    ------
    SpecError
        If the protocol is unknown, or `limit` or `batch_size` is below 1.
    DataError
        If no example fits the model.
    """
    _check_settings(protocol, limit, batch_size)
    [run] = _run_tasks(lm, [data], protocol, limit=limit, batch_size=batch_size, written=written)
    return run


@checked
def evaluate_tasks(
    lm: LanguageModel,
    *,
    tasks: str | Sequence[str] = "all",
    limit: int | None = None,
    protocol: TaskProtocol = "standard",
    data: DataSource = None,
    batch_size: int = 32,
    written: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the current model on the eight abilities, with intervals.

    Parameters
    ----------
    lm, tasks, limit, protocol, data, batch_size, written
        As for `ask_tasks`.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row per task and metric; columns task, metric, protocol, source, split, value, n (examples), low, high
        (95 % interval over examples). The headline metric of a task is `TASKS[task].headline[protocol]`.
        Every task has the smooth scores `log_likelihood` and `log_likelihood_per_byte` (nats per token and per byte of
        the reference answer, given the prompt); tasks with options have `choice_auc` (0.5 is random ranking), the mean
        `choice_margin` in nats, and `majority_share` (share of the most frequent choice) beside their accuracies.

    Raises
    ------
    SpecError, DataError
        As `ask_tasks`.
    """
    runs = ask_tasks(lm, tasks=tasks, limit=limit, protocol=protocol, data=data, batch_size=batch_size, written=written)
    return summarize_runs(runs, seed=seed)


def summarize_runs(runs: Sequence[TaskRun], *, seed: int = 0) -> pd.DataFrame:
    """Return the table of `evaluate_tasks` for answers that are already computed."""
    scores = pd.concat([run.scores() for run in runs], ignore_index=True)
    return summarize_examples(scores, ["task", "metric", "protocol", "source", "split"], seed=seed)


def summarize_examples(scores: pd.DataFrame, by: list[str], *, seed: int = 0) -> pd.DataFrame:
    """Return the table of `summarize` for scores of examples, with the intervals of `choice_auc` cut to 0 to 1."""
    table = summarize(scores, by, seed=seed)
    is_auc = table["metric"] == AUC  # its values are not bounded, only their mean is
    table.loc[is_auc, ["low", "high"]] = table.loc[is_auc, ["low", "high"]].clip(0, 1)
    return table


def select_headlines(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of an `evaluate_tasks` table that hold headline metrics, with title and floor of each task.

    Parameters
    ----------
    table : DataFrame
        A table with the columns task, metric and protocol.

    Returns
    -------
    DataFrame
        One row per task and protocol; columns title and floor added.
    """
    is_headline = [TASKS[t].headline[p] == m for t, m, p in zip(table.task, table.metric, table.protocol, strict=True)]
    chosen = table[np.array(is_headline, dtype=bool)]
    return chosen.assign(title=[TASKS[t].title for t in chosen.task], floor=[TASKS[t].floor for t in chosen.task])


def _check_settings(protocol: str, limit: int | None, batch_size: int) -> None:
    if protocol not in PROTOCOLS:
        raise SpecError(f"protocol {protocol!r} is not known; known: {', '.join(PROTOCOLS)}.")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise SpecError(f"limit must be a whole number of at least 1; got {limit!r}.")
    if batch_size < 1:
        raise SpecError(f"batch_size must be at least 1; got {batch_size}.")


def _run_tasks(
    lm: LanguageModel,
    loaded: Sequence[TaskData],
    protocol: TaskProtocol,
    *,
    limit: int | None,
    batch_size: int,
    written: bool,
) -> list[TaskRun]:
    selected = [_select_examples(lm, data, protocol, limit) for data in loaded]
    runs = []
    with tqdm(total=sum(len(of_example) for _, queries in selected for of_example in queries), unit="query") as bar:
        for data, queries in selected:
            task = TASKS[data.task]
            bar.set_description(task.title)
            flat = [query for of_example in queries for query in of_example]
            answers = iter(answer_queries(lm, flat, batch_size=batch_size, written=written, bar=bar))
            by_example = tuple(tuple(next(answers) for _ in of_example) for of_example in queries)
            runs.append(TaskRun(task, data, protocol, by_example, written))
    return runs


def _select_examples(
    lm: LanguageModel, data: TaskData, protocol: TaskProtocol, limit: int | None
) -> tuple[TaskData, list[tuple[Query, ...]]]:
    """Return the first examples that fit the model, and their queries; those too long are logged and rejected."""
    task = TASKS[data.task]
    longest = lm.max_tokens or math.inf
    left_out = {rejected.index for rejected in data.rejected}
    records = (i for i in count() if i not in left_out)
    kept: list[TaskExample] = []
    kept_queries: list[tuple[Query, ...]] = []
    too_long: list[Rejected] = []
    for i, example in zip(records, data.examples, strict=False):
        if len(kept) == limit:
            break
        queries = task.ask(example, protocol)
        n = max(count_tokens(lm, query) for query in queries)
        if n <= longest:
            kept.append(example)
            kept_queries.append(queries)
        else:
            too_long.append(Rejected(i, f"{n} tokens, more than the {longest} that {lm.name} takes."))
    if not kept:
        raise DataError(f"{data.source} has no example for {task.name} that fits; {too_long[0]}")
    if too_long:
        log.warning("%s: examples left out as too long: %d; %s", data.source, len(too_long), too_long[0])
    return replace(data, examples=tuple(kept), rejected=(*data.rejected, *too_long)), kept_queries


def _source_of(task: Task[Any], data: DataSource, chosen: Sequence[Task[Any]]) -> str | Path | None:
    if not isinstance(data, Mapping):
        return data
    asked = [other.name for other in chosen]
    for name in data:
        if name not in asked:
            raise SpecError(f"data names the task {name!r}, which is not asked; asked: {', '.join(asked)}.")
    return data.get(task.name)
