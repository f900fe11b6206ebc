"""Definition of a task: how an example becomes queries, and how answers become scores.

There are two protocols. `paper` asks as Gu et al. 2024 do (prompts, numbers of new tokens); where their code and text
differ, the text decides how answers are scored. `standard`, the default, gives no answer away, asks chat models through
their template, and takes as headline the score that tells models apart: the choice by log-likelihood for tasks with
options.

Beside its headline, every task has a smooth score: the log-likelihood of the reference answer, given the prompt. It
needs no decoding, and shows a change of the model long before a choice flips or a written answer becomes wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from workbench.evaluation.engine import Answer, Query

TaskProtocol = Literal["standard", "paper"]
VALID = "valid_rate"  # metric of every task: the share of answers that are of the kind asked for
LOG_LIKELIHOOD = "log_likelihood"  # metrics of every task: of the reference answer, in nats per token and per byte
LOG_LIKELIHOOD_PER_BYTE = "log_likelihood_per_byte"
PROTOCOLS: tuple[TaskProtocol, ...] = ("standard", "paper")

Example = TypeVar("Example")


@dataclass(frozen=True)
class Ratio:
    """A score whose numerator and denominator are summed over examples before the division, for micro averages."""

    numerator: float
    denominator: float


Scores = dict[str, float | Ratio]  # metric -> score of one example


@dataclass(frozen=True)
class Choice:
    """Scores of the options of one example, of which the highest is chosen.

    Attributes
    ----------
    scores : tuple of float
        Score of each option: its log-likelihood in nats, divided by its length if options differ in length.
    gold : int
        Index of the right option.
    """

    scores: tuple[float, ...]
    gold: int

    @property
    def chosen(self) -> int:
        """Index of the option with the highest score; of equal ones, the first."""
        return int(np.argmax(self.scores))


@dataclass(frozen=True)
class Task(Generic[Example]):
    """One of the eight abilities.

    Attributes
    ----------
    name, title : str
        Name in code and on the command line, and title in figures.
    ask : callable
        Function (example, protocol) -> queries of the example; at least one has a reference, the right answer.
    score : callable
        Function (example, answers, protocol) -> scores by metric; the metrics are the same for every example.
    show : callable
        Function (example, answers, protocol) -> the expected answer and the model's, as texts for a reader to compare.
    headline : dict
        Headline metric of each protocol.
    floor : float
        Headline score of guessing: one over the number of options, or 0 for written answers.
    choose : callable or None
        Function (example, answers, protocol) -> the model's choice among options; None for tasks without options.
    auc : str or None
        For tasks with options, the metric of how well they are ranked, whose floor is 0.5.
    smooth : str
        The smooth score: a metric of both protocols, 0 or less, that needs no decoding.
    """

    name: str
    title: str
    ask: Callable[[Example, TaskProtocol], tuple[Query, ...]]
    score: Callable[[Example, Sequence[Answer], TaskProtocol], Scores]
    show: Callable[[Example, Sequence[Answer], TaskProtocol], tuple[str, str]]
    headline: dict[TaskProtocol, str]
    floor: float = 0.0
    choose: Callable[[Example, Sequence[Answer], TaskProtocol], Choice] | None = None
    auc: str | None = None
    smooth: str = LOG_LIKELIHOOD
