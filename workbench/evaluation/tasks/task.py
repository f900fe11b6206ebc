"""Definition of a task: how an example becomes queries, and how answers become scores.

There are two protocols. `paper` asks as Gu et al. 2024 do (prompts, numbers of new tokens); where their code and text
differ, the text decides how answers are scored. `standard`, the default, gives no answer away, asks chat models through
their template, and takes as headline the score that tells models apart: the choice by log-likelihood for tasks with
options.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from workbench.evaluation.engine import Answer, Query

TaskProtocol = Literal["standard", "paper"]
VALID = "valid_rate"  # metric of every task: the share of answers that are of the kind asked for
PROTOCOLS: tuple[TaskProtocol, ...] = ("standard", "paper")

Example = TypeVar("Example")


@dataclass(frozen=True)
class Ratio:
    """A score whose numerator and denominator are summed over examples before the division, for micro averages."""

    numerator: float
    denominator: float


Scores = dict[str, float | Ratio]  # metric -> score of one example, in [0, 1]


@dataclass(frozen=True)
class Task(Generic[Example]):
    """One of the eight abilities.

    Attributes
    ----------
    name, title : str
        Name in code and on the command line, and title in figures.
    ask : callable
        Function (example, protocol) -> queries of the example.
    score : callable
        Function (example, answers, protocol) -> scores by metric; the metrics are the same for every example.
    show : callable
        Function (example, answers, protocol) -> the expected answer and the model's, as texts for a reader to compare.
    headline : dict
        Headline metric of each protocol.
    floor : float
        Headline score of guessing: one over the number of options, or 0 for written answers.
    """

    name: str
    title: str
    ask: Callable[[Example, TaskProtocol], tuple[Query, ...]]
    score: Callable[[Example, Sequence[Answer], TaskProtocol], Scores]
    show: Callable[[Example, Sequence[Answer], TaskProtocol], tuple[str, str]]
    headline: dict[TaskProtocol, str]
    floor: float = 0.0
