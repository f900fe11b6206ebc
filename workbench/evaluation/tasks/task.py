"""What a task is: how an example becomes queries, and answers become scores.

Two protocols. `paper` asks as Gu et al. 2024 do (prompts, numbers of new tokens), scored by what their text says where
their code slips. `standard`, the default, gives no answer away, asks chat models through their template, and has the
score that tells models apart as its headline: the choice by log-likelihood where a task has options.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.data.tasks.examples import TaskExample
from workbench.evaluation.engine import Answer, Query

Protocol = Literal["standard", "paper"]
VALID = "valid_rate"  # in every task: the share of answers that are of the kind asked for
PROTOCOLS: tuple[Protocol, ...] = ("standard", "paper")


@dataclass(frozen=True)
class Ratio:
    """A score that is summed over examples, numerator and denominator apart, before it is divided: micro averages."""

    numerator: float
    denominator: float


Scores = dict[str, float | Ratio]  # metric -> one example's score, in [0, 1]


@dataclass(frozen=True)
class Task:
    """One of the eight abilities.

    Attributes
    ----------
    name, title : str
        As in code and command lines, and as in figures.
    ask : callable
        (example, protocol) -> the queries that an example takes.
    score : callable
        (example, answers, protocol) -> metric -> score; the metrics are the same for every example.
    show : callable
        (example, answers, protocol) -> what a person compares: the expected answer, and the model's.
    headline : dict
        Protocol -> the metric that stands for the task.
    floor : float
        What guessing reaches in the headline: one over the number of options, or 0 where answers are written.
    """

    name: str
    title: str
    ask: Callable[[TaskExample, Protocol], tuple[Query, ...]]
    score: Callable[[TaskExample, Sequence[Answer], Protocol], Scores]
    show: Callable[[TaskExample, Sequence[Answer], Protocol], tuple[str, str]]
    headline: dict[Protocol, str]
    floor: float = 0.0
