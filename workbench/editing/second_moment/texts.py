"""Plain text as chunks of tokens: from a file, a folder, or a data set of the hub."""

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from workbench.encoding import opening_ids
from workbench.errors import EditError, first_line
from workbench.extras import require_extra
from workbench.inputs import require_path
from workbench.storage.digests import sha256_of_file

CHUNK = 256  # tokens of one chunk; fewer if the model takes only shorter texts

# The published code reads wikitext-103-raw-v1 and a dump of the English Wikipedia of 2020 or 2022 (kmeng01/rome and
# kmeng01/memit, rome/layer_stats.py), which the hub no longer serves; the dump here is the one it has as Parquet.
HUB_NAMES = {
    "wikitext": "Salesforce/wikitext:wikitext-103-raw-v1@b08601e04326c79dfdd32d625aee71d232d685c3",
    "wikipedia": "wikimedia/wikipedia:20231101.en@b04c8d1ceb2f5cd4588862100d08de323dccfbaa",
}
_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?@(?P<revision>[0-9a-f]{40})")
_SPLIT, _COLUMN = "train", "text"
_PIECE = 1 << 16  # characters of a text file that are tokenized together, up to the end of the line


class TextSource(Protocol):
    """A source of documents."""

    @property
    def name(self) -> str:
        """Name of the source in messages and records."""

    def digest(self) -> bytes:
        """Return a hash of all its text, independent of where it is stored."""

    def documents(self) -> Iterator[str]:
        """Yield its documents, always in the same order, read as needed."""


def find_source(name: str) -> TextSource:
    """Return the text source of a name.

    - A file: UTF-8 text, or Parquet if it is called ``*.parquet``.
    - A folder: all its ``*.txt`` files at any depth, in the order of their paths; where it has none, all its
      ``*.parquet`` files.
    - ``wikitext`` (WikiText-103, raw) or ``wikipedia`` (English, November 2023), from the hub, at a pinned revision.
    - ``owner/name@commit`` or ``owner/name:config@commit``: the training split of any data set of the hub, at the
      commit of 40 hexadecimal digits.

    A file or folder that exists wins over a name of the hub. Parquet files and data sets have a column ``text``.

    Parameters
    ----------
    name : str
        A file, a folder or a name of one of the forms above.

    Returns
    -------
    TextSource

    Raises
    ------
    EditError
        If there is no such file, folder or name.
    """
    require_path(name, "the text source", EditError)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return _find_in_folder(name, path)
    if path.exists():
        return ParquetFiles(name, (path,)) if path.suffix == ".parquet" else TextFiles(name, (path,))
    if on_hub := _ON_HUB.fullmatch(HUB_NAMES.get(name, name)):
        return HubDataset(**on_hub.groupdict())
    raise EditError(
        f"no text source {name!r}: it is neither a file nor a folder, nor one of {', '.join(HUB_NAMES)}, nor a data "
        "set of the hub written as owner/name:config@commit with a commit of 40 hexadecimal digits."
    )


def _find_in_folder(name: str, path: Path) -> TextSource:
    for suffix, kind in ((".txt", TextFiles), (".parquet", ParquetFiles)):
        if paths := tuple(sorted(file for file in path.rglob(f"*{suffix}") if file.is_file())):
            return kind(name, paths)
    raise EditError(f"the folder {name} holds no *.txt and no *.parquet file; put the texts in it as such.")


@dataclass(frozen=True)
class TextFiles:
    """UTF-8 text files; a document is a piece of whole lines, about 64 thousand characters long."""

    name: str
    paths: tuple[Path, ...]

    def digest(self) -> bytes:
        """Return a hash of the files' contents, in order."""
        return _digest_of_files(self.paths)

    def documents(self) -> Iterator[str]:
        """Yield the pieces of the files, in order.

        Raises
        ------
        EditError
            If a file cannot be read or is not UTF-8.
        """
        for path in self.paths:
            try:
                with open(path, encoding="utf-8-sig") as file:
                    while piece := file.read(_PIECE):
                        yield piece + file.readline(_PIECE)
            except (OSError, UnicodeDecodeError) as err:
                raise _unreadable_error(path, err) from err


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files with a column ``text``; a document is a row."""

    name: str
    paths: tuple[Path, ...]

    def digest(self) -> bytes:
        """Return a hash of the files' contents, in order."""
        return _digest_of_files(self.paths)

    def documents(self) -> Iterator[str]:
        """Yield the rows' texts, file by file.

        Raises
        ------
        EditError
            If a file is not Parquet or has no such column.
        """
        files = [glob.escape(str(path)) for path in self.paths]
        yield from _stream_texts(self.name, "give Parquet files with texts in them", path="parquet", data_files=files)


