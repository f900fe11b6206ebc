"""Answers of tasks with a few options: the label that is written, the option that is most probable, and its margin.

A model can rank examples well and still choose one label for all of them. So accuracy has two companions, which are
computed from the margins of all examples: the area under the ROC curve, and the share of the most frequent choice.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.task import (
    LOG_LIKELIHOOD,
    LOG_LIKELIHOOD_PER_BYTE,
    VALID,
    Choice,
    Ratio,
    Scores,
    Task,
    TaskProtocol,
)

Example = TypeVar("Example")

ACCURACY, CHOICE = "accuracy", "choice_accuracy"
AUC, MAJORITY, MARGIN = "choice_auc", "majority_share", "choice_margin"
Array = npt.NDArray[np.float64]

HEADLINES: dict[TaskProtocol, str] = {"standard": CHOICE, "paper": ACCURACY}  # of tasks with options
AUC_FLOOR = 0.5  # of a model that ranks at random, whatever the number of options
UNWRITTEN = frozenset({CHOICE, AUC, MAJORITY, MARGIN, LOG_LIKELIHOOD, LOG_LIKELIHOOD_PER_BYTE})  # need no decoding


def find_label(text: str, labels: Sequence[str]) -> int | None:
    """Find the label that a text contains.

    Parameters
    ----------
    text : str
        Text that a model wrote.
    labels : sequence of str
        The possible labels, one word each.

    Returns
    -------
    int or None
        Index of the only label that occurs as a word; None if no label or several occur. Case does not matter, except
        for labels of one letter ("a" is an article, not the letter A).
    """
    words = set(re.findall(r"\w+(?:'\w+)*", text))
    words |= {word.lower() for word in words if len(word) > 1}
    matches = [i for i, label in enumerate(labels) if (label if len(label) == 1 else label.lower()) in words]
    return matches[0] if len(matches) == 1 else None


def score_choice(text: str, choice: Choice, labels: Sequence[str]) -> Scores:
    """Score an answer: accuracy, valid rate, and accuracy of the choice by log-likelihood.

    Parameters
    ----------
    text : str
        Text that the model wrote.
    choice : Choice
        The choice by log-likelihood.
    labels : sequence of str
        The possible answers, one word each.

    Returns
    -------
    dict
        `accuracy`: whether the text contains the right label, and only that one; `valid_rate`: whether it contains
        exactly one label; `choice_accuracy`: whether the most probable option is the right one.
    """
    index = find_label(text, labels)
    return {
        CHOICE: float(choice.chosen == choice.gold),
        ACCURACY: float(index == choice.gold),
        VALID: float(index is not None),
    }


def show_choice(answer: Answer, choice: Choice, labels: Sequence[str], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right label, and the model's answer: the written one (paper) or the most probable one (standard)."""
    return labels[choice.gold], answer.text.strip() if protocol == "paper" else labels[choice.chosen]


