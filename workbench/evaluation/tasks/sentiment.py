"""Sentiment: is a snippet of a review positive or negative?

SST-2 (Socher et al. 2013; GLUE, Wang et al. 2019), development split, 872 snippets. A record:

    sentence    it 's a charming and often affecting journey .
    label       1
"""

from collections.abc import Sequence

from workbench.data.tasks.examples import SentimentExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.choices import ACCURACY, AUC, CHOICE, score_choice, show_choice
from workbench.evaluation.tasks.task import Choice, Scores, Task, TaskProtocol

LABELS = ("negative", "positive")


def ask(example: SentimentExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return one question, with both labels as options; the reference is the right label."""
    if protocol == "paper":
        prompt = (
            "For each snippet of text,label the sentiment of the text as positive or negative."
            f"The answer should be exact 'positive' or 'negative'. text: {example.text} answer:"
        )
        return (Query(prompt, LABELS, reference=LABELS[example.positive], max_new_tokens=1),)
    prompt = f"Review: {example.text}\nSentiment (positive or negative):"
    return (Query(prompt, LABELS, reference=LABELS[example.positive], max_new_tokens=8, stop=("\n",)),)


def choose(example: SentimentExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Choice:
    """Return the choice between the labels by log-likelihood."""
    return Choice(answers[0].log_likelihoods, int(example.positive))


def score(example: SentimentExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return accuracy, valid rate, and accuracy of the choice by log-likelihood."""
    return score_choice(answers[0].text, choose(example, answers, protocol), LABELS)


def show(example: SentimentExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right label, and the model's answer: the written one (paper) or the most probable one (standard)."""
    return show_choice(answers[0], choose(example, answers, protocol), LABELS, protocol)


TASK = Task(
    "sentiment",
    "Sentiment",
    ask,
    score,
    show,
    {"standard": CHOICE, "paper": ACCURACY},
    floor=0.5,
    choose=choose,
    auc=AUC,
)
