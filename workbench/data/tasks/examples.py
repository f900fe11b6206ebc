"""One record of each of the eight tasks, whatever file it comes from.

Readers (`workbench.data.tasks.formats`) make them, tasks (`workbench.evaluation.tasks`) ask and score them.
"""

from dataclasses import dataclass

ENTITY_TYPES = ("PER", "LOC", "ORG", "MISC")  # CoNLL-2003's


@dataclass(frozen=True)
class ReasoningExample:
    """A word problem with a number for an answer."""

    question: str
    reasoning: str  # worked solution, without calculator notes
    answer: str  # the number, without thousands commas


@dataclass(frozen=True)
class NLIExample:
    """Does the premise entail the hypothesis?"""

    premise: str
    hypothesis: str
    entailment: bool


@dataclass(frozen=True)
class OpenQAExample:
    """A question, with a passage that may or may not hold one of the accepted answers."""

    question: str
    passage: str  # empty where the data set has none
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ClosedQAExample:
    """A yes-or-no question on a passage."""

    question: str
    passage: str
    answer: bool  # True for yes


@dataclass(frozen=True)
class DialogueExample:
    """A conversation and four ways to go on, of which one makes sense."""

    dialogue: str
    options: tuple[str, str, str, str]
    answer: int  # index of the right one, 0 to 3


@dataclass(frozen=True)
class SummarizationExample:
    """A conversation, one turn a line, and its summary by a person."""

    dialogue: str
    summary: str


@dataclass(frozen=True)
class NERExample:
    """A sentence and the names in it."""

    text: str
    entities: tuple[tuple[str, str], ...]  # (type, surface) in order of appearance; types as in ENTITY_TYPES


@dataclass(frozen=True)
class SentimentExample:
    """A snippet of a review: is it kind?"""

    text: str
    positive: bool


TaskExample = (
    ReasoningExample
    | NLIExample
    | OpenQAExample
    | ClosedQAExample
    | DialogueExample
    | SummarizationExample
    | NERExample
    | SentimentExample
)
