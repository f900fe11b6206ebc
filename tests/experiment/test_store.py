"""The store: atomic writes, one table from many files, merging by content, in folders and other file systems."""

import logging
import uuid

import pandas as pd
import pytest
import torch

from workbench.changes import LowRank
from workbench.edit_record import EditRecord
from workbench.errors import SpecError
from workbench.experiment.store import Store
from workbench.experiment.stored_files import RESULTS
from workbench.update import WeightUpdate

RECORD = {
    **{"spec": {}, "hyperparameters": {}, "versions": {}, "states": {"0": "s"}, "seconds": 1.5},
    **{"content": "c", "method": "ROME", "fingerprint": "f", "finished": True},
}


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    """Give an empty store in a folder, and one in memory."""
    return Store(tmp_path / "store" if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def rows(trajectory, value):
    return pd.DataFrame(
        [{"trajectory": trajectory, "method": "ROME", "task": "nli", "metric": "accuracy", "value": value, "n": 3}]
    )


def finished(store, trajectory):
    store.write_table(f"results/{trajectory}/000001.parquet", rows(trajectory, 0.5), RESULTS)
    store.write_json(f"trajectories/{trajectory}.json", RECORD)


def test_written_files_are_read_back(store):
    store.write("edits/a.json", b"{}")
    assert store.read("edits/a.json") == b"{}"
    assert store.names("edits") == ["edits/a.json"]
    assert store.read("edits/b.json") is None


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(store, monkeypatch):
    store.write("edits/a.json", b"old")
    monkeypatch.setattr(store, "_rename", lambda *names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.write("edits/a.json", b"new")
    monkeypatch.undo()
    assert store.read("edits/a.json") == b"old"
    assert store._fs.ls(store._path("edits"), detail=False) == [store._path("edits/a.json")]


def test_files_left_by_a_killed_write_are_not_results(tmp_path):
    store = Store(tmp_path)
    finished(store, "a")
    (tmp_path / "results/a/.000002.parquet-123").write_bytes(b"half")
    assert len(store.results()) == 1
    assert len(pd.read_parquet(tmp_path / "results")) == 1


def test_updates_come_back_bit_for_bit(store):
    factors = torch.randn(5, 2), torch.randn(4, 2)
    record = EditRecord("ROME", (), {"layer": 1}, losses=((2.0, 1.0),))
    store.write_update("updates/a.safetensors", WeightUpdate({"w": LowRank(*factors)}, (record,)))
    update = store.read_update("updates/a.safetensors")
    assert torch.equal(update["w"].rows, factors[0])
    assert torch.equal(update["w"].cols, factors[1])
    assert [each.as_dict() for each in update.records] == [record.as_dict()]


def test_all_results_are_one_pandas_call(tmp_path):
    store = Store(tmp_path)
    for trajectory, value in (("a", 0.5), ("b", 0.25)):
        store.write_table(f"results/{trajectory}/000001.parquet", rows(trajectory, value), RESULTS)
    table = pd.read_parquet(tmp_path / "results")
    assert list(table.columns) == RESULTS.names
    assert dict(zip(table["trajectory"], table["value"], strict=True)) == {"a": 0.5, "b": 0.25}
    expected = table[table["trajectory"] == "b"].reset_index(drop=True).astype({"n": "Int64"})
    pd.testing.assert_frame_equal(store.results(["b"]), expected)


def test_the_number_of_examples_stays_whole_next_to_rows_without_one(tmp_path):
    store = Store(tmp_path)
    both = pd.concat([rows("a", 0.5), rows("a", 0.25).assign(n=None)])
    store.write_table("results/a/000001.parquet", both, RESULTS)
    assert [str(n) for n in store.results()["n"]] == [str(both["n"].iloc[0]), "<NA>"]


def test_an_empty_store_has_all_columns_and_no_rows(store):
    assert list(store.results().columns) == RESULTS.names
    assert store.results().empty
    assert store.trajectories() == {}


def test_merging_copies_missing_files_and_completes_unfinished_units(tmp_path):
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    finished(ours, "a")
    ours.write_json("trajectories/b.json", {**RECORD, "finished": False})
    finished(theirs, "b")
    finished(theirs, "c")
    assert ours.merge(theirs) == 4
    assert sorted(ours.results()["trajectory"]) == ["a", "b", "c"]
    assert all(ours.finished(trajectory) for trajectory in "abc")
    assert ours.merge(theirs) == 0


def test_a_finished_unit_is_not_replaced_by_an_unfinished_one(tmp_path):
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    finished(ours, "a")
    theirs.write_json("trajectories/a.json", {**RECORD, "finished": False})
    ours.merge(theirs)
    assert ours.finished("a")


def test_a_location_that_cannot_hold_a_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="is a file; give a folder"):
        Store(tmp_path / "file")
    with pytest.raises(SpecError, match="the store 'nowhere://x' cannot be opened"):
        Store("nowhere://x")


# damage


def cut_short(store, name):
    content = store.read(name)
    store.write(name, content[: len(content) // 2])
    return content


def test_one_damaged_record_is_set_aside_and_the_others_are_listed(store, caplog):
    for key in "abc":
        finished(store, key)
    cut_short(store, "trajectories/b.json")
    with caplog.at_level(logging.WARNING, logger="workbench"):
        assert list(store.trajectories()) == ["a", "c"]
    [message] = caplog.messages
    assert message.startswith("trajectories/b.json is damaged (")
    assert message.endswith(f"); it is now damaged/trajectories/b.json in the store {store.url}")
    assert not store.has("trajectories/b.json")
    assert store.has("damaged/trajectories/b.json")
    assert not store.finished("b")
    assert list(store.trajectories()) == ["a", "c"]


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"[]", b"{}", b'{"finished": 1}', b"\xff\xfe"])
def test_a_record_that_is_none_is_set_aside_unchanged(store, content):
    finished(store, "a")
    store.write("trajectories/a.json", content)
    assert store.trajectories() == {}
    assert store.read("damaged/trajectories/a.json") == content


def test_a_damaged_table_of_results_leaves_the_others_and_reopens_its_trajectory(tmp_path):
    store = Store(tmp_path)
    for key in "ab":
        finished(store, key)
    cut_short(store, "results/a/000001.parquet")
    assert list(store.results()["trajectory"]) == ["b"]
    assert not store.finished("a")
    assert store.finished("b")
    assert list(pd.read_parquet(tmp_path / "results")["trajectory"]) == ["b"]


def test_a_damaged_measurement_is_computed_again(store):
    table = rows("a", 0.5)
    store.keep_table("measures/a.parquet", lambda: table)
    cut_short(store, "measures/a.parquet")
    pd.testing.assert_frame_equal(store.keep_table("measures/a.parquet", lambda: table), table)
    pd.testing.assert_frame_equal(store.read_table("measures/a.parquet"), table)


def test_a_damaged_update_counts_as_missing(store):
    store.write_update("edits/a.safetensors", WeightUpdate({"w": torch.ones(3, 3)}))
    cut_short(store, "edits/a.safetensors")
    assert store.read_update("edits/a.safetensors") is None
    assert store.has("damaged/edits/a.safetensors")


def test_a_store_that_cannot_be_written_to_is_still_listed(tmp_path, monkeypatch, caplog):
    store = Store(tmp_path)
    for key in "ab":
        finished(store, key)
    cut_short(store, "trajectories/b.json")

    def refuse(name, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "write", refuse)
    assert list(store.trajectories()) == ["a"]
    assert "cannot be moved to damaged/trajectories/b.json (Permission denied)" in caplog.text
