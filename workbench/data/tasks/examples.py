"""The examples of the eight tasks, one class per task.

The readers in `workbench.data.tasks.formats` make them from records; the tasks in `workbench.evaluation.tasks` turn
them into prompts and score the answers.
"""

from dataclasses import dataclass

ENTITY_TYPES = ("PER", "LOC", "ORG", "MISC")  # CoNLL-2003's


@dataclass(frozen=True)
class ReasoningExample:
    """A word problem whose answer is a number."""

    question: str
    reasoning: str  # worked solution, without calculator notes
    answer: str  # the number, without thousands commas


@dataclass(frozen=True)
class NLIExample:
    """A premise, a hypothesis, and whether the one entails the other."""

    premise: str
    hypothesis: str
    entailment: bool


@dataclass(frozen=True)
class OpenQAExample:
    """A question, with a passage that may or may not hold one of the accepted answers."""

    question: str
    passage: str  # empty if the data set has none
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ClosedQAExample:
    """A yes-or-no question about a passage."""

    question: str
    passage: str
    answer: bool  # True for yes


@dataclass(frozen=True)
class DialogueExample:
    """A conversation and four next turns, of which one makes sense."""

    dialogue: str
    options: tuple[str, str, str, str]
    answer: int  # index of the right option, 0 to 3


@dataclass(frozen=True)
class SummarizationExample:
    """A conversation, one turn per line, and a summary written by a person."""

    dialogue: str
    summary: str


@dataclass(frozen=True)
class NERExample:
    """A sentence and the named entities in it."""

    text: str
    entities: tuple[tuple[str, str], ...]  # (type, surface) in order of appearance; types as in ENTITY_TYPES


@dataclass(frozen=True)
class SentimentExample:
    """A snippet of a review, and whether it is positive."""

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
