"""A disk that is full, read-only or not ours ends in one sentence; what was there stays, and nothing else is left."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers import error_of
from tests.tiny_models import byte_level_tokenizer
from workbench.errors import DiskError, ModelError
from workbench.experiment.store import Store
from workbench.storage.cache import cache_dir
from workbench.storage.disk import disk_errors
from workbench.storage.files import write_atomically
from workbench.storage.folders import write_folder_atomically
from workbench.storage.tensors import write_tensors

NO_SPACE = "(No space left on device); free some space, or give a folder on another disk."
KINDS = ("text", "tensors", "folder", "tokenizer", "store")


def write(kind, folder, size):
    """Write something of about that many bytes; return its path."""
    path = folder / kind
    if kind == "text":
        write_atomically(path, lambda scratch: Path(scratch).write_bytes(b"x" * size))
    elif kind == "tensors":
        write_tensors(path, {"w": torch.zeros(size // 4)}, {})
    elif kind == "folder":
        write_folder_atomically(path, lambda scratch: (scratch / "a").write_bytes(b"x" * size), replace=True)
    elif kind == "tokenizer":
        write_folder_atomically(path, byte_level_tokenizer().save_pretrained, replace=True)
    else:
        path = folder / "edits" / "a.json"
        Store(folder).write("edits/a.json", b"x" * size)
    return path


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_said_and_leaves_what_was_there(kind, small_disk):
    path = write(kind, small_disk.path, 1000)
    before = content(small_disk.path)
    small_disk.fill(leave=4096)
    assert error_of(DiskError, write, kind, small_disk.path, 40_000) == f"{path} cannot be written {NO_SPACE}"
    assert content(small_disk.path) == before
    small_disk.free()
    write(kind, small_disk.path, 40_000)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_only_disk_is_said(kind, small_disk):
    path = write(kind, small_disk.path, 1000)
    before = content(small_disk.path)
    small_disk.make_read_only()
    sentence = error_of(Exception, write, kind, small_disk.path, 2000)
    if kind in ("folder", "tokenizer"):
        assert sentence == f"{path}: the folder {small_disk.path} cannot be written to; choose another."
    else:
        assert sentence == f"{path} cannot be written (Read-only file system); give a folder that can be written."
    assert content(small_disk.path) == before


@pytest.mark.parametrize("kind", ["text", "tensors", "store"])
def test_a_file_where_a_folder_is_to_be_made_is_said(kind, tmp_path):
    (tmp_path / "file").write_text("mine")
    url = tmp_path / "file" / "below"
    sentence = error_of(DiskError, write, kind, url, 10)
    assert sentence.endswith(" cannot be written (Not a directory); give a folder that can be written.")
    assert content(tmp_path) == {tmp_path / "file": b"mine"}


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        ("EDQUOT", "free some space, or give a folder on another disk."),
        ("EACCES", "give a folder that can be written."),
        ("EPERM", "give a folder that can be written."),
        ("EIO", "give a folder that can be written."),
        ("EFBIG", "raise the limit on the size of files (ulimit -f)."),
    ],
)
def test_each_way_in_which_a_disk_refuses_has_its_cure(number, cure, tmp_path):
    code = getattr(errno, number)

    def refuse(scratch):
        Path(scratch).write_text("half")
        raise OSError(code, os.strerror(code), scratch)

    path = tmp_path / "file"
    path.write_text("old")
    assert (
        error_of(DiskError, write_atomically, path, refuse) == f"{path} cannot be written ({os.strerror(code)}); {cure}"
    )
    assert content(tmp_path) == {path: b"old"}


def test_errors_that_are_not_of_the_disk_stay_as_they_are(tmp_path):
    for err in (
        ValueError("no"),
        FileNotFoundError(errno.ENOENT, "gone"),
        ModelError("[Errno 28] quoted"),
        OSError("?"),
    ):
        with pytest.raises(type(err)) as caught, disk_errors(tmp_path):
            raise err
        assert caught.value is err


def test_the_cure_of_the_cache_and_of_temporary_files_is_their_variable(small_disk, monkeypatch):
    small_disk.fill()
    monkeypatch.setenv("WORKBENCH_CACHE", str(small_disk.path / "cache"))
    path = cache_dir() / "a"
    assert error_of(DiskError, write, "text", cache_dir(), 10_000) == (
        f"{cache_dir() / 'text'} cannot be written (No space left on device); free some space, or set WORKBENCH_CACHE "
        "to a folder on another disk."
    )
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk.path))
    with tempfile.TemporaryDirectory() as folder:
        sentence = error_of(DiskError, write, "text", Path(folder), 10_000)
    assert sentence.endswith("free some space, or set TMPDIR to a folder on another disk.")
    assert not path.exists()


def test_a_full_disk_for_temporary_files_never_condemns_a_file_of_a_store(small_disk, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    save_file({"w": torch.zeros(10_000)}, tmp_path / "u")
    store.write("edits/a.safetensors", (tmp_path / "u").read_bytes())
    before = content(tmp_path / "store")
    small_disk.fill()
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk.path))
    assert error_of(DiskError, store.read_update, "edits/a.safetensors") == (
        f"{small_disk.path} cannot be written (No space left on device); free some space, or set TMPDIR to a folder on "
        "another disk."
    )
    assert content(tmp_path / "store") == before


def test_another_user_without_permission_is_told(tmp_path):
    if os.geteuid():
        pytest.skip("only root can become another user")
    script = f"""
import os
from pathlib import Path
from workbench.storage.files import write_atomically
from workbench.errors import DiskError
os.setuid(65534)
try:
    write_atomically({str(tmp_path / "file")!r}, lambda scratch: Path(scratch).write_text("x"))
except DiskError as err:
    print(err)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (
        done.stdout
        == f"{tmp_path / 'file'} cannot be written (Permission denied); give a folder that can be written.\n"
    )


def test_without_a_home_the_cache_is_asked_for_and_no_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "WORKBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    pwd = pytest.importorskip("pwd")

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert error_of(DiskError, cache_dir) == (
        "no home folder is known, so there is no cache; set WORKBENCH_CACHE to a folder."
    )
    monkeypatch.setenv("WORKBENCH_CACHE", "here")
    assert cache_dir() == Path("here")
    assert list(tmp_path.iterdir()) == []