@dataclass(frozen=True)
class HubDataset:
    """The training split of a data set of the hub, at one commit, streamed; a document is a row's ``text``."""

    repo: str
    config: str | None
    revision: str

    @property
    def name(self) -> str:
        """``owner/name:config@commit``."""
        return f"{self.repo}{f':{self.config}' if self.config else ''}@{self.revision}"

    def digest(self) -> bytes:
        """Return a hash of the name, which holds the commit, so that the hub need not be reached."""
        return hashlib.sha256(f"{self.name} {_SPLIT} {_COLUMN}".encode()).digest()

    def documents(self) -> Iterator[str]:
        """Yield the rows' texts, in order.

        Raises
        ------
        EditError
            If the hub cannot be reached, or has no such data set.
        """
        cure = "check the connection and HF_HUB_OFFLINE, or give a file or folder of texts"
        yield from _stream_texts(self.name, cure, path=self.repo, name=self.config, revision=self.revision)


def cut_into_chunks(
    tokenizer: PreTrainedTokenizerBase, source: TextSource, *, n_tokens: int, length: int = CHUNK
) -> Tensor:
    """Cut a source's text into chunks, as many as the budget of tokens and the source allow.

    The documents' tokens are concatenated and cut; each chunk opens as the tokenizer opens any text (with ``<s>``
    where it does that), so that the model reads each as a separate text. A rest shorter than a chunk is not used.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer.
    source : TextSource
        The source, which is read only as far as needed.
    n_tokens : int
        Budget of tokens, opening tokens included.
    length : int
        Number of tokens of a chunk.

    Returns
    -------
    Tensor (B, length)
        B is at most n_tokens // length.

    Raises
    ------
    EditError
        If the source cannot be read.
    """
    opening = opening_ids(tokenizer)
    body = length - len(opening)
    budget = n_tokens // length * body
    ids: list[int] = []
    with tqdm(total=budget, desc="Reading text", unit="tok", unit_scale=True, leave=False) as bar:
        for document in source.documents():
            # not verbose: it would warn of texts longer than the model takes, which are cut here
            ids += tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
            bar.update(min(len(ids), budget) - bar.n)
            if len(ids) >= budget:
                break
    starts = range(0, min(len(ids), budget) - body + 1, body)
    return torch.tensor([[*opening, *ids[at : at + body]] for at in starts], dtype=torch.long).reshape(-1, length)


def _digest_of_files(paths: Iterable[Path]) -> bytes:
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(bytes.fromhex(sha256_of_file(path)))
        except OSError as err:
            raise _unreadable_error(path, err) from err
    return digest.digest()


def _unreadable_error(path: Path, err: Exception) -> EditError:
    return EditError(
        f"{path} cannot be read ({getattr(err, 'strerror', None) or err}); give UTF-8 text or a Parquet file."
    )


def _stream_texts(label: str, cure: str, **dataset: Any) -> Iterator[str]:
    """Texts of the rows of a data set, streamed; `dataset` holds the arguments of ``datasets.load_dataset``."""
    # imported here because it takes seconds and text files do not need it
    require_extra("datasets", "hub")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        for row in load_dataset(**dataset, split=_SPLIT, streaming=True):
            text = row.get(_COLUMN, "")
            if _COLUMN not in row or not isinstance(text, str | None):
                raise EditError(f"{label} has no column {_COLUMN!r} of texts; its columns are {', '.join(row)}.")
            yield text or ""
    except EditError:
        raise
    except (OSError, ValueError, RuntimeError, DatasetsError) as err:
        raise EditError(f"{label} cannot be read ({first_line(err).rstrip('.')}); {cure}.") from err
