"""The archive of a store: what is read back equals what was run, on the same weights, facts and examples."""

import logging

import pandas as pd
import pytest

import workbench as wb
from tests.helpers import error_of
from workbench.errors import NothingStoredError, SpecError
from workbench.experiment.archive import read_archive, write_archive
from workbench.experiment.resolved import resolve
from workbench.experiment.store import Store

FAST = {"v_num_grad_steps": 2, "contexts": ["{}"]}


@pytest.fixture
def spec(tiny) -> wb.ExperimentSpec:
    what = {"n_operations": 2, "checkpoints": [0, 1, 2], "tasks": {"tasks": ["nli"], "limit": 3}}
    return wb.ExperimentSpec(model=tiny, hyperparameters=FAST, perplexity={"window": 32, "limit": 2, "each": 1}, **what)


@pytest.fixture
def archive(spec, tmp_path):
    store = Store(tmp_path / "first")
    wb.run(spec, store=store)
    store.derive(resolve(spec).key, "numbers", lambda: pd.DataFrame({"a": [1.5, None], "b": ["x", "y"]}))
    assert write_archive(store, tmp_path / "results.parquet") == 1
    return tmp_path / "results.parquet"


def test_tables_read_back_are_those_that_were_written_to_seven_digits(spec, archive, tmp_path):
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    assert read_archive(archive, second) == 1
    for name in ("results", "scores", "operations"):
        ours, theirs = getattr(first, name)(), getattr(second, name)()
        assert len(ours) > 0
        pd.testing.assert_frame_equal(theirs, ours, rtol=1e-7, atol=0)


def test_a_trajectory_read_back_is_finished_and_not_run_again(spec, archive, tmp_path, monkeypatch):
    read_archive(archive, Store(tmp_path / "second"))
    monkeypatch.setattr("workbench.experiment.runner.run_trajectory", None)  # to call it would fail
    results = wb.run(spec, store=tmp_path / "second")
    assert set(results["operation"]) == {0, 1, 2}


def test_derived_tables_are_kept(spec, archive, tmp_path):
    second = Store(tmp_path / "second")
    read_archive(archive, second)
    table = second.derive(resolve(spec).key, "numbers", lambda: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(table, pd.DataFrame({"a": [1.5, None], "b": ["x", "y"]}))


def test_reading_twice_copies_nothing(archive, tmp_path):
    read_archive(archive, Store(tmp_path / "second"))
    assert read_archive(archive, Store(tmp_path / "second")) == 0


def test_a_key_of_other_library_versions_is_replaced_by_todays(spec, archive, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.experiment.cache_keys.library_versions", lambda *names: dict.fromkeys(names, "9"))
    assert read_archive(archive, Store(tmp_path / "second")) == 1
    assert Store(tmp_path / "second").finished(resolve(spec).key)
    assert not Store(tmp_path / "first").finished(resolve(spec).key)


def test_results_of_other_examples_are_left_out_with_a_warning(archive, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("workbench.experiment.cache_keys.data_key", lambda data: "other")
    with caplog.at_level(logging.WARNING):
        assert read_archive(archive, Store(tmp_path / "second")) == 0
    assert "was run with other weights, facts or examples than today's and is left out" in caplog.text


def test_unfinished_trajectories_are_not_archived(spec, archive, tmp_path):
    store = Store(tmp_path / "first")
    store.write_json("trajectories/other.json", {"finished": False})
    assert write_archive(store, archive) == 1


def test_a_file_that_is_missing_or_no_archive_is_refused(tmp_path):
    missing = tmp_path / "none.parquet"
    sentence = f"{missing} does not exist; workbench results --archive writes it."
    assert error_of(SpecError, read_archive, missing, Store(tmp_path)) == sentence
    missing.write_text("no parquet")
    assert f"{missing} is not an archive of results" in error_of(SpecError, read_archive, missing, Store(tmp_path))


def test_where_only_stored_results_are_read_nothing_is_run(spec, archive, tmp_path, monkeypatch, caplog):
    second = Store(tmp_path / "second")
    read_archive(archive, second)
    monkeypatch.setenv("WORKBENCH_STORED_ONLY", "1")
    other = spec.model_copy(update={"seed": 7})
    with caplog.at_level(logging.WARNING):
        results = wb.run([spec, other], store=second)
    assert results["trajectory"].unique().tolist() == [resolve(spec).key]
    assert "1 of 2 trajectories are not in the store and are left out" in caplog.text
    with pytest.raises(NothingStoredError, match="holds none of these 1 trajectories; run them first"):
        wb.run(other, store=second)
