"""Files are written completely or not at all."""

import os

import pytest
import torch

from workbench.storage.files import write_atomically
from workbench.storage.tensors import write_tensors


def write(text):
    """Return a function that writes a text to the path it is given."""

    def to(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    return to


def test_a_file_and_its_folder_are_created(tmp_path):
    path = tmp_path / "new" / "file.txt"
    assert write_atomically(path, write("Rome")) == path
    assert path.read_text(encoding="utf-8") == "Rome"
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, write("old"))

    def interrupt(scratch):
        write("half of the n")(scratch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupt)
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text(encoding="utf-8") == "old"
    write_atomically(path, write("new"))
    assert path.read_text(encoding="utf-8") == "new"


def test_a_writer_that_leaves_no_file_is_heard(tmp_path):
    def vanish(scratch):
        os.unlink(scratch)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(tmp_path / "file.txt", vanish)


def test_a_full_disk_is_an_os_error_that_names_the_file(tmp_path):
    resource = pytest.importorskip("resource")
    path, before = tmp_path / "u.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_tensors(path, {"w": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
