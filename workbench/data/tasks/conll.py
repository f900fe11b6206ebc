"""Sentences with a tag a word, as CoNLL-2003 has them: from a file of columns, or from the hub's numbers, to examples.

Tjong Kim Sang and De Meulder 2003. A line holds a word and its tags, the entity tag last; a blank line ends a sentence:

    LONDON NNP B-NP B-LOC
    1996-08-30 CD I-NP O

The original files have IOB1 tags, where an entity starts with I- and B- only parts it from one of the same type that
it touches; later copies have BIO tags (IOB2), where every entity starts with B-. `entities_in` reads both alike, so
nothing has to be told about a file.
"""

import re
from collections.abc import Sequence

from workbench.data.tasks.examples import ENTITY_TYPES, NERExample
from workbench.errors import DataError

# The hub's numbers of conll2003's ner_tags (names of the feature in its data set card)
HUB_TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")

_DOCUMENT = "-DOCSTART-"
_TAG = re.compile(f"O|[BI]-({'|'.join(ENTITY_TYPES)})")
_LINE = re.compile(rf"{_DOCUMENT}.*|.+[ \t](O|[A-Z]-[A-Z]+)")


def is_columns(text: str) -> bool:
    """Tell whether a text is a file of columns: its first line opens a document or ends in a tag of any scheme.

    Parameters
    ----------
    text : str
        Of the whole file.

    Returns
    -------
    bool
    """
    return _LINE.fullmatch(text.lstrip().split("\n", 1)[0].rstrip()) is not None


def column_records(text: str) -> list[dict]:
    """Cut a file of columns into sentences.

    Parameters
    ----------
    text : str
        Lines of columns parted by blanks or tabs; the first is the word, the last its entity tag. ``-DOCSTART-``
        lines open documents and are no sentences.

    Returns
    -------
    list of dict
        ``{"words": [...], "tags": [...]}`` for each sentence; the tag is "" where a line has one column.
    """
    sentences: list[dict] = [{"words": [], "tags": []}]
    for line in text.split("\n"):
        columns = re.split(r"[ \t]+", line.strip(" \t\r"))
        if columns[0] in ("", _DOCUMENT):
            sentences.append({"words": [], "tags": []})
            continue
        sentences[-1]["words"].append(columns[0])
        sentences[-1]["tags"].append(columns[-1] if len(columns) > 1 else "")
    return [sentence for sentence in sentences if sentence["words"]]


def tagged_example(words: Sequence[str], tags: Sequence[str]) -> NERExample:
    """Make an example of a tagged sentence.

    Parameters
    ----------
    words, tags : sequence of str
        As many of the one as of the other.

    Returns
    -------
    NERExample
        The words, and each entity's, joined by one blank.

    Raises
    ------
    DataError
        If there are no words, one is empty, their number is not that of the tags, or a tag is unknown.
    """
    if not words or len(words) != len(tags):
        raise DataError(f"a sentence needs words and a tag for each; it has {len(words)} words and {len(tags)} tags.")
    if "" in words:
        raise DataError(f"word {list(words).index('')} of the sentence is empty.")
    return NERExample(" ".join(words), entities_in(words, tags))


def entities_in(words: Sequence[str], tags: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Entities of a sentence, in its order, from IOB1 or BIO tags.

    An entity opens at every B-, and at an I- that no word of the same type precedes; it goes on while I- of its type
    follows.

    Parameters
    ----------
    words, tags : sequence of str
        As many of the one as of the other.

    Returns
    -------
    tuple of (str, str)
        Type and surface.

    Raises
    ------
    DataError
        If a tag is neither O nor B- or I- with a type of CoNLL-2003.
    """
    entities: list[tuple[str, list[str]]] = []
    inside = None  # type of the entity that the word before belongs to
    for word, tag in zip(words, tags, strict=True):
        if not _TAG.fullmatch(tag):
            known = ", ".join(ENTITY_TYPES)
            raise DataError(f"the tag {tag!r} of {word!r} is neither O nor B- or I- with one of {known}.")
        kind = tag[2:] or None
        if kind and kind == inside and tag.startswith("I"):
            entities[-1][1].append(word)
        elif kind:
            entities.append((kind, [word]))
        inside = kind
    return tuple((kind, " ".join(surface)) for kind, surface in entities)