def make_label_task(
    name: str,
    title: str,
    ask: Callable[[Example, TaskProtocol], tuple[Query, ...]],
    *,
    labels: Sequence[str],
    gold: Callable[[Example], bool],
) -> Task[Example]:
    """Return a task of one query per example, whose answer is one of two labels.

    Parameters
    ----------
    name, title, ask
        As for `Task`; the options of the query are the labels.
    labels : sequence of str
        The two labels, one word each.
    gold : callable
        Function of an example; returns whether the second label is the right one.

    Returns
    -------
    Task
        It scores accuracy (an answer that is neither label is wrong), valid rate and the choice by log-likelihood, and
        shows the written answer (paper) or the most probable label (standard).
    """

    def choose(example: Example, answers: Sequence[Answer], protocol: TaskProtocol) -> Choice:
        return Choice(answers[0].log_likelihoods, int(gold(example)))

    def score(example: Example, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
        return score_choice(answers[0].text, choose(example, answers, protocol), labels)

    def show(example: Example, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
        return show_choice(answers[0], choose(example, answers, protocol), labels, protocol)

    return Task(name, title, ask, score, show, HEADLINES, floor=1 / len(labels), choose=choose, auc=AUC)


def compare_choices(choices: Sequence[Choice]) -> list[Scores]:
    """Return the scores of choices that depend on the choices in all examples.

    Parameters
    ----------
    choices : sequence of Choice
        The choice in each example that was asked; either all have two options or none has.

    Returns
    -------
    list of dict
        For each example:

        `choice_margin`: with two labels, the score of label 1 less that of label 0; with more options, the score of the
        right option less that of the best other one; in nats, or in nats per character where options differ in length.
        With two labels its mean over examples is no score: it shows how far the model leans towards label 1.

        `choice_auc`: with two labels, a value whose mean over examples is the area under the ROC curve of the margin
        for label 1 against label 0 (see `_auc_values`); with more options, the share of wrong options that the right
        one beats, ties counting 1/2. Random ranking gives 0.5. It is undefined, with weight 0, if all examples have one
        label.

        `majority_share`: whether the choice is the one that is made most often (of equally frequent ones, the first);
        the mean is that choice's share, and 1 for a model that always gives one label.
    """
    counts = np.bincount([choice.chosen for choice in choices])
    majority = int(counts.argmax())
    if len(choices[0].scores) == 2:
        margins = [choice.scores[1] - choice.scores[0] for choice in choices]
        aucs: list[float | Ratio] = _auc_values(margins, [bool(choice.gold) for choice in choices])
    else:
        others = [np.delete(choice.scores, choice.gold) for choice in choices]
        margins = [choice.scores[choice.gold] - float(rest.max()) for choice, rest in zip(choices, others, strict=True)]
        pairs = zip(choices, others, strict=True)
        aucs = [float(_wins(np.array(choice.scores[choice.gold]), rest).mean()) for choice, rest in pairs]
    return [
        {AUC: auc, MAJORITY: float(choice.chosen == majority), MARGIN: margin}
        for choice, margin, auc in zip(choices, margins, aucs, strict=True)
    ]


def _auc_values(margins: Sequence[float], positive: Sequence[bool]) -> list[float | Ratio]:
    """Return for each example a value whose mean over examples is the area under the ROC curve (AUC).

    The AUC is the share of pairs of a positive and a negative example in which the positive one has the larger margin,
    ties counting 1/2 (Mann and Whitney 1947). The *placement* V of an example is the share of the examples of the other
    label that it is rightly ordered with; the mean of V over the positive examples is the AUC, and so is that over the
    negative ones (the structural components of DeLong, DeLong and Clarke-Pearson 1988). With n examples, n_c of them of
    the example's own label, its value is

        AUC + (n / n_c) · (V − AUC).

    The mean of these values is the AUC, and the variance of that mean is DeLong's variance of the AUC: the two labels
    are two samples, which (n / n_c) accounts for and placements alone do not. So a mean with its bootstrap interval, of
    one model or of the differences between two models on the same examples, holds for the AUC. Each value alone may lie
    outside 0 to 1.

    All examples of a run are compared with each other, after the limit is applied. In a part of them, such as a
    resample or one half, the mean of the values is the first-order approximation of the AUC of that part; its
    expectation is the AUC whatever the part's share of labels, and the means of parts, weighted by their sizes, average
    to the AUC of the whole. So the values are resampled and split like those of any other metric.
    """
    values, is_positive = np.array(margins, dtype=float), np.array(positive, dtype=bool)
    n, n_positive = len(values), int(is_positive.sum())
    if n_positive in (0, n):
        return [Ratio(0, 0)] * n
    wins = _wins(values[is_positive][:, None], values[~is_positive][None, :])  # (positive, negative)
    auc = wins.mean()
    placements, own = np.empty(n), np.where(is_positive, n_positive, n - n_positive)
    placements[is_positive], placements[~is_positive] = wins.mean(axis=1), wins.mean(axis=0)
    return [float(value) for value in auc + n / own * (placements - auc)]


def _wins(right: Array, wrong: Array) -> Array:
    """Return 1 where `right` is larger, 0 where it is smaller, and 1/2 where it is not; a NaN decides nothing."""
    return (1.0 + (right > wrong)) / 2 - (right < wrong) / 2
