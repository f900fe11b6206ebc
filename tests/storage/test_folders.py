"""Folders are written completely or not at all, and nothing is replaced unless allowed."""

import pytest

from tests.helpers import error_of
from workbench.errors import UpdateError
from workbench.storage.folders import write_folder_atomically


def fill(text):
    """Return a function that writes a text to a file in the folder it is given."""
    return lambda folder: (folder / "file.txt").write_text(text, encoding="utf-8")


def test_a_folder_is_created_and_its_files_can_be_read_by_all(tmp_path):
    folder = write_folder_atomically(tmp_path / "new", fill("Rome"))
    assert (folder / "file.txt").read_text(encoding="utf-8") == "Rome"
    assert (folder / "file.txt").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_not_empty_is_replaced_only_if_allowed(tmp_path):
    folder = write_folder_atomically(tmp_path / "folder", fill("old"))
    sentence = error_of(UpdateError, write_folder_atomically, folder, fill("new"))
    assert sentence == f"the folder {folder} exists and is not empty; give another name."
    write_folder_atomically(folder, fill("new"), replace=True)
    assert (folder / "file.txt").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_old_folder_stays_when_writing_fails(tmp_path):
    folder = write_folder_atomically(tmp_path / "folder", fill("old"))

    def interrupt(scratch):
        fill("half of the n")(scratch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder_atomically(folder, interrupt, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (folder / "file.txt").read_text(encoding="utf-8") == "old"


def test_a_missing_parent_folder_and_a_file_in_the_way_are_refused(tmp_path):
    sentence = error_of(UpdateError, write_folder_atomically, tmp_path / "no" / "folder", fill("Rome"))
    assert sentence == f"{tmp_path / 'no' / 'folder'}: the folder {tmp_path / 'no'} does not exist; make it first."
    (tmp_path / "file").touch()
    sentence = error_of(UpdateError, write_folder_atomically, tmp_path / "file", fill("Rome"))
    assert sentence == f"{tmp_path / 'file'} is a file; give the name of a folder to make."
