"""Measurements of a model in a state: edits, tasks, perplexity and weights, kept in the store by content."""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch

from workbench.data.tasks.load import TaskData
from workbench.errors import RunError
from workbench.evaluation.abilities import run_task
from workbench.evaluation.edits import EditProtocol, score_edits
from workbench.evaluation.perplexity import perplexity
from workbench.evaluation.statistics import summarize
from workbench.experiment.cache_keys import data_key, key_of, perplexity_text_key
from workbench.experiment.spec import PerplexitySpec, TasksSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate
from workbench.weightstats import weight_change

EDITS, WEIGHTS = "edits", "weights"  # in the column task, beside the eight tasks and perplexity
BEFORE, AFTER_EDIT, NOW = "before", "after_edit", "now"  # in the column moment, for edits


def measure_edits(
    lm: LanguageModel, store: Store, state: str, requests: Sequence[EditRequest], protocols: Sequence[EditProtocol]
) -> pd.DataFrame:
    """Return the scores of each request on the current model, which is in `state`: the columns of `score_edits`.

    Each request has its own number in the column request, from 0.
    """
    key = key_of("edits", state, tuple(requests), protocols)
    return _keep(store, key, lambda: score_edits(lm, requests, protocols=protocols))


def measure_tasks(
    lm: LanguageModel, store: Store, state: str, asked: TasksSpec, tasks: Sequence[TaskData]
) -> pd.DataFrame:
    """Return the scores of each example of each task on the current model: the columns of `TaskRun.scores`.

    The answers go to the store, where `read_answers` finds them.
    """
    parts = []
    for data in tasks:
        key = _task_key(state, asked, data)
        parts.append(_keep(store, key, partial(_ask, lm, store, key, asked, data)))
    return pd.concat(parts, ignore_index=True)


def read_answers(store: Store, state: str, asked: TasksSpec, data: TaskData) -> pd.DataFrame:
    """Return the stored answers of the model in `state` to a task, as from `TaskRun.outputs`."""
    answers = store.read_table(f"answers/{_task_key(state, asked, data)}.parquet")
    if answers is None:
        raise RunError(f"the store {store.url} holds no answers to {data.task} of this trajectory; run it again.")
    return answers


def _ask(lm: LanguageModel, store: Store, key: str, asked: TasksSpec, data: TaskData) -> pd.DataFrame:
    run = run_task(lm, data, limit=asked.limit, protocol=asked.protocol)
    store.write_table(f"answers/{key}.parquet", run.outputs())
    return run.scores()


def _task_key(state: str, asked: TasksSpec, data: TaskData) -> str:
    return key_of("task", state, asked.protocol, asked.limit, data.source, data.split, data_key(data))


def measure_perplexity(lm: LanguageModel, store: Store, state: str, asked: PerplexitySpec) -> pd.DataFrame:
    """Return the perplexity of a text of the package: the row of `perplexity`."""
    key = key_of("perplexity", state, perplexity_text_key(asked.text), asked.window, asked.limit)
    return _keep(store, key, lambda: perplexity(lm, asked.text, window=asked.window, limit=asked.limit))


def measure_weights(lm: LanguageModel, store: Store, state: str, total: WeightUpdate) -> pd.DataFrame:
    """Return how far the weights of a state are from the unedited ones: the rows of `weight_change`, and both norms."""
    return _keep(store, key_of("weights", state), lambda: _weights(lm, total))


def _weights(lm: LanguageModel, total: WeightUpdate) -> pd.DataFrame:
    with lm.unedited():
        changes = weight_change(total, lm)
        rows = []
        for name in total:
            W = lm.weight(name)
            norms = {"weight_norm_before": W, "weight_norm": W + total.delta(name).to(W.device)}
            rows += [
                (name, metric, None, float(torch.linalg.vector_norm(matrix, dtype=torch.float64)))
                for metric, matrix in norms.items()
            ]
    return pd.concat([changes, pd.DataFrame(rows, columns=changes.columns)], ignore_index=True).astype({"at": float})


def summarize_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean, n and interval over facts or examples of each task, metric and moment."""
    return summarize(scores, ["task", "metric", "protocol", "source", "split", "moment"])


def _keep(store: Store, key: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    name = f"measures/{key}.parquet"
    table = store.read_table(name)
    if table is None:
        table = compute()
        store.write_table(name, table)
    return table
