"""Closed-domain question answering: yes or no, from a passage.

BoolQ (Clark et al. 2019), development split, 3,270 questions. A record:

    question    does ethanol take more energy make that produces
    passage     All biomass goes through at least some of these steps: it needs to be grown, collected, dried, …
    answer      false
"""

from collections.abc import Sequence

from workbench.data.tasks.examples import ClosedQAExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.choices import ACCURACY, AUC, CHOICE, score_choice, show_choice
from workbench.evaluation.tasks.task import Choice, Scores, Task, TaskProtocol

LABELS = ("no", "yes")


def ask(example: ClosedQAExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return one question, with both labels as options; the reference is the right label."""
    if protocol == "paper":
        prompt = (
            "Please answer the given question based on the passage. The answer should be exact 'yes' or 'no'. "
            f"passage: {example.passage} question: {example.question}. answer:"
        )
        return (Query(prompt, LABELS, reference=LABELS[example.answer], max_new_tokens=1),)
    message = (
        "Answer the question on the passage with yes or no.\n"
        f"Passage: {example.passage}\nQuestion: {example.question.rstrip('?')}?"
    )
    return (
        Query(
            message,
            LABELS,
            reference=LABELS[example.answer],
            max_new_tokens=8,
            stop=("\n",),
            chat=True,
            lead="The answer is",
        ),
    )


def choose(example: ClosedQAExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Choice:
    """Return the choice between the labels by log-likelihood."""
    return Choice(answers[0].log_likelihoods, int(example.answer))


def score(example: ClosedQAExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return accuracy (an answer that is neither yes nor no is wrong), valid rate, and the choice by log-likelihood."""
    return score_choice(answers[0].text, choose(example, answers, protocol), LABELS)


def show(example: ClosedQAExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right label, and the model's answer: the written one (paper) or the most probable one (standard)."""
    return show_choice(answers[0], choose(example, answers, protocol), LABELS, protocol)


TASK = Task(
    "closed_qa",
    "Closed-domain QA",
    ask,
    score,
    show,
    {"standard": CHOICE, "paper": ACCURACY},
    floor=0.5,
    choose=choose,
    auc=AUC,
)
