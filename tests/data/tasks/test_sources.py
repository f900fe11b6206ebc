"""The files of a folder that are chosen for a task, and the splits that are reported for them."""

from pathlib import Path

import pytest

from workbench.data.tasks.formats import TASK_FORMATS
from workbench.data.tasks.sources import KNOWN_PATHS, find_source, identify_file, list_dialogue_files


def make(folder: Path, *names: str) -> Path:
    """Create empty files, with their folders, and return the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_every_task_has_known_names_and_ends_with_the_native_one():
    assert KNOWN_PATHS.keys() == TASK_FORMATS.keys()
    assert {task: names[-1].ending for task, names in KNOWN_PATHS.items()} == {
        task: f"{task}.jsonl" for task in TASK_FORMATS
    }


@pytest.mark.parametrize("task", KNOWN_PATHS)
def test_of_all_known_files_the_first_in_the_table_is_taken(tmp_path, task):
    tails = [f"{name.ending}x_1.txt" if name.is_folder else name.ending for name in KNOWN_PATHS[task]]
    make(tmp_path, *tails)
    for name, tail in zip(KNOWN_PATHS[task], tails, strict=True):
        found = find_source(task, tmp_path)
        assert (found.name, found.split) == (name.ending.rstrip("/"), name.split)
        (tmp_path / tail).unlink()
    assert find_source(task, tmp_path) is None


@pytest.mark.parametrize(
    ("task", "name", "split"),
    [
        ("nli", "test-NLI.tsv", "train"),  # the names of the paper's copies can be misleading
        ("summarization", "test-summarization.json", "validation"),
        ("ner", "test-NER.txt", "validation"),
        ("reasoning", "test-reasoning.jsonl", "test"),
        ("nli", "glue/rte/DEV.TSV", "dev"),
        ("nli", "dev.tsv", "unknown"),  # of which data set?
        ("ner", "mine.txt", "unknown"),
        ("sentiment", "RTE/dev.tsv", "unknown"),  # another task's
    ],
)
def test_the_end_of_the_path_in_any_case_identifies_the_split(tmp_path, task, name, split):
    assert identify_file(task, make(tmp_path, name) / name).split == split


def test_the_source_is_the_known_name_as_written_on_disk_without_the_folders_above(tmp_path):
    make(tmp_path, "far/rte/Dev.tsv")
    assert find_source("nli", tmp_path).name == "rte/Dev.tsv"
    assert identify_file("nli", tmp_path / "far" / "mine.tsv").name == "mine.tsv"


def test_three_levels_below_are_searched_and_no_more(tmp_path):
    make(tmp_path, "a/b/c/d/test-NLI.tsv")
    assert find_source("nli", tmp_path) is None
    assert find_source("nli", tmp_path / "a").path == tmp_path / "a/b/c/d/test-NLI.tsv"


def test_the_file_highest_up_is_taken_then_the_first_by_path(tmp_path):
    make(tmp_path, "z/b/test-NLI.tsv", "z/a/test-NLI.tsv")
    assert find_source("nli", tmp_path).path == tmp_path / "z/a/test-NLI.tsv"
    make(tmp_path, "z/test-NLI.tsv")
    assert find_source("nli", tmp_path).path == tmp_path / "z/test-NLI.tsv"


def test_the_name_of_the_folder_given_counts(tmp_path):
    make(tmp_path, "RTE/dev.tsv", "mutual/dev/dev_1.txt")
    assert find_source("nli", tmp_path / "RTE").split == "dev"
    assert find_source("dialogue", tmp_path / "mutual" / "dev").name == "mutual/dev"


def test_hidden_folders_are_passed_over(tmp_path):
    assert find_source("nli", make(tmp_path, ".git/test-NLI.tsv")) is None


def test_a_folder_without_text_files_is_passed_over(tmp_path):
    make(tmp_path, "test-dialogue/readme.md", "mutual/test/test_1.txt")
    assert find_source("dialogue", tmp_path).name == "mutual/test"


def test_dialogue_files_stand_in_the_order_of_their_numbers(tmp_path):
    make(tmp_path, *(f"dev_{i}.txt" for i in (10, 2, 1, 100, 20)), "notes.md")
    assert [path.name for path in list_dialogue_files(tmp_path)] == [f"dev_{i}.txt" for i in (1, 2, 10, 20, 100)]
