"""Tables derived from updates: those of the functions behind them, and computed once."""

import pandas as pd
import pytest

import workbench as wb
from workbench.analysis import tables, weight_tables
from workbench.experiment.models import load_model
from workbench.experiment.runner import read_updates
from workbench.experiment.store import Store


@pytest.fixture
def stored(tiny, tmp_path) -> tuple[wb.ExperimentSpec, wb.ExperimentSpec, Store]:
    """Give single edits and a sequence of a tiny model that have been run, and their store."""
    fast = {"layer": 1, "v_num_grad_steps": 2, "contexts": ["{}"]}
    what = {"model": tiny, "hyperparameters": fast, "n_operations": 2, "checkpoints": [1, 2]}
    specs = [wb.ExperimentSpec(**what, setting=kind, tasks=None, perplexity=None) for kind in ("single", "sequential")]
    store = Store(tmp_path)
    wb.run(specs, store=store)
    return *specs, store


def test_derived_tables_are_those_computed_from_the_updates(stored, tiny):
    single, sequence, store = stored
    found = weight_tables.derive_weight_tables(single, sequence, checkpoints=[2], store=store)
    lm, last = load_model(tiny), {2: read_updates(sequence, store)[2]}
    thresholds = tables.compute_thresholds(list(read_updates(single, store).values()), lm)
    pd.testing.assert_frame_equal(found.thresholds, thresholds)
    pd.testing.assert_frame_equal(found.change, tables.tabulate_weight_change(last, lm, thresholds))
    pd.testing.assert_frame_equal(found.heatmaps, tables.tabulate_heatmaps(last))
    pd.testing.assert_frame_equal(found.histograms, tables.tabulate_histograms(last, lm))


def test_updates_are_read_once_for_all_tables_and_not_again(stored, monkeypatch):
    single, sequence, store = stored
    reads, read = [], weight_tables.read_updates

    def counted(spec, store):
        reads.append(spec.setting)
        return read(spec, store)

    monkeypatch.setattr(weight_tables, "read_updates", counted)
    first = weight_tables.derive_weight_tables(single, sequence, checkpoints=[1, 2], store=store)
    assert sorted(reads) == ["sequential", "single"]
    again = weight_tables.derive_weight_tables(single, sequence, checkpoints=[1, 2], store=store)
    assert len(reads) == 2
    pd.testing.assert_frame_equal(again.histograms, first.histograms)
