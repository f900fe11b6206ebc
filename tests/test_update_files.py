"""An update survives its file, and a file that holds none is refused in one sentence."""

import json
import stat
from contextlib import suppress

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.updates import KINDS, REQUEST, random_change, record_of
from workbench.changes import LowRank, Sparse
from workbench.errors import UpdateError
from workbench.storage import tensors as tensor_files
from workbench.update import FORMAT, WeightUpdate


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_save_and_load_round_trip_every_bit(tmp_path, kind, dtype):
    keys, diagnostics = {"a.weight": torch.randn(2, 5)}, {"denominator": 1.5, "none": None}
    regularizer = {"kind": "RECT", "keep": 0.4}
    record = record_of("ROME", losses=((1.5, 0.1), (2.0,)), keys=keys, diagnostics=diagnostics, regularizer=regularizer)
    change = random_change(kind, (13, 7), dtype=dtype)
    saved = WeightUpdate({"a.weight": change}, (record, record_of("FT")), "tiny", "0123456789abcdef")
    saved.save(tmp_path / "update.safetensors")
    loaded = WeightUpdate.load(tmp_path / "update.safetensors")
    assert (loaded.model, loaded.fingerprint) == (saved.model, saved.fingerprint)
    assert [each.as_dict() for each in loaded.records] == [each.as_dict() for each in saved.records]
    assert loaded.records[0].requests == (REQUEST,)
    assert loaded.records[0].steps == (2, 1)
    assert torch.equal(loaded.records[0].keys["a.weight"], keys["a.weight"])
    assert loaded.records[1].keys == {}
    assert list(loaded) == ["a.weight"]
    assert type(loaded["a.weight"]) is type(change)
    assert loaded["a.weight"].shape == (13, 7)
    assert loaded.delta("a.weight").dtype == dtype
    assert torch.equal(loaded.delta("a.weight"), saved.delta("a.weight"))


def test_an_update_without_a_model_round_trips(tmp_path):
    WeightUpdate({"b": torch.ones(3), "a": torch.ones(2, 2)}).save(tmp_path / "u")
    loaded = WeightUpdate.load(tmp_path / "u")
    assert (loaded.model, loaded.fingerprint, loaded.records, list(loaded)) == (None, None, (), ["b", "a"])
    assert loaded.delta("b").shape == (3,)


def test_tensors_that_share_memory_are_saved(tmp_path):
    matrix = torch.randn(4, 4)
    WeightUpdate({"a": matrix, "b": matrix, "c": matrix.T, "d": LowRank(matrix[:, 1:], matrix[:, :3])}).save(
        tmp_path / "u"
    )
    loaded = WeightUpdate.load(tmp_path / "u")
    assert torch.equal(loaded.delta("a"), matrix)
    assert torch.equal(loaded.delta("b"), matrix)
    assert torch.equal(loaded.delta("c"), matrix.T)
    assert torch.equal(loaded.delta("d"), matrix[:, 1:] @ matrix[:, :3].T)


def test_files_are_as_small_as_the_kind_allows(tmp_path):
    n, sizes = 200, {}
    mask = torch.zeros(n * n, dtype=torch.bool)
    mask[: n * n * 2 // 5] = True
    changes = {
        "LowRank": random_change("LowRank", (n, n)),
        "Sparse": Sparse.from_mask(torch.randn(n, n), mask.reshape(n, n)),
        "Dense": random_change("Dense", (n, n)),
    }
    for kind, change in changes.items():
        WeightUpdate({"W": change}).save(tmp_path / kind)
        sizes[kind] = (tmp_path / kind).stat().st_size
    header = 1000
    assert sizes["Dense"] >= 4 * n * n
    assert sizes["Sparse"] <= 4 * n * n * 2 // 5 + n * n // 8 + header  # values of 40 %, one bit per entry
    assert sizes["LowRank"] <= 4 * 2 * 2 * n + header


def test_save_makes_the_folder_and_leaves_only_the_file(tmp_path):
    WeightUpdate({"W": torch.ones(2, 2)}).save(tmp_path / "new" / "folder" / "u.safetensors")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["u.safetensors"]


def test_a_saved_file_can_be_read_by_others(tmp_path):
    WeightUpdate({"W": torch.ones(2, 2)}).save(tmp_path / "u")
    assert stat.S_IMODE((tmp_path / "u").stat().st_mode) == 0o644


def test_a_failing_save_keeps_the_old_file_and_leaves_no_scratch(tmp_path, monkeypatch):
    path = tmp_path / "u.safetensors"
    WeightUpdate({"W": torch.ones(2, 2)}).save(path)
    before = path.read_bytes()

    def fail_halfway(given, file, metadata):
        with open(file, "wb") as out:
            out.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(tensor_files, "save_file", fail_halfway)
    with pytest.raises(OSError, match="no space left on device"):
        WeightUpdate({"W": torch.zeros(2, 2)}).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["u.safetensors"]


def unreadable(path):
    """The sentence of a refused file; the reading library's own words are in it."""
    with pytest.raises(UpdateError) as caught:
        WeightUpdate.load(path)
    cause = caught.value.__cause__
    assert cause is not None
    assert str(caught.value) == f"{path} cannot be read as a saved update ({cause}); give a file that save() wrote."


def test_a_missing_file_is_one_sentence(tmp_path):
    unreadable(tmp_path / "missing.safetensors")


def test_a_folder_is_one_sentence(tmp_path):
    unreadable(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not this format", b"\xff" * 100])
def test_a_file_of_another_format_is_one_sentence(tmp_path, content):
    (tmp_path / "u").write_bytes(content)
    unreadable(tmp_path / "u")


@pytest.mark.parametrize("left", [4, 60, -1])
def test_a_truncated_file_is_one_sentence(tmp_path, left):
    WeightUpdate({"W": random_change("Sparse", (9, 9))}).save(tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:left])
    unreadable(tmp_path / "cut")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "workbench-update-0", "update": "{}"}])
