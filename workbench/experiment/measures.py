"""Measurements of a model in a state: edits, tasks, perplexity, drift and weights, kept in the store by content."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch

from workbench.data.tasks.load import TaskData
from workbench.errors import RunError
from workbench.evaluation.abilities import run_task, summarize_examples
from workbench.evaluation.drift import drift
from workbench.evaluation.edits import EditProtocol, score_edits
from workbench.evaluation.perplexity import perplexity
from workbench.evaluation.tasks.choices import UNWRITTEN
from workbench.experiment.cache_keys import data_key, key_of, perplexity_text_key
from workbench.experiment.spec import DriftSpec, PerplexitySpec, TasksSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate
from workbench.weightstats import extreme_singular_values, weight_change

EDITS, WEIGHTS = "edits", "weights"  # in the column task, beside the eight tasks and perplexity
BEFORE, AFTER_EDIT, NOW = "before", "after_edit", "now"  # in the column moment, for edits


def measure_edits(
    lm: LanguageModel, store: Store, state: str, facts: Mapping[int, EditRequest], protocols: Sequence[EditProtocol]
) -> pd.DataFrame:
    """Return the scores of each fact on the current model, which is in `state`: the columns of `score_edits`.

    The column request holds the keys of `facts`.
    """
    requests = tuple(facts.values())
    key = key_of("edits", state, requests, protocols)
    scores = _keep(store, key, lambda: score_edits(lm, requests, protocols=protocols))
    return scores.assign(request=scores["request"].map(dict(enumerate(facts))))


def measure_tasks(
    lm: LanguageModel, store: Store, state: str, asked: TasksSpec, tasks: Sequence[TaskData], *, written: bool = True
) -> pd.DataFrame:
    """Return the scores of each example of each task on the current model: the columns of `TaskRun.scores`.

    Written answers go to the store, where `read_answers` finds them. Scores that need none are taken from a measurement
    with written answers, if the store holds one: they are the same.
    """
    measure = _measure_written if written else _measure_unwritten
    return pd.concat([measure(lm, store, state, asked, data) for data in tasks], ignore_index=True)


def _measure_written(lm: LanguageModel, store: Store, state: str, asked: TasksSpec, data: TaskData) -> pd.DataFrame:
    key = _task_key(state, asked, data, written=True)
    return _keep(store, key, partial(_ask, lm, store, key, asked, data))


def _measure_unwritten(lm: LanguageModel, store: Store, state: str, asked: TasksSpec, data: TaskData) -> pd.DataFrame:
    known = store.read_table(_file_of(_task_key(state, asked, data, written=True)))
    if known is not None:
        return known[known["metric"].isin(UNWRITTEN)].reset_index(drop=True)
    ask = partial(run_task, lm, data, limit=asked.limit, protocol=asked.protocol, written=False)
    return _keep(store, _task_key(state, asked, data, written=False), lambda: ask().scores())


def read_answers(store: Store, state: str, asked: TasksSpec, data: TaskData) -> pd.DataFrame:
    """Return the stored written answers of the model in `state` to a task, as from `TaskRun.outputs`."""
    answers = store.read_table(f"answers/{_task_key(state, asked, data, written=True)}.parquet")
    if answers is None:
        raise RunError(
            f"the store {store.url} holds no written answers to {data.task} of this trajectory; run it with the "
            "checkpoint in tasks.written_at, or without that field."
        )
    return answers


def _ask(lm: LanguageModel, store: Store, key: str, asked: TasksSpec, data: TaskData) -> pd.DataFrame:
    run = run_task(lm, data, limit=asked.limit, protocol=asked.protocol)
    store.write_table(f"answers/{key}.parquet", run.outputs())
    return run.scores()


def _task_key(state: str, asked: TasksSpec, data: TaskData, *, written: bool) -> str:
    kind = "written answers" if written else "log-likelihoods"
    return key_of("task", kind, state, asked.protocol, asked.limit, data.source, data.split, data_key(data))


def measure_perplexity(lm: LanguageModel, store: Store, state: str, asked: PerplexitySpec) -> pd.DataFrame:
    """Return the perplexity of a text of the package: the row of `perplexity`."""
    key = key_of("perplexity", state, perplexity_text_key(asked.text), asked.window, asked.limit)
    return _keep(store, key, lambda: perplexity(lm, asked.text, window=asked.window, limit=asked.limit))


def measure_drift(lm: LanguageModel, store: Store, state: str, asked: DriftSpec) -> pd.DataFrame:
    """Return the drift of the current model on the bundled paragraphs: the row of `drift`."""
    key = key_of("drift", state, asked.window, asked.limit)
    return _keep(store, key, lambda: drift(lm, window=asked.window, limit=asked.limit))


def measure_weights(lm: LanguageModel, store: Store, state: str, total: WeightUpdate) -> pd.DataFrame:
    """Return how far the weights of a state are from the unedited ones.

    The rows of `weight_change`, and norm, largest and smallest singular value of both matrices.
    """
    return _keep(store, key_of("weights and spectra", state), lambda: _weights(lm, total))


def _weights(lm: LanguageModel, total: WeightUpdate) -> pd.DataFrame:
    with lm.unedited():
        changes = weight_change(total, lm)
        rows = []
        for name in total:
            W = lm.weight(name)
            for matrix, suffix in ((W, "_before"), (W + total.delta(name).to(W.device), "")):
                smallest, largest = extreme_singular_values(matrix)
                norm = float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
                found = {"weight_norm": norm, "largest_singular_value": largest, "smallest_singular_value": smallest}
                rows += [(name, f"{metric}{suffix}", None, value) for metric, value in found.items()]
    return pd.concat([changes, pd.DataFrame(rows, columns=changes.columns)], ignore_index=True).astype({"at": float})


def summarize_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean, n and interval over facts or examples of each task, metric and moment."""
    return summarize_examples(scores, ["task", "metric", "protocol", "source", "split", "moment"])


def _keep(store: Store, key: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    return store.keep_table(_file_of(key), compute)


def _file_of(key: str) -> str:
    return f"measures/{key}.parquet"
