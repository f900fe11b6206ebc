"""What is measured of a model in a state: edits, tasks, perplexity, weights; kept in the store by content."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch

from workbench.data.tasks.load import load_task
from workbench.evaluation.abilities import ask_tasks
from workbench.evaluation.edits import EditProtocol, score_edits
from workbench.evaluation.perplexity import perplexity
from workbench.evaluation.statistics import summarize
from workbench.experiment.cache_keys import data_key, key_of
from workbench.experiment.spec import PerplexitySpec, TasksSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate
from workbench.weightstats import weight_change

EDITS, WEIGHTS = "edits", "weights"  # in the column task, beside the eight tasks and perplexity
BEFORE, AFTER_EDIT, NOW = "before", "after_edit", "now"  # in the column moment, of edits


def edit_scores(
    lm: LanguageModel, store: Store, state: str, requests: Sequence[EditRequest], protocols: Sequence[EditProtocol]
) -> pd.DataFrame:
    """Scores of each request on the model as it is now, which is in `state`: the columns of `score_edits`.

    Each in its own row of `request`, counted from 0.
    """
    key = key_of("edits", state, tuple(requests), protocols)
    return _kept(store, key, lambda: score_edits(lm, requests, protocols=protocols))


def task_scores(lm: LanguageModel, store: Store, state: str, tasks: TasksSpec) -> pd.DataFrame:
    """Scores of each example of each task on the model as it is now: the columns of `TaskRun.scores`.

    The answers go to the store, where `task_answers` finds them.
    """
    parts = []
    for name in tasks.tasks:
        key = _task_key(state, tasks, name)
        parts.append(_kept(store, key, lambda key=key, name=name: _asked(lm, store, key, tasks, name)))
    return pd.concat(parts, ignore_index=True)


def task_answers(store: Store, state: str, tasks: TasksSpec, name: str) -> pd.DataFrame | None:
    """What the model in `state` answered to a task: the columns of `TaskRun.outputs`; None if it was not asked."""
    return store.read_table(f"answers/{_task_key(state, tasks, name)}.parquet")


def _asked(lm: LanguageModel, store: Store, key: str, tasks: TasksSpec, name: str) -> pd.DataFrame:
    [run] = ask_tasks(lm, tasks=name, limit=tasks.limit, protocol=tasks.protocol, data=tasks.data)
    store.write_table(f"answers/{key}.parquet", run.outputs())
    return run.scores()


def _task_key(state: str, tasks: TasksSpec, name: str) -> str:
    data = load_task(name, tasks.data)
    return key_of("task", state, tasks.protocol, tasks.limit, data.source, data.split, data_key(data))


def perplexity_row(lm: LanguageModel, store: Store, state: str, asked: PerplexitySpec) -> pd.DataFrame:
    """Perplexity of the bundled paragraphs: the row of `perplexity`."""
    key = key_of("perplexity", state, asked.window, asked.limit)
    return _kept(store, key, lambda: perplexity(lm, window=asked.window, limit=asked.limit))


def weight_rows(lm: LanguageModel, store: Store, state: str, total: WeightUpdate) -> pd.DataFrame:
    """How far the weights of a state are from the unedited ones: the rows of `weight_change`, and both norms."""
    return _kept(store, key_of("weights", state), lambda: _weights(lm, total))


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
    """Mean, n and interval over facts or examples of each task, metric and moment."""
    return summarize(scores, ["task", "metric", "protocol", "source", "split", "moment"])


def _kept(store: Store, key: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    name = f"measures/{key}.parquet"
    found = store.read_table(name)
    if found is None:
        found = compute()
        store.write_table(name, found)
    return found
