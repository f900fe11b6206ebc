"""Files with one tensor and a checksum: every damage is noticed."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from workbench.storage.checked import read_checked, read_record, write_checked

RECORD = {"model": "tiny", "n": 3, "share": 0.1, "nothing": None}


@pytest.fixture
def tensor():
    """Give a tensor."""
    return torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def path(tmp_path, tensor):
    """Give a file with the tensor."""
    path = tmp_path / "folder" / "file.safetensors"
    write_checked(path, tensor, RECORD)
    return path


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.float32])
def test_what_was_written_is_read(tmp_path, tensor, dtype):
    path = tmp_path / "file.safetensors"
    write_checked(path, (10 * tensor).to(dtype).T, RECORD)
    found, record = read_checked(path)
    assert torch.equal(found, (10 * tensor).to(dtype).T)
    assert found.dtype == dtype
    assert record == RECORD
    assert read_record(path) == RECORD


def test_the_same_content_gives_the_same_bytes(path, tensor):
    first = path.read_bytes()
    write_checked(path, tensor.clone(), dict(RECORD))
    assert path.read_bytes() == first


def test_a_missing_file_is_not_reported_as_damaged(tmp_path, caplog):
    assert read_checked(tmp_path / "none") is None
    assert read_record(tmp_path / "none") is None
    assert not caplog.messages


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_every_single_flipped_bit_is_noticed(path, tensor, caplog):
    whole = path.read_bytes()
    places = [*range(0, len(whole) - tensor.numel() * 8), *range(len(whole) - tensor.numel() * 8, len(whole), 97)]
    with caplog.at_level(logging.WARNING, logger="workbench.storage.checked"):
        for n, place in enumerate(places, start=1):
            path.write_bytes(flip(whole, place))
            found = read_checked(path)
            # a flip in the header may leave its meaning unchanged, as where one blank becomes another
            assert found is None or (torch.equal(found[0], tensor) and found[1] == RECORD)
            assert len(caplog.messages) <= n
    assert len(caplog.messages) > 0.95 * len(places) > 100
    assert caplog.messages[-1] == (
        f"the cached file {path} is damaged (its checksum is not that of its content); it is rebuilt."
    )


@pytest.mark.parametrize("size", [0, 4, 100, 1000])
def test_a_file_cut_short_is_noticed(path, caplog, size):
    path.write_bytes(path.read_bytes()[:size])
    assert read_checked(path) is None
    assert caplog.messages[0].startswith(f"the cached file {path} is damaged (")


def test_a_file_of_another_kind_is_noticed(path, tensor):
    save_file({"tensor": tensor}, path)
    assert read_checked(path) is None
    assert read_record(path) is None
