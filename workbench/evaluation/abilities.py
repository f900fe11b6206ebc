"""The eight abilities of a model as it is now: asked, scored, with intervals."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from workbench.data.facts import Rejected
from workbench.data.tasks.load import TaskData, load_task
from workbench.errors import DataError, SpecError
from workbench.evaluation.engine import Answer, Query, answer_queries, n_tokens
from workbench.evaluation.statistics import summarize
from workbench.evaluation.tasks import TASKS, tasks_named
from workbench.evaluation.tasks.task import PROTOCOLS, Protocol, Ratio, Task
from workbench.lm import LanguageModel

log = logging.getLogger(__name__)

DataSource = str | Path | Mapping[str, str | Path] | None


@dataclass(frozen=True)
class TaskRun:
    """What a model answered to the examples of one task.

    Attributes
    ----------
    task : Task
        Which.
    data : TaskData
        The examples that were asked, with their source and split.
    protocol : str
        How.
    answers : tuple of tuple of Answer
        For each example the answers to its queries.
    """

    task: Task
    data: TaskData
    protocol: Protocol
    answers: tuple[tuple[Answer, ...], ...]

    def scores(self) -> pd.DataFrame:
        """Return task, metric, protocol, source, split, example (index), value, weight: a row an example and metric."""
        rows = []
        for i, (example, answers) in enumerate(zip(self.data.examples, self.answers, strict=True)):
            for metric, score in self.task.score(example, answers, self.protocol).items():
                ratio = score if isinstance(score, Ratio) else Ratio(score, 1.0)
                value = ratio.numerator / ratio.denominator if ratio.denominator else math.nan
                rows.append((self.task.name, metric, self.protocol, *self._where, i, value, ratio.denominator))
        columns = ["task", "metric", "protocol", "source", "split", "example", "value", "weight"]
        return pd.DataFrame(rows, columns=columns)

    def outputs(self) -> pd.DataFrame:
        """Return task, example (index), prompt (of its first query), expected, answered, and each metric's score."""
        rows = []
        for i, (example, answers) in enumerate(zip(self.data.examples, self.answers, strict=True)):
            expected, answered = self.task.show(example, answers, self.protocol)
            prompt = self.task.ask(example, self.protocol)[0].prompt
            rows.append((self.task.name, i, prompt, expected, answered))
        shown = pd.DataFrame(rows, columns=["task", "example", "prompt", "expected", "answered"])
        each = self.scores().pivot(index="example", columns="metric", values="value")
        return shown.join(each, on="example")

    @property
    def _where(self) -> tuple[str, str]:
        return self.data.source, self.data.split


def ask_tasks(
    lm: LanguageModel,
    *,
    tasks: str | Sequence[str] = "all",
    limit: int | None = None,
    protocol: Protocol = "standard",
    data: DataSource = None,
    batch_size: int = 32,
) -> list[TaskRun]:
    """Ask a model, as it is now, the examples of some tasks, and keep its answers.

    Parameters
    ----------
    lm : LanguageModel
        Not changed; what it answers unedited is kept in its memo and not computed again.
    tasks : str or sequence of str
        ``"all"``, or names of `workbench.evaluation.tasks.TASKS`.
    limit : int, optional
        The first so many examples of each task that fit the model; all by default. One that is too long is told in a
        warning and kept among the rejected.
    protocol : str
        ``"standard"`` or ``"paper"``.
    data : str, Path or mapping, optional
        ``"bundled"``, ``"hub"``, a folder or, for one task, a file; a mapping names one for each task. By default the
        folder in the environment variable WORKBENCH_DATA, or the bundled sets.
    batch_size : int
        Prompts in one forward pass; changes time and memory alone.

    Returns
    -------
    list of TaskRun
        In the order of the tasks asked for.

    Raises
    ------
    SpecError
        If a task or protocol is not known, `limit` or `batch_size` is below 1, or `data` names a task not asked.
    DataError
        If a task's examples cannot be had, or none of them fits the model.
    """
    chosen = tasks_named(tasks)
    if protocol not in PROTOCOLS:
        raise SpecError(f"protocol {protocol!r} is not known; known: {', '.join(PROTOCOLS)}.")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise SpecError(f"limit must be a whole number of at least 1; got {limit!r}.")
    if batch_size < 1:
        raise SpecError(f"batch_size must be at least 1; got {batch_size}.")
    asked = [
        (task, *_asked(lm, task, load_task(task.name, _source_of(task, data, chosen)), protocol, limit))
        for task in chosen
    ]
    runs = []
    with tqdm(total=sum(len(queries) for *_, each in asked for queries in each), unit="query") as bar:
        for task, fitting, each in asked:
            bar.set_description(task.title)
            flat = [query for queries in each for query in queries]
            answers = iter(answer_queries(lm, flat, batch_size=batch_size, bar=bar))
            said = tuple(tuple(next(answers) for _ in queries) for queries in each)
            runs.append(TaskRun(task, fitting, protocol, said))
    return runs


