"""Sweeps over the values of a hyperparameter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.tables import select_edit_metrics
from workbench.experiment.grids import grid
from workbench.experiment.resolved import resolve_all
from workbench.experiment.runner import open_store, run_resolved
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store


def sweep_hyperparameter(
    spec: ExperimentSpec, *, field: str, values: Sequence[Any], store: str | Path | Store | None = None
) -> pd.DataFrame:
    """Return the edit metrics for each value of one hyperparameter; the others are those of a spec.

    Parameters
    ----------
    spec : ExperimentSpec
        Single edits; each value edits the same facts.
    field : str
        Name of a hyperparameter of the method.
    values : sequence
        Values of the hyperparameter.
    store : str, Path or Store, optional
        Store of the results, as for `workbench.run`.

    Returns
    -------
    DataFrame
        Columns: the field, metric, protocol, value, n, low, high, relative_norm (mean ‖ΔW‖/‖W‖) and steps (mean number
        of optimization steps).

    Raises
    ------
    SpecError, RunError
        As `workbench.run`.
    """
    store = open_store(store)
    runs = resolve_all(grid(spec, {f"hyperparameters.{field}": values}))
    results = select_edit_metrics(run_resolved(runs, store))
    parts = []
    for value, each in zip(values, runs, strict=True):
        part = results.loc[results["trajectory"] == each.key, ["metric", "protocol", "value", "n", "low", "high"]]
        part.insert(0, field, value)
        means = store.operations([each.key])[["relative_norm", "steps"]].mean()
        parts.append(part.assign(**means))
    return pd.concat(parts, ignore_index=True)
