"""The measurements at the checkpoints of one trajectory, run to its end."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench.editing.editor import Editor, hyperparameters_of
from workbench.editing.passes.hooks import remove_leftovers
from workbench.experiment import measures
from workbench.experiment.cache_keys import LIBRARIES, unedited_state
from workbench.experiment.resolved import ResolvedRun
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store, hyperparameters_label
from workbench.experiment.stored_files import OPERATIONS, RESULTS, SCORES
from workbench.experiment.trajectory import Point, walk_trajectory
from workbench.lm import LanguageModel
from workbench.versions import library_versions

_COLUMNS = ["task", "metric", "protocol", "source", "split", "moment", "example", "value", "weight"]


def run_trajectory(lm: LanguageModel, run: ResolvedRun, store: Store) -> None:
    """Run one trajectory to its end.

    Parameters
    ----------
    lm : LanguageModel
        The model of the spec. Updates that are applied to it, such as one that an interrupt has left, are undone for
        the time of the run.
    run : ResolvedRun
        The trajectory to run.
    store : Store
        Store that results are written to; what it holds already is not computed again.

    Raises
    ------
    WorkbenchError
        If the method cannot edit the model, no example of a task fits it, or weights of the model have changed.
    """
    remove_leftovers(lm.model)
    with lm.unedited():
        _run_on_unedited(lm, run, store)


def _run_on_unedited(lm: LanguageModel, run: ResolvedRun, store: Store) -> None:
    spec, start = run.spec, time.perf_counter()
    editor = run.prepare_editor(lm)
    record = {
        "spec": spec.model_dump(mode="json"),
        "content": run.content,
        "method": editor.label,
        "hyperparameters": hyperparameters_of(editor),
        "fingerprint": lm.fingerprint,
        "versions": library_versions(*LIBRARIES),
    }
    store.write_json(f"trajectories/{run.key}.json", {**record, "finished": False})
    columns, states = _trajectory_columns(run, editor), {}
    with (
        tqdm(total=spec.n_operations, desc=str(spec), unit="operation", leave=False) as bar,
        closing(walk_trajectory(lm, run, store, editor)) as trajectory,
    ):
        for point in trajectory:
            if point.operation in spec.checkpoints:
                states[point.operation] = point.state
                _write_checkpoint(point, lm, run, store, columns)
            bar.update(point.operation - bar.n)
    seconds = round(time.perf_counter() - start, 1)
    store.write_json(f"trajectories/{run.key}.json", {**record, "states": states, "seconds": seconds, "finished": True})


def measure_unedited(lm: LanguageModel, run: ResolvedRun, store: Store) -> None:
    """Measure the tasks and the perplexity of the unedited model, where all trajectories with the same tasks start.

    Parameters
    ----------
    lm : LanguageModel
        The model of the spec, as for `run_trajectory`.
    run : ResolvedRun
        One of the trajectories.
    store : Store
        Store that the measurements are written to.
    """
    remove_leftovers(lm.model)
    with lm.unedited():
        state = unedited_state(lm)
        if run.spec.tasks:
            written = run.spec.tasks.writes_at(0)
            measures.measure_tasks(lm, store, state, run.spec.tasks, run.tasks, written=written)
        if run.spec.perplexity:
            measures.measure_perplexity(lm, store, state, run.spec.perplexity)


def _trajectory_columns(run: ResolvedRun, editor: Editor) -> dict[str, Any]:
    spec = run.spec
    return {
        "trajectory": run.key,
        "model": spec.model,
        "method": editor.label,
        "hyperparameters": hyperparameters_label(spec.hyperparameters),
        "regularizer": spec.regularizer_label,
        "setting": spec.setting_name,
        "batch_size": spec.batch_size,
        "seed": spec.seed,
        "facts": Path(spec.facts.source).name + ", words before the subject" * spec.facts.words_before_subject,
        "draw": run.draw,
    }


def _write_checkpoint(point: Point, lm: LanguageModel, run: ResolvedRun, store: Store, columns: dict[str, Any]) -> None:
    """Measure a checkpoint; write its update, the operations since the previous one, its scores and its results.

    Files are written in this order, and those that can be read are skipped: every restart of a killed run gets further.
    """
    spec, name = run.spec, f"{run.key}/{point.operation:06}.parquet"
    update = f"updates/{point.state}.safetensors"
    operations, each, results = (f"{part}/{name}" for part in ("operations", "scores", "results"))
    if len(point.update) and not store.has(update):
        store.write_update(update, point.update)
    if store.read_table(operations) is None:
        before = max((t for t in spec.checkpoints if t < point.operation), default=0)
        rows = pd.DataFrame(point.operations[before:], index=range(before, point.operation)).assign(**columns)
        rows["operation"] = rows.index + 1
        store.write_table(operations, rows, OPERATIONS)
    columns = {**columns, "operation": point.operation, "n_edits": point.operation * spec.batch_size}
    scores = _measure_scores(point, lm, run, store)
    if store.read_table(each) is None:
        store.write_table(each, scores.assign(**columns), SCORES)
    if store.read_table(results) is None:
        parts = [measures.summarize_scores(scores), *_measure_others(point, lm, spec, store)]
        store.write_table(results, pd.concat(parts, ignore_index=True).assign(**columns), RESULTS)


def _measure_scores(point: Point, lm: LanguageModel, run: ResolvedRun, store: Store) -> pd.DataFrame:
    """Return the scores of each fact right after its edit, of each fact so far, and of each example of the tasks."""
    parts, spec = [], run.spec
    if point.operation:
        parts.append(pd.concat(point.scores).assign(moment=measures.AFTER_EDIT))
    if spec.setting == "sequential" or not point.operation:
        facts = run.assessed_facts(0, point.operation * spec.batch_size or spec.n_facts)
        now = measures.measure_edits(lm, store, point.state, facts, spec.edit_protocols)
        parts.append(now.assign(moment=measures.NOW if point.operation else measures.BEFORE))
    scores = pd.concat(parts).rename(columns={"request": "example"}).assign(task=measures.EDITS, weight=1.0)
    if spec.tasks:
        written = spec.tasks.writes_at(point.operation)
        of_tasks = measures.measure_tasks(lm, store, point.state, spec.tasks, run.tasks, written=written)
        scores = pd.concat([scores, of_tasks])
    return scores.reindex(columns=_COLUMNS)


def _measure_others(point: Point, lm: LanguageModel, spec: ExperimentSpec, store: Store) -> Iterator[pd.DataFrame]:
    """Yield the results that have no examples: failed edits, perplexity, drift, weights."""
    if point.operation:
        failed = [row["failed"] is not None for row in point.operations]
        row = {"task": measures.EDITS, "metric": "failed", "value": float(sum(failed)), "n": len(failed)}
        yield pd.DataFrame([row])
    if spec.perplexity:
        yield measures.measure_perplexity(lm, store, point.state, spec.perplexity)
    if spec.drift:
        yield measures.measure_drift(lm, store, point.state, spec.drift)
    if len(point.update):
        yield measures.measure_weights(lm, store, point.state, point.update).assign(task=measures.WEIGHTS)
