"""Answers out of a few: what was said, and what was found most probable."""

import re
from collections.abc import Sequence

import numpy as np

from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.task import Scores

ACCURACY, VALID, CHOICE = "accuracy", "valid_rate", "choice_accuracy"


def said(text: str, labels: Sequence[str]) -> int | None:
    """Which label a text says.

    Parameters
    ----------
    text : str
        What a model wrote.
    labels : sequence of str
        One word each.

    Returns
    -------
    int or None
        Index of the only label that occurs in it as a word, in any case, or as a letter, in its own case ("a" is an
        article, not the letter A); None if none does or several do.
    """
    words = set(re.findall(r"\w+(?:'\w+)*", text))
    words |= {word.lower() for word in words if len(word) > 1}
    found = [i for i, label in enumerate(labels) if (label if len(label) == 1 else label.lower()) in words]
    return found[0] if len(found) == 1 else None


def most_probable(answer: Answer) -> int:
    """Index of the option with the highest log-likelihood; the first of equals."""
    return int(np.argmax(answer.log_likelihoods))


def choice_scores(answer: Answer, labels: Sequence[str], gold: int) -> Scores:
    """Accuracy over all, valid rate, and accuracy of the choice by log-likelihood.

    Parameters
    ----------
    answer : Answer
        With the log-likelihood of each label.
    labels : sequence of str
        The possible answers, one word each.
    gold : int
        Index of the right one.

    Returns
    -------
    dict
        `accuracy`: the written answer says the right label, and an answer that says none counts as wrong;
        `valid_rate`: it says one of the labels; `choice_accuracy`: the right label is the most probable one.
    """
    index = said(answer.text, labels)
    return {
        CHOICE: float(most_probable(answer) == gold),
        ACCURACY: float(index == gold),
        VALID: float(index is not None),
    }
