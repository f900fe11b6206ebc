"""Answers of a trajectory's model side by side, before and after its edits."""

from pathlib import Path

import pandas as pd

from workbench.errors import RunError
from workbench.evaluation.tasks import TASKS
from workbench.experiment.measures import task_answers
from workbench.experiment.runner import opened, states
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store


def changed_answers(
    spec: ExperimentSpec, operation: int, *, each: int = 1, store: str | Path | Store | None = None
) -> pd.DataFrame:
    """Of each task the first few answers whose score fell the most.

    Parameters
    ----------
    spec : ExperimentSpec
        A trajectory that has been run, with tasks.
    operation : int
        After which operation; it and 0 are checkpoints of the spec.
    each : int
        Rows a task.
    store : str, Path or Store, optional
        As for `workbench.run`.

    Returns
    -------
    DataFrame
        Columns task, prompt, expected, unedited, edited; no row for a task whose answers all score as before.

    Raises
    ------
    RunError
        If the trajectory has not been run to its end, or one of the two is no checkpoint of it.
    """
    store = opened(store)
    known = states(spec, store)
    if missing := {0, operation} - set(known):
        raise RunError(f"{spec} was not measured after {missing.pop()} operations, only after {list(known)}.")
    parts = []
    for name in spec.tasks.tasks if spec.tasks else ():
        before, after = (task_answers(store, known[t], spec.tasks, name) for t in (0, operation))
        metric = TASKS[name].headline[spec.tasks.protocol]
        both = before.merge(after, on=["task", "example", "prompt", "expected"])
        fall = both[f"{metric}_x"] - both[f"{metric}_y"]
        parts.append(both.assign(fall=fall)[fall > 0].nlargest(each, "fall"))
    columns = {"task": "task", "prompt": "prompt", "expected": "expected"}
    columns |= {"answered_x": "unedited", "answered_y": "edited"}
    shown = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
    return shown[list(columns)].rename(columns=columns)
