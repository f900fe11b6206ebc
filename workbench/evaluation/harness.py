"""Scores of a model on tasks of EleutherAI's lm-evaluation-harness; needs the extra ``lm-eval``.

The harness (https://github.com/EleutherAI/lm-evaluation-harness) runs the model and tokenizer that the workbench
holds, so it measures an edit as soon as the edit is applied, and nothing is saved or loaded again.
"""

import copy
import logging
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from workbench.arguments import checked
from workbench.errors import DataError, SpecError, first_line
from workbench.extras import require_extra
from workbench.lm import LanguageModel

log = logging.getLogger(__name__)

_COLUMNS = ("task", "metric", "protocol", "source", "split", "value", "n", "low", "high", "version")
_STDERRS = 1.96  # standard errors on either side of a value: the 95 % interval of a normal distribution
_MODEL_LOG = "lm_eval.models.huggingface"
_WITH_BARS = ("lm_eval.api.task", "lm_eval.api.model", _MODEL_LOG)
# The first two warn about every default that a task's file leaves to the harness, and about every setting we pass.
_LEVELS = {"lm_eval.api.task": logging.ERROR, "lm_eval.evaluator": logging.ERROR, "lm_eval": logging.WARNING}


@checked
def evaluate_harness(
    lm: LanguageModel,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    num_fewshot: int | None = None,
    task_folder: str | Path | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the current model on tasks of the lm-evaluation-harness, with intervals from its standard errors.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; it and its tokenizer are not changed.
    tasks : sequence of str
        Names of tasks, groups or tags; ``lm-eval ls tasks`` lists them.
    limit : int, optional
        Number of examples per task: the first `limit`; all by default.
    batch_size : int
        Number of prompts per forward pass.
    num_fewshot : int, optional
        Number of solved examples before each question; by default the number in the task's file. A task whose file
        says 0 keeps 0.
    task_folder : str or Path, optional
        Folder with YAML files of your own tasks, which take precedence over the harness's tasks of the same name.
        Python code that such a file names is run.
    seed : int
        Seed of everything that the harness draws, such as the solved examples (the harness's own command line uses
        1234). The global random states are restored.

    Returns
    -------
    DataFrame
        One row per task and metric, then one per group that has scores; columns task, metric, protocol ("lm-eval" and
        the filter of the answers, if any), source (data set path and configuration or file), split, value, n
        (examples), low, high (value ± 1.96 standard errors; NaN if the harness gives none), version (of the task).

    Raises
    ------
    MissingExtraError
        If lm-eval is not installed.
    SpecError
        If a setting is out of range, or a task is unknown, named twice, runs code that the model writes, or asks about
        images or sound.
    DataError
        If a task or its data cannot be loaded.
    """
    names = _check_settings(tasks, limit=limit, batch_size=batch_size, num_fewshot=num_fewshot, task_folder=task_folder)
    require_extra("lm_eval", "lm-eval")
    from lm_eval import simple_evaluate

    with _quiet_harness(), _seeded(seed), _training_modes_kept(lm.model):
        manager = _find_manager(names, task_folder)
        chosen = [item for name in names for item in _load(manager, name)]
        loaded = _check_tasks([task for item in chosen for task in _tasks_in(item)])
        with tqdm(desc="lm-eval", unit="request") as bar:
            harness_lm = _wrap_model(lm, batch_size)
            harness_lm.set_cache_hook(_Progress(bar, loaded))
            results = simple_evaluate(
                model=harness_lm,
                tasks=chosen,
                task_manager=manager,
                num_fewshot=num_fewshot,
                limit=limit,
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        return _make_table(results, chosen)  # in the block: the harness draws a number when asked for a task's name


def _check_settings(
    tasks: Sequence[str],
    *,
    limit: int | None,
    batch_size: int,
    num_fewshot: int | None,
    task_folder: str | Path | None,
) -> list[str]:
    """Return the names, each once; raise `SpecError` if there are none, or a setting is out of range."""
    for name, value, least in (("limit", limit, 1), ("batch_size", batch_size, 1), ("num_fewshot", num_fewshot, 0)):
        if value is not None and value < least:
            raise SpecError(f"{name} must be at least {least}; got {value}.")
    if task_folder is not None and not Path(task_folder).is_dir():
        raise SpecError(f"the task folder {task_folder} does not exist; give a folder of the harness's YAML files.")
    names = [tasks] if isinstance(tasks, str) else [*dict.fromkeys(tasks)]
    if not names:
        raise SpecError("no task of the harness is named; `lm-eval ls tasks` lists its tasks.")
    return names


@contextmanager
def _quiet_harness() -> Iterator[None]:
    """Hide the harness's progress bars and most of its warnings, and send what it prints to stderr.

    It shows a bar for each task and each step, and warns about each setting that it takes from its defaults.
    """
    modules: list[Any] = [import_module(name) for name in _WITH_BARS]
    bars, levels = [module.tqdm for module in modules], {name: logging.getLogger(name).level for name in _LEVELS}
    once = _OncePerLine()
    try:
        logging.getLogger(_MODEL_LOG).addFilter(once)
        for module in modules:
            module.tqdm = _hidden_bar
        for name, level in _LEVELS.items():
            logging.getLogger(name).setLevel(level)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.getLogger(_MODEL_LOG).removeFilter(once)
        for module, bar in zip(modules, bars, strict=True):
            module.tqdm = bar
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class _OncePerLine(logging.Filter):
    """Passes one record per line of code: the harness warns about every single prompt that it truncates."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: set[int] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        new = record.lineno not in self._lines
        self._lines.add(record.lineno)
        return new


def _hidden_bar(iterable: Iterable[Any] | None = None, **_: object) -> "tqdm[Any]":
    return tqdm(iterable, disable=True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random states, as the harness does before it loads tasks, and restore them at the end.

    `simple_evaluate` seeds them too, but gets tasks that are already loaded, and some tasks shuffle their choices
    while they are loaded.
    """
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


@contextmanager
def _training_modes_kept(model: torch.nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _wrap_model(lm: LanguageModel, batch_size: int) -> Any:
    """Return the harness's view of the model: the same weights, and a copy of the tokenizer."""
    from lm_eval.models.huggingface import HFLM

    logger = logging.getLogger(_MODEL_LOG)
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that a model that is already loaded is not loaded again
    try:
        return HFLM(
            pretrained=lm.model,
            backend="causal",
            tokenizer=copy.deepcopy(lm.tokenizer),  # HFLM adds a padding token if there is none
            batch_size=batch_size,
        )
    finally:
        logger.setLevel(level)


class _Progress:
    """Takes the place of the harness's store of answers, which is called with each answer, and advances the bar."""

    def __init__(self, bar: "tqdm[NoReturn]", tasks: Sequence[Any]) -> None:
        self.bar, self.tasks = bar, tasks

    def add_partial(self, attr: str, req: object, res: object) -> None:
        if self.bar.total is None:  # the requests of all tasks exist before the first is answered
            self.bar.reset(sum(request.repeats for task in self.tasks for request in task.instances))
        self.bar.update()


def _find_manager(names: Sequence[str], folder: str | Path | None) -> Any:
    """Return an index of tasks of the harness that contains all of `names`."""
    from lm_eval.tasks import TaskManager

    if folder is not None:
        own = TaskManager(include_path=str(folder), include_defaults=False)
        if set(names) <= set(own.all_subtasks):  # groups and tags may contain tasks of the harness
            return own
    manager = TaskManager(include_path=str(folder)) if folder is not None else _built_in_tasks()
    if unknown := [repr(name) for name in names if name not in manager.task_index]:
        raise SpecError(
            f"the harness has no task {', '.join(unknown)}; `lm-eval ls tasks` lists its tasks, and task_folder adds "
            "your own."
        )
    return manager


@cache
def _built_in_tasks() -> Any:
    """Return the index of the harness's own tasks: 14 000 files, which take seconds to read."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _load(manager: Any, name: str) -> list[Any]:
    """Return the group of this name, or the task, or the tasks of the tag."""
    try:
        loaded = manager.load([name])
    except Exception as err:  # a task's file may name any data set and any code
        raise DataError(
            f"the harness task {name!r} cannot be loaded ({first_line(err).rstrip('.')}); check the connection and "
            "HF_HUB_OFFLINE, and the task's own file."
        ) from err
    groups = loaded["groups"]
    return [groups[name]] if name in groups else [*loaded["tasks"].values()]


def _check_tasks(tasks: list[Any]) -> list[Any]:
    """Return the tasks; raise `SpecError` if one occurs twice, or cannot be run here."""
    names = [task.task_name for task in tasks]
    for task in tasks:
        if names.count(task.task_name) > 1:
            raise SpecError(f"the harness task {task.task_name!r} is named twice, by a group or tag; name it once.")
        if getattr(task, "UNSAFE_CODE", False):
            raise SpecError(f"the harness task {task.task_name!r} runs code that the model writes; use lm-eval itself.")
        if getattr(task, "MULTIMODAL", False):
            raise SpecError(
                f"the harness task {task.task_name!r} asks about images or sound; choose a task of text only."
            )
    return tasks


def _tasks_in(item: Any) -> list[Any]:
    """Return the tasks of a group, or the task itself."""
    return item.get_all_tasks() if hasattr(item, "get_all_tasks") else [item]


def _make_table(results: Mapping[str, Any], chosen: Sequence[Any]) -> pd.DataFrame:
    groups = [group for item in chosen if hasattr(item, "get_all_groups") for group in (item, *item.get_all_groups())]
    tasks_of = {task.task_name: [task] for item in chosen for task in _tasks_in(item)}
    tasks_of |= {group.name: group.get_all_tasks() for group in groups}
    rows = []
    for name, scores in results["results"].items():
        origin = (_join(map(_source_of, tasks_of[name])), _join(map(_split_of, tasks_of[name])))
        for key, value in scores.items():
            metric, comma, answer_filter = key.partition(",")  # as in "acc_stderr,none"
            if not comma or metric.endswith("_stderr"):
                continue
            if not isinstance(value, Real):
                log.warning("%s: %s is not a number and is left out; it is %.60r.", name, metric, value)
                continue
            protocol = "lm-eval" if answer_filter == "none" else f"lm-eval {answer_filter}"
            margin = _STDERRS * _number_or_nan(scores.get(f"{metric}_stderr,{answer_filter}"))
            n = scores.get("sample_count", {}).get(key, scores["sample_len"])
            interval = (float(value) - margin, float(value) + margin)
            rows.append((name, metric, protocol, *origin, float(value), n, *interval, str(results["versions"][name])))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _number_or_nan(value: object) -> float:
    return float(value) if isinstance(value, Real) else float("nan")


def _join(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _source_of(task: Any) -> str:
    """Return ``path:configuration`` of the data set, or ``json:file`` for local data."""
    config = task.config
    files = (config.dataset_kwargs or {}).get("data_files")
    if isinstance(files, Mapping):
        files = files.get(_split_of(task), files)
    detail = config.dataset_name or files
    return f"{config.dataset_path or ''}{f':{detail}' if detail else ''}"


def _split_of(task: Any) -> str:
    """Return the split whose examples are asked: the test split if there is one, else the validation split."""
    if task.has_test_docs():
        return task.config.test_split or "test"
    return task.config.validation_split or "validation"
