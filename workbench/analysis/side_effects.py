"""Answers of a model side by side, before and after the edits of a trajectory."""

from pathlib import Path

import pandas as pd

from workbench.errors import RunError
from workbench.evaluation.tasks import TASKS
from workbench.experiment.measures import read_answers
from workbench.experiment.resolved import ResolvedRun, resolve
from workbench.experiment.runner import open_store, read_states
from workbench.experiment.spec import ExperimentSpec, TasksSpec
from workbench.experiment.store import Store


def compare_answers(
    spec: ExperimentSpec, operation: int, *, each: int = 1, store: str | Path | Store | None = None
) -> pd.DataFrame:
    """Return the answers to each task that lost most of their score.

    Parameters
    ----------
    spec : ExperimentSpec
        A finished trajectory with tasks.
    operation : int
        Number of operations after which to compare with the unedited model; both must be checkpoints of the spec.
    each : int
        Number of rows per task.
    store : str, Path or Store, optional
        Store of the results, as for `workbench.run`.

    Returns
    -------
    DataFrame
        Columns task, prompt, expected, unedited, edited; tasks whose answers all score as before have no row.

    Raises
    ------
    RunError
        If the trajectory is not finished, or not measured at one of the two checkpoints.
    """
    store, run = open_store(store), resolve(spec)
    return store.derive(run.key, f"answers-{operation}-{each}", lambda: _compare(run, operation, each, store))


def _compare(run: ResolvedRun, operation: int, each: int, store: Store) -> pd.DataFrame:
    spec, known = run.spec, read_states(run, store)
    if missing := {0, operation} - set(known):
        raise RunError(f"{spec} was not measured after {missing.pop()} operations, only after {list(known)}.")
    parts = []
    for data in run.tasks:
        asked = spec.tasks or TasksSpec()  # a run with data of tasks has settings for them
        before, after = (read_answers(store, known[t], asked, data) for t in (0, operation))
        metric = TASKS[data.task].headline[asked.protocol]
        both = before.merge(after, on=["task", "example", "prompt", "expected"])
        fall = both[f"{metric}_x"] - both[f"{metric}_y"]
        parts.append(both.assign(fall=fall)[fall > 0].nlargest(each, "fall"))
    columns = {"task": "task", "prompt": "prompt", "expected": "expected"}
    columns |= {"answered_x": "unedited", "answered_y": "edited"}
    shown = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
    return shown[list(columns)].rename(columns=columns)