def evaluate_tasks(
    lm: LanguageModel,
    *,
    tasks: str | Sequence[str] = "all",
    limit: int | None = None,
    protocol: Protocol = "standard",
    data: DataSource = None,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of a model, as it is now, on the eight abilities, with intervals.

    Parameters
    ----------
    lm, tasks, limit, protocol, data, batch_size
        As for `ask_tasks`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns task, metric, protocol, source, split, value, n (examples), low, high (95 % bootstrap interval over
        examples). Which metric stands for a task says `TASKS[task].headline[protocol]`.

    Raises
    ------
    SpecError, DataError
        As `ask_tasks`.
    """
    runs = ask_tasks(lm, tasks=tasks, limit=limit, protocol=protocol, data=data, batch_size=batch_size)
    return summarize_runs(runs, seed=seed)


def summarize_runs(runs: Sequence[TaskRun], *, seed: int = 0) -> pd.DataFrame:
    """Scores with intervals, as `evaluate_tasks` gives them, of answers that are at hand."""
    scores = pd.concat([run.scores() for run in runs], ignore_index=True)
    return summarize(scores, ["task", "metric", "protocol", "source", "split"], seed=seed)


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of an `evaluate_tasks` table that stand for their tasks, with title and floor of each.

    Parameters
    ----------
    table : DataFrame
        With the columns task, metric and protocol.

    Returns
    -------
    DataFrame
        One row a task and protocol; columns title and floor added.
    """
    stands = [TASKS[t].headline[p] == m for t, m, p in zip(table.task, table.metric, table.protocol, strict=True)]
    chosen = table[np.array(stands, dtype=bool)]
    return chosen.assign(title=[TASKS[t].title for t in chosen.task], floor=[TASKS[t].floor for t in chosen.task])


def _asked(
    lm: LanguageModel, task: Task, data: TaskData, protocol: Protocol, limit: int | None
) -> tuple[TaskData, list[tuple[Query, ...]]]:
    """The first examples that the model has room for, and what they ask; those passed over are told and rejected."""
    longest = getattr(lm.model.config, "max_position_embeddings", None) or math.inf
    left_out = {rejected.index for rejected in data.rejected}
    records = (i for i in count() if i not in left_out)
    kept, asked, too_long = [], [], []
    for i, example in zip(records, data.examples, strict=False):
        if len(kept) == limit:
            break
        queries = task.ask(example, protocol)
        n = max(n_tokens(lm, query) for query in queries)
        if n <= longest:
            kept.append(example)
            asked.append(queries)
        else:
            too_long.append(Rejected(i, f"{n} tokens, more than the {longest} that {lm.name} takes."))
    if not kept:
        raise DataError(f"{data.source} has no example for {task.name} that fits; {too_long[0]}")
    if too_long:
        log.warning("%s: examples passed over, being too long: %d; %s", data.source, len(too_long), too_long[0])
    return replace(data, examples=tuple(kept), rejected=(*data.rejected, *too_long)), asked


def _source_of(task: Task, data: DataSource, chosen: Sequence[Task]) -> str | Path | None:
    if not isinstance(data, Mapping):
        return data
    asked = [other.name for other in chosen]
    for name in data:
        if name not in asked:
            raise SpecError(f"data names the task {name!r}, which is not asked; asked: {', '.join(asked)}.")
    return data.get(task.name)