def test_a_safetensors_file_of_something_else_is_refused(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    save_file({"W": torch.ones(2, 2)}, path, metadata=metadata)
    with pytest.raises(UpdateError) as caught:
        WeightUpdate.load(path)
    assert str(caught.value) == f"{path} is a safetensors file, but not a saved update; give a file that save() wrote."


def test_missing_metadata_are_named(tmp_path):
    save_file({"W:matrix": torch.ones(2, 2)}, tmp_path / "u", metadata={"format": FORMAT})
    with pytest.raises(UpdateError) as caught:
        WeightUpdate.load(tmp_path / "u")
    assert (
        str(caught.value) == f"{tmp_path / 'u'} is a damaged update (Expecting value: line 1 column 1 (char 0)); "
        "save it again."
    )


GOOD_META = {"kinds": {"W": "Dense"}, "records": [], "model": None, "fingerprint": None}


@pytest.mark.parametrize(
    "meta",
    [
        [],
        "text",
        {},
        {**GOOD_META, "kinds": ["W"]},
        {**GOOD_META, "records": None},
        {**GOOD_META, "model": 7},
        {**GOOD_META, "fingerprint": ["0"]},
        {key: value for key, value in GOOD_META.items() if key != "fingerprint"},
    ],
)
def test_malformed_metadata_are_named(tmp_path, meta):
    path = tmp_path / "u"
    save_file({"W:matrix": torch.ones(2, 2)}, path, metadata={"format": FORMAT, "update": json.dumps(meta)})
    with pytest.raises(UpdateError) as caught:
        WeightUpdate.load(path)
    assert str(caught.value) == f"{path} is a damaged update (its metadata are not those of an update); save it again."


@pytest.mark.parametrize("record", ["ROME", {}, {**record_of("ROME").as_dict(), "requests": [{"subject": "Paris"}]}])
def test_a_malformed_record_is_refused(tmp_path, record):
    path, meta = tmp_path / "u", json.dumps({**GOOD_META, "records": [record]})
    save_file({"W:matrix": torch.ones(2, 2)}, path, metadata={"format": FORMAT, "update": meta})
    with pytest.raises(UpdateError, match=r"is a damaged update \(its metadata hold a malformed record.*save it again"):
        WeightUpdate.load(path)


_BYTES = torch.full((2,), 255, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("Dense", {}),
        ("Dense", {"matrix": torch.ones(2, 2, dtype=torch.int32)}),
        ("LowRank", {"rows": torch.ones(2, 1)}),
        ("LowRank", {"rows": torch.ones(2, 1), "cols": torch.ones(2, 2)}),
        ("LowRank", {"rows": torch.ones(2), "cols": torch.ones(2)}),
        ("Sparse", {"bits": _BYTES, "values": torch.ones(12)}),
        ("Sparse", {"bits": _BYTES, "values": torch.ones(11), "shape": torch.tensor([3, 4])}),
        ("Sparse", {"bits": _BYTES, "values": torch.ones(12), "shape": torch.tensor([3, 400])}),
        ("Sparse", {"bits": _BYTES, "values": torch.ones(12), "shape": torch.tensor([-3, -4])}),
        ("Sparse", {"bits": _BYTES, "values": torch.ones(12), "shape": torch.tensor([3.0, 4.0])}),
        ("Sparse", {"bits": _BYTES, "values": torch.ones(12), "shape": torch.tensor(12)}),
        ("Sparse", {"bits": _BYTES.char(), "values": torch.ones(12), "shape": torch.tensor([3, 4])}),
        ("Sideways", {"matrix": torch.ones(2, 2)}),
    ],
)
def test_missing_or_unfitting_tensors_are_named(tmp_path, kind, parts):
    path, meta = tmp_path / "u", {**GOOD_META, "kinds": {"a.weight": kind}}
    tensors = {f"a.weight:{key}": tensor for key, tensor in parts.items()}
    save_file(tensors, path, metadata={"format": FORMAT, "update": json.dumps(meta)})
    with pytest.raises(UpdateError) as caught:
        WeightUpdate.load(path)
    assert str(caught.value) == (
        f"{path} is a damaged update (the tensors of a.weight are not those of a {kind} update); save it again."
    )


def test_any_flipped_byte_of_the_header_is_an_update_error_or_harmless(tmp_path):
    WeightUpdate({"W": random_change("Sparse", (5, 5)), "V": random_change("LowRank", (5, 4))}).save(tmp_path / "u")
    data = (tmp_path / "u").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for place in range(end):
        (tmp_path / "flipped").write_bytes(data[:place] + bytes([data[place] ^ 0x05]) + data[place + 1 :])
        with suppress(UpdateError):
            WeightUpdate.load(tmp_path / "flipped")
            continue
        refused += 1
    assert refused > end // 2 > 100


def test_a_file_names_its_kind_and_parts(tmp_path):
    WeightUpdate({"W": random_change("Sparse", (5, 5))}).save(tmp_path / "u")
    with safe_open(tmp_path / "u", framework="pt") as file:
        assert sorted(file.keys()) == ["W:bits", "W:shape", "W:values"]
        assert json.loads(file.metadata()["update"])["kinds"] == {"W": "Sparse"}
