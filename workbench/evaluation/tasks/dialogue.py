"""Dialogue: which of four turns continues a conversation?

MuTual (Cui et al. 2020), development split, 886 conversations. A record:

    article     m : hi , della . how long are you going to stay here ? f : only 4 days . i know that 's not long …
    options     m : so you come to manchester just for watching a concert , do n't you ? (and three more)
    answers     B
"""

from collections.abc import Sequence

import numpy as np

from workbench.data.tasks.examples import DialogueExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.choices import ACCURACY, CHOICE, most_probable_option, score_choice, show_choice
from workbench.evaluation.tasks.task import Scores, Task, TaskProtocol

LABELS = ("A", "B", "C", "D")


def ask(example: DialogueExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return the queries: for the letter, and in `standard` for the turns as continuations of the conversation."""
    if protocol == "paper":
        choices = "".join(f"({label}){option}" for label, option in zip(LABELS, example.options, strict=True))
        prompt = (
            f"Q: {example.dialogue} Which choice is correct? Answer Chioces: {choices} "
            "A: Among A through D, the answer is"
        )
        return (Query(prompt, LABELS, max_new_tokens=1),)
    choices = "\n".join(f"{label}. {option}" for label, option in zip(LABELS, example.options, strict=True))
    message = f"Which turn goes on this conversation? Answer with its letter.\n{example.dialogue}\n{choices}"
    letter = Query(message, max_new_tokens=8, stop=("\n",), chat=True, lead="The answer is")
    return (letter, Query(example.dialogue, example.options))


def score(example: DialogueExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return accuracy (Recall 4@1), valid rate, and the choice by log-likelihood.

    In `standard` the choice is the turn with the highest log-likelihood per character, as in acc_norm of
    lm-evaluation-harness, because turns differ in length.
    """
    chosen = most_probable_option(answers[0]) if protocol == "paper" else _most_probable_turn(example, answers[1])
    return score_choice(answers[0].text, chosen, LABELS, example.answer)


def _most_probable_turn(example: DialogueExample, answer: Answer) -> int:
    return int(np.argmax(np.array(answer.log_likelihoods) / [len(option) for option in example.options]))


def show(example: DialogueExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right turn, and the model's answer: the written letter (paper) or most probable turn (standard)."""
    if protocol == "paper":
        return show_choice(answers[0], LABELS, example.answer, protocol)
    return example.options[example.answer], example.options[_most_probable_turn(example, answers[1])]


TASK = Task("dialogue", "Dialogue", ask, score, show, {"standard": CHOICE, "paper": ACCURACY}, floor=0.25)
