"""Files are written completely or not at all."""

import os
import socket
from pathlib import Path

import pytest
import torch

from tests.helpers import error_of
from workbench.errors import DiskError, OutputError
from workbench.inputs import shown
from workbench.storage.files import check_file_name, write_atomically
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


def test_a_limit_on_the_size_of_files_is_said(tmp_path):
    resource = pytest.importorskip("resource")
    path, before = tmp_path / "u.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        sentence = error_of(DiskError, write_tensors, path, {"w": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sentence == f"{path} cannot be written (File too large); raise the limit on the size of files (ulimit -f)."
    assert list(tmp_path.iterdir()) == []


def test_a_folder_a_pipe_a_socket_and_a_device_are_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("to-fifo").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        kinds = {
            "folder": "a folder",
            "fifo": "a pipe",
            "to-fifo": "a pipe",
            "socket": "a socket",
            "/dev/null": "a device",
        }
        for name, kind in kinds.items():
            before = os.lstat(name)
            sentence = error_of(OutputError, write_atomically, name, lambda scratch: pytest.fail("written"))
            assert sentence == f"{name} is {kind}; give the name of a file."
            assert (os.lstat(name).st_ino, os.lstat(name).st_mode) == (before.st_ino, before.st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "folder", "socket", "to-fifo"]


@pytest.mark.parametrize("name", ["figure7_rome", "table1-2.b", "Größe 2", "a" * 200])
def test_plain_names_can_name_a_file(name):
    assert check_file_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../evil", "a/b", "/etc/x", "a\\b", "C:x", ".hidden", "a\n", "a\0b", "a" * 201, None, 7]
)
def test_names_that_lead_elsewhere_or_name_nothing_are_refused(name):
    assert error_of(OutputError, check_file_name, name) == (
        f"{shown(name)} cannot name a file; give letters, digits and _ - . without folders."
    )
