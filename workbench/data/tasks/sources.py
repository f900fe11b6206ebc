"""The files in which each task's data are found: the paths that files of known data sets have, and their splits.

A known path is the end of a file's path, in upper or lower case. The paths of the paper's own copies come first: the
paper's numbers rest on these files, and some of them are not the split that their name says.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

DEPTH = 3  # number of folder levels below the given one that are searched
UNKNOWN = "unknown"


@dataclass(frozen=True)
class KnownPath:
    """The end of the path of a known data set, with the split that the file holds."""

    ending: str  # with a slash at the end for a folder of files with one record each
    split: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the folders and the file, in lower case."""
        return tuple(self.ending.lower().rstrip("/").split("/"))

    @property
    def is_folder(self) -> bool:
        """Whether it is the path of a folder of ``*.txt`` files."""
        return self.ending.endswith("/")

    def matches(self, path: Path) -> bool:
        """Return whether a path ends with this one."""
        return tuple(part.lower() for part in path.parts[-len(self.parts) :]) == self.parts


# In order of preference: the paper's copy, the split that the paper scores, other splits, the native form.
KNOWN_PATHS: dict[str, tuple[KnownPath, ...]] = {
    "reasoning": (
        KnownPath("test-reasoning.jsonl", "test"),
        KnownPath("gsm8k/test.jsonl", "test"),
        KnownPath("grade_school_math/data/test.jsonl", "test"),
        KnownPath("gsm8k/train.jsonl", "train"),
        KnownPath("reasoning.jsonl", UNKNOWN),
    ),
    "nli": (
        KnownPath("test-NLI.tsv", "train"),  # RTE's training split, despite its name
        KnownPath("RTE/dev.tsv", "dev"),
        KnownPath("RTE/superglue_val.jsonl", "dev"),
        KnownPath("RTE/val.jsonl", "dev"),
        KnownPath("RTE/train.tsv", "train"),
        KnownPath("RTE/train.jsonl", "train"),
        KnownPath("nli.jsonl", UNKNOWN),
    ),
    "open_qa": (
        KnownPath("test-OpenDomainQA.jsonl", "dev"),  # the 3,610 questions of NQ-open.dev.jsonl in another order
        KnownPath("nq-open-oracle.jsonl", "dev"),
        KnownPath("NQ-open.dev.jsonl", "dev"),
        KnownPath("open_qa.jsonl", UNKNOWN),
    ),
    "closed_qa": (
        KnownPath("test-ClosedDomainQA.jsonl", "dev"),
        KnownPath("boolq/superglue_val.jsonl", "dev"),
        KnownPath("BoolQ/val.jsonl", "dev"),
        KnownPath("boolq/dev.jsonl", "dev"),
        KnownPath("boolq/train.jsonl", "train"),
        KnownPath("closed_qa.jsonl", UNKNOWN),
    ),
    "dialogue": (
        KnownPath("test-dialogue/", "dev"),
        KnownPath("mutual/dev/", "dev"),
        KnownPath("mutual/test/", "test"),
        KnownPath("mutual/train/", "train"),
        KnownPath("dialogue.jsonl", UNKNOWN),
    ),
    "summarization": (
        KnownPath("test-summarization.json", "validation"),  # SAMSum's val.json, despite its name
        KnownPath("samsum/test.json", "test"),
        KnownPath("samsum/val.json", "validation"),
        KnownPath("val.json", "validation"),
        KnownPath("summarization.jsonl", UNKNOWN),
    ),
    "ner": (
        KnownPath("test-NER.txt", "validation"),  # eng.testa, despite its name
        KnownPath("eng.testb", "test"),
        KnownPath("eng.testa", "validation"),
        KnownPath("conll2003/test.txt", "test"),
        KnownPath("conll2003/valid.txt", "validation"),
        KnownPath("conll2003/dev.txt", "validation"),
        KnownPath("eng.train", "train"),
        KnownPath("conll2003/train.txt", "train"),
        KnownPath("ner.jsonl", UNKNOWN),
    ),
    "sentiment": (
        KnownPath("test-SentimentAnalysis.tsv", "dev"),
        KnownPath("SST-2/dev.tsv", "dev"),
        KnownPath("SST-2/train.tsv", "train"),
        KnownPath("sentiment.jsonl", UNKNOWN),
    ),
}


@dataclass(frozen=True)
class TaskSource:
    """A file, or a folder of files with one record each, with the name and split reported with scores."""

    path: Path
    name: str  # the known path as written on disk, or the file's name
    split: str


def identify_file(task: str, path: Path) -> TaskSource:
    """Return the source for a file, identified by its path.

    Parameters
    ----------
    task : str
        A key of `KNOWN_PATHS`.
    path : Path
        The file.

    Returns
    -------
    TaskSource
        Its split is "unknown" if the path is not in the table.
    """
    known = next((known for known in KNOWN_PATHS[task] if known.matches(path)), None)
    return TaskSource(path, path.name, UNKNOWN) if known is None else _make_source(path, known)


def find_source(task: str, folder: Path) -> TaskSource | None:
    """Search a folder, and at most `DEPTH` levels below it, for a task's data.

    Parameters
    ----------
    task : str
        A key of `KNOWN_PATHS`.
    folder : Path
        The folder; its own name counts as well, so ``mutual/dev`` itself may be given.

    Returns
    -------
    TaskSource or None
        The source for the first known path that exists. Of several such files it is the one highest up, then the
        first by path.
    """
    files, folders = _list_below(folder)
    for known in KNOWN_PATHS[task]:
        for path in folders if known.is_folder else files:
            if known.matches(path) and (not known.is_folder or list_dialogue_files(path)):
                return _make_source(path, known)
    return None


def list_dialogue_files(folder: Path) -> list[Path]:
    """Return the ``*.txt`` files of a folder such as MuTual's, ``dev_2.txt`` before ``dev_10.txt``."""
    return sorted((path for path in folder.glob("*.txt") if path.is_file()), key=_natural_key)


def _natural_key(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", path.name)]


def _make_source(path: Path, known: KnownPath) -> TaskSource:
    return TaskSource(path, "/".join(path.parts[-len(known.parts) :]), known.split)


def _list_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files and the folders down to `DEPTH`, those highest up first; hidden folders are not entered."""
    files, folders = [], []
    for root, below, names in os.walk(folder, followlinks=True):
        here = Path(root)
        depth = len(here.relative_to(folder).parts)
        below[:] = [name for name in below if not name.startswith(".")] if depth < DEPTH else []
        folders.append(here)
        files += [here / name for name in names]
    return sorted(files, key=_depth_key), sorted(folders, key=_depth_key)


def _depth_key(path: Path) -> tuple[int, str]:
    return len(path.parts), str(path)
