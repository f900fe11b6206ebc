"""What killed processes leave is removed by the next one; what is being written stays."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workbench.experiment.store import Store
from workbench.storage.files import write_atomically
from workbench.storage.folders import write_folder_atomically
from workbench.storage.scratch import SUFFIX

pytest.importorskip("fcntl", reason="this system has no such locks")

# A write into the working folder that stops half-way, and says so.
HALF = """
import sys, time
from pathlib import Path

def stop(*names):
    print("half", flush=True)
    time.sleep(600)

if sys.argv[1] == "store":
    from workbench.experiment.store import Store
    Store._rename = stop
    Store("store").write("edits/a.json", b"{}")
elif sys.argv[1] == "folder":
    from workbench.storage.folders import write_folder_atomically
    write_folder_atomically("folder", lambda scratch: stop((scratch / "a").write_text("half")))
else:
    from workbench.storage.files import write_atomically
    write_atomically("file.txt", lambda scratch: stop(Path(scratch).write_text("half")))
"""
KINDS = ("file", "folder", "store")


@pytest.fixture
def writing(folder):
    """Give a function that starts a process which has written half of something."""
    processes = []

    def start(kind):
        command = [sys.executable, "-c", HALF, kind]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        processes.append(process)
        assert process.stdout.readline() == "half\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def write_beside(kind):
    """Write something else into the same folder."""
    if kind == "store":
        Store("store").write("edits/b.json", b"{}")
    elif kind == "folder":
        write_folder_atomically("other", lambda scratch: (scratch / "a").write_text("whole"))
    else:
        write_atomically("other.txt", lambda scratch: Path(scratch).write_text("whole"))


def leftovers():
    return sorted(path.name for path in Path().rglob(f"*{SUFFIX}"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_process_has_left_is_removed_by_the_next_write_there(writing, kind):
    kill(writing(kind))
    assert len(leftovers()) == 1
    write_beside(kind)
    assert leftovers() == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_being_written_stays(writing, kind):
    process = writing(kind)
    [being_written] = leftovers()
    write_beside(kind)
    assert leftovers() == [being_written]
    kill(process)


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_whose_new_file_another_process_takes_for_a_leftover_makes_another(folder, monkeypatch, kind):
    made, names = [], {"mkstemp": os.unlink, "mkdtemp": os.rmdir}

    def taken_at_first(make, remove):
        def made_and_taken(*args, **given):
            found = make(*args, **given)
            made.append(Path(found if isinstance(found, str) else found[1]))
            if len(made) == 1:
                remove(made[0])  # before it is locked
            return found

        return made_and_taken

    for name, remove in names.items():
        monkeypatch.setattr(tempfile, name, taken_at_first(getattr(tempfile, name), remove))
    write_beside(kind)
    assert len(made) == 2
    assert leftovers() == []
    [written] = [path for path in Path().rglob("*") if path.is_file()]
    assert written.stat().st_mode & 0o777 == 0o644


def test_hidden_files_of_others_stay(folder):
    for name in (".file.txt-12345678", ".hidden", f"visible{SUFFIX}"):
        Path(name).write_text("precious")
    Path(f".mine{SUFFIX}").write_text("half")
    write_beside("file")
    assert sorted(path.name for path in Path().iterdir()) == [
        ".file.txt-12345678",
        ".hidden",
        "other.txt",
        f"visible{SUFFIX}",
    ]


def test_a_leftover_that_cannot_be_removed_does_not_stop_a_write(folder, monkeypatch):
    Path(f".mine{SUFFIX}").write_text("half")

    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.name.startswith(".mine"):
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    write_beside("file")
    assert Path("other.txt").read_text() == "whole"
