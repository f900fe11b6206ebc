"""Where each task's data lies in a folder: the names that files of the known data sets have, and which split they are.

A name is the end of a path, in any case. Names of the paper's own copies come first: those files are what its numbers
rest on, and some are not the split that they are called after.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

DEPTH = 3  # folders below the one given that are searched
UNKNOWN = "unknown"


@dataclass(frozen=True)
class KnownName:
    """The end of a path under which a data set is found."""

    tail: str  # with a slash at the end for a folder of one-record files
    split: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Its folders and its file, in lower case."""
        return tuple(self.tail.lower().rstrip("/").split("/"))

    @property
    def is_folder(self) -> bool:
        """Whether it names a folder of ``*.txt`` files."""
        return self.tail.endswith("/")

    def matches(self, path: Path) -> bool:
        """Tell whether a path ends so."""
        return tuple(part.lower() for part in path.parts[-len(self.parts) :]) == self.parts


# In order of preference: the paper's copy, then the split that the paper scores, then others, then the native form.
KNOWN_NAMES: dict[str, tuple[KnownName, ...]] = {
    "reasoning": (
        KnownName("test-reasoning.jsonl", "test"),
        KnownName("gsm8k/test.jsonl", "test"),
        KnownName("grade_school_math/data/test.jsonl", "test"),
        KnownName("gsm8k/train.jsonl", "train"),
        KnownName("reasoning.jsonl", UNKNOWN),
    ),
    "nli": (
        KnownName("test-NLI.tsv", "train"),  # RTE's training split, for all its name
        KnownName("RTE/dev.tsv", "dev"),
        KnownName("RTE/superglue_val.jsonl", "dev"),
        KnownName("RTE/val.jsonl", "dev"),
        KnownName("RTE/train.tsv", "train"),
        KnownName("RTE/train.jsonl", "train"),
        KnownName("nli.jsonl", UNKNOWN),
    ),
    "open_qa": (
        KnownName("test-OpenDomainQA.jsonl", "dev"),  # the 3,610 questions of NQ-open.dev.jsonl in another order
        KnownName("nq-open-oracle.jsonl", "dev"),
        KnownName("NQ-open.dev.jsonl", "dev"),
        KnownName("open_qa.jsonl", UNKNOWN),
    ),
    "closed_qa": (
        KnownName("test-ClosedDomainQA.jsonl", "dev"),
        KnownName("boolq/superglue_val.jsonl", "dev"),
        KnownName("BoolQ/val.jsonl", "dev"),
        KnownName("boolq/dev.jsonl", "dev"),
        KnownName("boolq/train.jsonl", "train"),
        KnownName("closed_qa.jsonl", UNKNOWN),
    ),
    "dialogue": (
        KnownName("test-dialogue/", "dev"),
        KnownName("mutual/dev/", "dev"),
        KnownName("mutual/test/", "test"),
        KnownName("mutual/train/", "train"),
        KnownName("dialogue.jsonl", UNKNOWN),
    ),
    "summarization": (
        KnownName("test-summarization.json", "validation"),  # SAMSum's val.json, for all its name
        KnownName("samsum/test.json", "test"),
        KnownName("samsum/val.json", "validation"),
        KnownName("val.json", "validation"),
        KnownName("summarization.jsonl", UNKNOWN),
    ),
    "ner": (
        KnownName("test-NER.txt", "validation"),  # eng.testa, for all its name
        KnownName("eng.testb", "test"),
        KnownName("eng.testa", "validation"),
        KnownName("conll2003/test.txt", "test"),
        KnownName("conll2003/valid.txt", "validation"),
        KnownName("conll2003/dev.txt", "validation"),
        KnownName("eng.train", "train"),
        KnownName("conll2003/train.txt", "train"),
        KnownName("ner.jsonl", UNKNOWN),
    ),
    "sentiment": (
        KnownName("test-SentimentAnalysis.tsv", "dev"),
        KnownName("SST-2/dev.tsv", "dev"),
        KnownName("SST-2/train.tsv", "train"),
        KnownName("sentiment.jsonl", UNKNOWN),
    ),
}


@dataclass(frozen=True)
class Place:
    """A file, or a folder of one-record files, and what is known of it."""

    path: Path
    source: str  # its known name as written on disk, or the file's name
    split: str


def place_of(task: str, path: Path) -> Place:
    """Say what is known of a file by its name.

    Parameters
    ----------
    task : str
        A key of `KNOWN_NAMES`.
    path : Path
        Of the file.

    Returns
    -------
    Place
        With the split "unknown" where the name is in no table.
    """
    return next(
        (_place(path, name) for name in KNOWN_NAMES[task] if name.matches(path)), Place(path, path.name, UNKNOWN)
    )


def find_place(task: str, folder: Path) -> Place | None:
    """Search a folder, and at most `DEPTH` levels below it, for a task's data.

    Parameters
    ----------
    task : str
        A key of `KNOWN_NAMES`.
    folder : Path
        Its own name counts as well: ``mutual/dev`` may be given itself.

    Returns
    -------
    Place or None
        Of the first known name that is there; of several such files the one highest up, then the first by path.
    """
    files, folders = _below(folder)
    for name in KNOWN_NAMES[task]:
        for path in folders if name.is_folder else files:
            if name.matches(path) and (not name.is_folder or dialogue_files(path)):
                return _place(path, name)
    return None


def dialogue_files(folder: Path) -> list[Path]:
    """List the ``*.txt`` files of a folder, ``dev_2.txt`` before ``dev_10.txt``.

    Parameters
    ----------
    folder : Path
        As MuTual is given: one record a file.

    Returns
    -------
    list of Path
    """
    return sorted((path for path in folder.glob("*.txt") if path.is_file()), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", path.name)]


def _place(path: Path, name: KnownName) -> Place:
    return Place(path, "/".join(path.parts[-len(name.parts) :]), name.split)


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders down to `DEPTH`, those highest up first; hidden folders are not entered."""
    files, folders = [], []
    for root, below, names in os.walk(folder, followlinks=True):
        here = Path(root)
        depth = len(here.relative_to(folder).parts)
        below[:] = [name for name in below if not name.startswith(".")] if depth < DEPTH else []
        folders.append(here)
        files += [here / name for name in names]
    return tuple(sorted(paths, key=lambda path: (len(path.parts), str(path))) for paths in (files, folders))
