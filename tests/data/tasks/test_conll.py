"""Tagged sentences: their entities in either scheme, and how files of columns are split."""

import random
from itertools import pairwise

import pytest

from tests.helpers import error_of
from workbench.data.tasks.conll import HUB_TAGS, extract_entities, is_column_file, make_ner_example, split_sentences
from workbench.data.tasks.examples import ENTITY_TYPES, NERExample
from workbench.errors import DataError

WORDS = ["Ann", "Lee", "met", "U.N.", "staff", "in", "New", "York"]
ENTITIES = (("PER", "Ann Lee"), ("ORG", "U.N."), ("LOC", "New York"))


@pytest.mark.parametrize(
    "tags",
    [
        "B-PER I-PER O B-ORG O O B-LOC I-LOC",  # BIO
        "I-PER I-PER O I-ORG O O I-LOC I-LOC",  # IOB1
    ],
)
def test_both_schemes_give_the_same_entities_up_to_the_last_word(tags):
    assert extract_entities(WORDS, tags.split()) == ENTITIES


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("I-LOC B-LOC I-LOC", (("LOC", "a"), ("LOC", "b c"))),  # IOB1: B- separates two of one type
        ("B-LOC B-LOC I-LOC", (("LOC", "a"), ("LOC", "b c"))),  # BIO
        ("I-LOC I-ORG I-ORG", (("LOC", "a"), ("ORG", "b c"))),  # IOB1: a change of type separates by itself
        ("B-LOC B-ORG I-ORG", (("LOC", "a"), ("ORG", "b c"))),
        ("I-LOC O I-LOC", (("LOC", "a"), ("LOC", "c"))),
        ("O O O", ()),
    ],
)
def test_touching_entities_are_told_apart(tags, entities):
    assert extract_entities("abc", tags.split()) == entities


def spans_to_tags(spans: list[tuple[int, int, str]], length: int, scheme: str) -> list[str]:
    """Return the tags of spans by the definition of each scheme."""
    tags = ["O"] * length
    for start, end, kind in spans:
        touches = any(before[1] == start and before[2] == kind for before in spans)
        first = "B" if scheme == "BIO" or touches else "I"
        tags[start:end] = [f"{first}-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return tags


@pytest.mark.parametrize("scheme", ["BIO", "IOB1"])
def test_tags_written_from_spans_are_read_back_as_those_spans(scheme):
    draw = random.Random(0)
    for _ in range(300):
        length = draw.randint(1, 9)
        cuts = sorted(draw.sample(range(length + 1), draw.randint(1, length + 1)))
        spans = [(a, b, draw.choice(ENTITY_TYPES)) for a, b in pairwise(cuts) if draw.random() < 0.7]
        words = [f"w{i}" for i in range(length)]
        tags = spans_to_tags(spans, length, scheme)
        assert extract_entities(words, tags) == tuple((kind, " ".join(words[a:b])) for a, b, kind in spans)


@pytest.mark.parametrize("tag", ["S-PER", "E-PER", "B-DATE", "PER", "", "o", "B-", "I-PERX"])
def test_a_tag_of_another_scheme_is_refused(tag):
    assert error_of(DataError, extract_entities, ["Rome"], [tag]) == (
        f"the tag {tag!r} of 'Rome' is neither O nor B- or I- with one of PER, LOC, ORG, MISC."
    )


def test_the_hub_s_numbers_stand_for_the_tags_of_its_card():
    assert dict(enumerate(HUB_TAGS)) == {
        0: "O",
        1: "B-PER",
        2: "I-PER",
        3: "B-ORG",
        4: "I-ORG",
        5: "B-LOC",
        6: "I-LOC",
        7: "B-MISC",
        8: "I-MISC",
    }


def test_document_lines_are_no_sentences_and_no_part_of_any():
    text = "-DOCSTART- -X- -X- O\n\nRome NNP B-NP B-LOC\n-DOCSTART- -X- O O\nwins VB B-VP O\n\n\n"
    assert split_sentences(text) == [{"words": ["Rome"], "tags": ["B-LOC"]}, {"words": ["wins"], "tags": ["O"]}]


def test_tabs_carriage_returns_and_a_missing_last_line_end_change_nothing():
    plain = "Rome NNP B-LOC\nwins VB O\n\nAnn NNP B-PER\n"
    assert split_sentences(plain) == split_sentences(plain.replace(" ", "\t").replace("\n", "\r\n"))
    assert split_sentences(plain) == split_sentences(plain.rstrip("\n"))


def test_text_and_surfaces_are_words_joined_by_one_blank():
    assert make_ner_example(["New", "York", "won"], ["B-LOC", "I-LOC", "O"]) == NERExample(
        "New York won", (("LOC", "New York"),)
    )


@pytest.mark.parametrize(("words", "tags"), [([], []), (["a"], []), (["a"], ["O", "O"])])
def test_a_sentence_without_a_tag_for_each_word_is_refused(words, tags):
    assert error_of(DataError, make_ner_example, words, tags) == (
        f"a sentence needs words and a tag for each; it has {len(words)} words and {len(tags)} tags."
    )


def test_a_sentence_with_an_empty_word_is_refused():
    assert error_of(DataError, make_ner_example, ["a", ""], ["O", "O"]) == "word 1 of the sentence is empty."


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("Rome NNP B-NP B-LOC\n", True),
        ("\n\n[ ( O O\n", True),
        ("Rome\tO\r\n", True),
        ("Rome NNP S-LOC\n", True),
        ("-DOCSTART-\n\nRome O\n", True),
        ('{"text": "Rome O"}\n', False),
        ('[{"text": "O"}]', False),
        ("text\tentities\n", False),
        ("O", False),
    ],
)
def test_the_first_line_identifies_a_file_of_columns(text, columns):
    assert is_column_file(text) is columns
