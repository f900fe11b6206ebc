"""Files are written completely or not at all."""

import pytest

from workbench.storage.files import write_atomically


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
