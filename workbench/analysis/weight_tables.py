"""Tables of how far the weights of trajectories moved, computed from their updates once and kept in the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from workbench.analysis.tables import (
    compute_kept_norms,
    compute_thresholds,
    tabulate_heatmaps,
    tabulate_histograms,
    tabulate_weight_change,
)
from workbench.experiment.models import load_model
from workbench.experiment.resolved import ResolvedRun, resolve, resolve_all
from workbench.experiment.runner import open_store, read_updates
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.lm import LanguageModel
from workbench.update import WeightUpdate

_Compute = Callable[[dict[int, WeightUpdate], LanguageModel], pd.DataFrame]


@dataclass(frozen=True)
class WeightTables:
    """The tables behind the paper's table 1 and figure 5.

    Attributes
    ----------
    thresholds : DataFrame
        Table of `compute_thresholds`, from single edits.
    change : DataFrame
        Table of `tabulate_weight_change`, of the sequence.
    heatmaps : DataFrame
        Table of `tabulate_heatmaps`, of the sequence.
    histograms : DataFrame
        Table of `tabulate_histograms`, of the sequence.
    """

    thresholds: pd.DataFrame
    change: pd.DataFrame
    heatmaps: pd.DataFrame
    histograms: pd.DataFrame


def derive_weight_tables(
    single: ExperimentSpec,
    sequence: ExperimentSpec,
    *,
    checkpoints: Sequence[int],
    store: str | Path | Store | None = None,
) -> WeightTables:
    """Return how far a sequence of edits moved the weights, by thresholds from single edits.

    Parameters
    ----------
    single, sequence : ExperimentSpec
        Finished trajectories of the same model: single edits with a checkpoint after each, and a sequence.
    checkpoints : sequence of int
        Checkpoints of the sequence to show.
    store : str, Path or Store, optional
        Store of the results, as for `workbench.run`.

    Returns
    -------
    WeightTables

    Raises
    ------
    RunError
        If a trajectory is not finished.
    """
    store = open_store(store)
    of_single, of_sequence = resolve_all([single, sequence])
    derive_single, derive_sequence = _deriver(store, of_single), _deriver(store, of_sequence)
    thresholds = derive_single("thresholds", lambda each, lm: compute_thresholds(list(each.values()), lm))
    shown = "-".join(map(str, checkpoints))

    def derive(name: str, compute: _Compute) -> pd.DataFrame:
        def of_checkpoints(updates: dict[int, WeightUpdate], lm: LanguageModel) -> pd.DataFrame:
            return compute({t: update for t, update in updates.items() if t in checkpoints}, lm)

        return derive_sequence(f"{name}-{shown}", of_checkpoints)

    change = derive(f"change-{of_single.key}", lambda each, lm: tabulate_weight_change(each, lm, thresholds))
    heatmaps = derive("block-means", lambda each, _: tabulate_heatmaps(each))
    return WeightTables(thresholds, change, heatmaps, derive("histograms", tabulate_histograms))


def derive_kept_norms(spec: ExperimentSpec, *, store: str | Path | Store | None = None) -> pd.DataFrame:
    """Return the table of `compute_kept_norms` for the single edits of a finished trajectory.

    Parameters
    ----------
    spec : ExperimentSpec
        Single edits with a checkpoint after each.
    store : str, Path or Store, optional
        Store of the results, as for `workbench.run`.

    Returns
    -------
    DataFrame
        Columns regularizer, keep, value, n.

    Raises
    ------
    RunError
        If the trajectory is not finished.
    """
    derive = _deriver(open_store(store), resolve(spec))
    return derive("kept-norms", lambda each, lm: compute_kept_norms(list(each.values()), lm))


def _deriver(store: Store, run: ResolvedRun) -> Callable[[str, _Compute], pd.DataFrame]:
    """Return a function that derives tables of a trajectory, for all of which its updates are read once."""
    spec, updates = run.spec, cache(lambda: read_updates(run.spec, store))

    def derive(name: str, compute: _Compute) -> pd.DataFrame:
        return store.derive(run.key, name, lambda: compute(updates(), load_model(spec.model, spec.dtype)))

    return derive
