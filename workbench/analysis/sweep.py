"""Sweeps over a hyperparameter: which layer, which rates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.tables import edit_metrics
from workbench.experiment.cache_keys import unit_key
from workbench.experiment.runner import opened, run
from workbench.experiment.spec import ExperimentSpec, grid
from workbench.experiment.store import Store


def sweep(
    spec: ExperimentSpec, *, field: str, values: Sequence[Any], store: str | Path | Store | None = None
) -> pd.DataFrame:
    """Edit metrics for each value of one hyperparameter, the others as in a spec.

    Parameters
    ----------
    spec : ExperimentSpec
        Single edits of the same facts for each value.
    field : str
        Name of a hyperparameter of its method.
    values : sequence
        What it takes.
    store : str, Path or Store, optional
        As for `workbench.run`.

    Returns
    -------
    DataFrame
        Columns named after the field, metric, protocol, value, n, low, high, and relative_norm (mean ‖ΔW‖/‖W‖) and
        steps (mean number of optimisation steps).

    Raises
    ------
    SpecError, RunError
        As `workbench.run`.
    """
    store = opened(store)
    specs = dict(zip(values, grid(spec, {f"hyperparameters.{field}": values}), strict=True))
    results = edit_metrics(run(list(specs.values()), store=store))
    parts = []
    for value, each in specs.items():
        unit = unit_key(each)
        part = results.loc[results["unit"] == unit, ["metric", "protocol", "value", "n", "low", "high"]]
        part.insert(0, field, value)
        means = store.operations([unit])[["relative_norm", "steps"]].mean()
        parts.append(part.assign(**means))
    return pd.concat(parts, ignore_index=True)
