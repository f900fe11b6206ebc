"""Answers of tasks with a few options: the label that is written, and the option that is most probable."""

import re
from collections.abc import Sequence

import numpy as np

from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.task import VALID, Scores, TaskProtocol

ACCURACY, CHOICE = "accuracy", "choice_accuracy"


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


def most_probable_option(answer: Answer) -> int:
    """Return the index of the option with the highest log-likelihood; of equal options, the first."""
    return int(np.argmax(answer.log_likelihoods))


def score_choice(text: str, chosen: int, labels: Sequence[str], gold: int) -> Scores:
    """Score an answer: accuracy, valid rate, and accuracy of the choice by log-likelihood.

    Parameters
    ----------
    text : str
        Text that the model wrote.
    chosen : int
        Index of the most probable option.
    labels : sequence of str
        The possible answers, one word each.
    gold : int
        Index of the right label.

    Returns
    -------
    dict
        `accuracy`: whether the text contains the right label, and only that one; `valid_rate`: whether it contains
        exactly one label; `choice_accuracy`: whether the most probable option is the right one.
    """
    index = find_label(text, labels)
    return {
        CHOICE: float(chosen == gold),
        ACCURACY: float(index == gold),
        VALID: float(index is not None),
    }


def show_choice(answer: Answer, labels: Sequence[str], gold: int, protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right label, and the model's answer: the written one (paper) or the most probable one (standard)."""
    return labels[gold], answer.text.strip() if protocol == "paper" else labels[most_probable_option(answer)]
