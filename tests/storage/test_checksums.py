"""Checksums inside files: every changed byte of a small file is noticed, and what was written is read again."""

import json
import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from workbench.errors import UpdateError
from workbench.experiment.store import Store
from workbench.storage.checksums import CHECKSUM, dump_object, dump_table, parse_object, parse_table

TABLE = pd.DataFrame(
    {
        "name": ["a", None, "ä\n"],
        "n": [1, 2, 3],
        "value": [0.1, float("nan"), -0.0],
        "flag": [True, False, True],
        "empty": [None, None, None],
    }
)
OBJECT = {"states": {1: "a", 10: "b", 2: "c"}, "x": 0.1, "none": None, "texts": ["ä", ""]}


def changed(content, seed, count=200):
    """Yield the content with one byte changed, at places that depend on the seed."""
    places = np.random.default_rng(seed).integers(0, len(content), count)
    for place in places:
        yield bytes([*content[:place], content[place] ^ (1 << int(place) % 8), *content[place + 1 :]])


def test_a_table_is_read_as_it_was_written():
    table = pa.Table.from_pandas(TABLE, preserve_index=False)
    read = parse_table(dump_table(table)).to_pandas()
    pd.testing.assert_frame_equal(read, table.to_pandas())
    assert parse_table(dump_table(table.slice(0, 0))).num_rows == 0


def test_an_object_is_read_as_json_reads_it():
    assert parse_object(dump_object(OBJECT)) == json.loads(json.dumps(OBJECT))


def test_an_object_without_its_checksum_is_refused():
    assert error_of(ValueError, parse_object, b'{"a": 1}') == "its checksum is not that of its content"


@pytest.mark.parametrize("seed", range(3))
def test_no_changed_bit_of_a_table_changes_what_is_read(seed):
    table = pa.Table.from_pandas(TABLE, preserve_index=False)
    expected, noticed = table.to_pandas(), 0
    for content in changed(dump_table(table), seed):
        try:
            read = parse_table(content).to_pandas()
        except Exception:  # pyarrow raises errors of many classes
            noticed += 1
        else:
            pd.testing.assert_frame_equal(read, expected)
    assert noticed > 50


@pytest.mark.parametrize("seed", range(3))
def test_no_changed_bit_of_an_object_changes_what_is_read(seed):
    noticed = 0
    for content in changed(dump_object(OBJECT), seed):
        try:
            read = parse_object(content)
        except ValueError:
            noticed += 1
        else:  # such as another kind of white space
            assert read == json.loads(json.dumps(OBJECT))
    assert noticed > 100


@pytest.mark.parametrize("seed", range(3))
def test_no_changed_bit_of_a_saved_update_changes_it(tmp_path, seed):
    generator = torch.Generator().manual_seed(seed)
    change = torch.randn(6, 4, generator=generator)
    path = tmp_path / "update.safetensors"
    wb.WeightUpdate({"w": change}).save(path)
    whole, noticed = path.read_bytes(), 0
    for content in changed(whole, seed):
        path.write_bytes(content)
        try:
            read = wb.WeightUpdate.load(path)
        except UpdateError:
            noticed += 1
        else:
            assert torch.equal(read.delta("w"), change)
    assert noticed > 150


def test_a_damaged_update_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "update.safetensors"
    wb.WeightUpdate({"w": torch.ones(2, 2)}).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    error = error_of(UpdateError, wb.WeightUpdate.load, path)
    assert error == f"{path} is a damaged update (its checksum is not that of its content); save it again."


def test_the_store_sets_aside_what_has_changed(tmp_path, caplog):
    store = Store(tmp_path)
    store.write_table("answers/a.parquet", TABLE)
    store.write_json("edits/a.json", {"seconds": 1.25, "failed": None})
    path = tmp_path / "edits" / "a.json"
    path.write_text(path.read_text().replace("1.25", "1.26"))
    with caplog.at_level(logging.WARNING):
        assert store.read_json("edits/a.json") is None
    assert "its checksum is not that of its content" in caplog.text
    assert (tmp_path / "damaged" / "edits" / "a.json").is_file()
    assert CHECKSUM not in store.read_table("answers/a.parquet").columns
