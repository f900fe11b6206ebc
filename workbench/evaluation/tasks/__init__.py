"""The eight abilities of Gu et al. 2024, one file per task."""

from collections.abc import Sequence
from typing import Any

from workbench.evaluation.task_names import check_tasks
from workbench.evaluation.tasks import (
    closed_qa,
    dialogue,
    ner,
    nli,
    open_qa,
    reasoning,
    sentiment,
    summarization,
)
from workbench.evaluation.tasks.task import Task

_TASKS: tuple[Task[Any], ...] = (
    reasoning.TASK,
    nli.TASK,
    open_qa.TASK,
    closed_qa.TASK,
    dialogue.TASK,
    summarization.TASK,
    ner.TASK,
    sentiment.TASK,
)

TASKS: dict[str, Task[Any]] = {task.name: task for task in _TASKS}


def find_tasks(names: str | Sequence[str]) -> tuple[Task[Any], ...]:
    """Return tasks by name; names are checked by `check_tasks`."""
    return tuple(TASKS[name] for name in check_tasks(names))
