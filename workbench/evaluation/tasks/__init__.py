"""The eight abilities of Gu et al. 2024, one file each."""

from collections.abc import Sequence

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

_MODULES = (reasoning, nli, open_qa, closed_qa, dialogue, summarization, ner, sentiment)

TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in _MODULES}


def tasks_named(names: str | Sequence[str]) -> tuple[Task, ...]:
    """Tasks by name, as `check_tasks` takes and refuses them."""
    return tuple(TASKS[name] for name in check_tasks(names))
