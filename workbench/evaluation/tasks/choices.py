"""Answers out of a few: what was said, and what was found most probable."""

import re
from collections.abc import Sequence

import numpy as np

from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks.task import VALID, Protocol, Scores

ACCURACY, CHOICE = "accuracy", "choice_accuracy"


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


def choice_scores(text: str, chosen: int, labels: Sequence[str], gold: int) -> Scores:
    """Accuracy over all, valid rate, and accuracy of the choice by log-likelihood.

    Parameters
    ----------
    text : str
        What the model wrote.
    chosen : int
        Index of the option that it found most probable.
    labels : sequence of str
        The possible answers, one word each.
    gold : int
        Index of the right one.

    Returns
    -------
    dict
        `accuracy`: the written answer says the right label, and an answer that says none counts as wrong;
        `valid_rate`: it says one of the labels; `choice_accuracy`: the right one is the most probable one.
    """
    index = said(text, labels)
    return {
        CHOICE: float(chosen == gold),
        ACCURACY: float(index == gold),
        VALID: float(index is not None),
    }


def shown_choice(answer: Answer, labels: Sequence[str], gold: int, protocol: Protocol) -> tuple[str, str]:
    """The right label, and the model's answer: as it wrote it (paper), or the most probable label (standard)."""
    return labels[gold], answer.text.strip() if protocol == "paper" else labels[most_probable(answer)]
