"""Tagged sentences as in CoNLL-2003: from a file of columns, or from the hub's numbers, to examples.

Tjong Kim Sang and De Meulder 2003. A line holds a word and its tags, the entity tag last; a blank line ends a sentence:

    LONDON NNP B-NP B-LOC
    1996-08-30 CD I-NP O

The original files have IOB1 tags, where an entity starts with I- and B- only separates it from an adjacent one of the
same type; later copies have BIO tags (IOB2), where every entity starts with B-. `extract_entities` reads both alike, so
nobody has to say which of them a file has.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from workbench.data.fields import Record
from workbench.data.tasks.examples import ENTITY_TYPES, NERExample
from workbench.errors import DataError

# The hub's numbers of conll2003's ner_tags (names of the feature in its data set card)
HUB_TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")

_DOCUMENT = "-DOCSTART-"
_TAG = re.compile(f"O|[BI]-({'|'.join(ENTITY_TYPES)})")
_LINE = re.compile(rf"{_DOCUMENT}.*|.+[ \t](O|[A-Z]-[A-Z]+)")


def is_column_file(text: str) -> bool:
    """Return whether the first line of a file opens a document or ends in a tag of any scheme."""
    return _LINE.fullmatch(text.lstrip().split("\n", 1)[0].rstrip()) is not None


def split_sentences(text: str) -> list[Record]:
    """Split a file of columns into sentences.

    Parameters
    ----------
    text : str
        Lines of columns separated by blanks or tabs; the first is the word, the last its entity tag.
        ``-DOCSTART-`` lines open documents and belong to no sentence.

    Returns
    -------
    list of dict
        ``{"words": [...], "tags": [...]}`` for each sentence; the tag is "" where a line has only one column.
    """
    lines = [re.split(r"[ \t]+", line.strip(" \t\r")) for line in text.split("\n")]
    groups = groupby(lines, key=lambda columns: columns[0] not in ("", _DOCUMENT))
    sentences = [list(rows) for is_sentence, rows in groups if is_sentence]
    return [
        {"words": [row[0] for row in rows], "tags": [row[-1] if len(row) > 1 else "" for row in rows]}
        for rows in sentences
    ]


def make_ner_example(words: Sequence[str], tags: Sequence[str]) -> NERExample:
    """Make an example from a tagged sentence.

    Parameters
    ----------
    words, tags : sequence of str
        The words and the tag of each.

    Returns
    -------
    NERExample
        The words of the sentence, and those of each entity, are joined by single blanks.

    Raises
    ------
    DataError
        If there are no words, one is empty, their number is not that of the tags, or a tag is unknown.
    """
    if not words or len(words) != len(tags):
        raise DataError(f"a sentence needs words and a tag for each; it has {len(words)} words and {len(tags)} tags.")
    if "" in words:
        raise DataError(f"word {list(words).index('')} of the sentence is empty.")
    return NERExample(" ".join(words), extract_entities(words, tags))


def extract_entities(words: Sequence[str], tags: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the entities of a sentence, in its order, from IOB1 or BIO tags.

    An entity starts at every B-, and at an I- that does not follow a word of the same type. It continues through the
    I- of its type that follow.

    Parameters
    ----------
    words, tags : sequence of str
        The words and the tag of each.

    Returns
    -------
    tuple of (str, str)
        The type and the surface of each.

    Raises
    ------
    DataError
        If a tag is neither O nor B- or I- with a type of CoNLL-2003.
    """
    entities: list[tuple[str, list[str]]] = []
    inside = None  # type of the entity that the preceding word belongs to
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
