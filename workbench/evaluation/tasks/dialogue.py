"""Dialogue: which of four turns goes on a conversation?

MuTual (Cui et al. 2020), development split, 886 conversations. A record:

    article     m : hi , della . how long are you going to stay here ? f : only 4 days . i know that 's not long …
    options     m : so you come to manchester just for watching a concert , do n't you ? (and three more)
    answers     B
"""

from collections.abc import Sequence

import numpy as np

from workbench.data.tasks.examples import DialogueExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.choices import ACCURACY, CHOICE, choice_scores, most_probable, shown_choice
from workbench.evaluation.tasks.task import Protocol, Scores, Task

LABELS = ("A", "B", "C", "D")


def ask(example: DialogueExample, protocol: Protocol) -> tuple[Query, ...]:
    """`paper`: the letter. `standard`: the letter, and the turns themselves as continuations of the conversation."""
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


def score(example: DialogueExample, answers: Sequence[Answer], protocol: Protocol) -> Scores:
    """Accuracy over all (Recall 4@1), valid rate, choice by log-likelihood.

    In `standard` the choice is of the turn with the highest log-likelihood per character, as lm-evaluation-harness's
    acc_norm takes it: turns differ in length.
    """
    chosen = most_probable(answers[0]) if protocol == "paper" else _most_probable_turn(example, answers[1])
    return choice_scores(answers[0].text, chosen, LABELS, example.answer)


def _most_probable_turn(example: DialogueExample, answer: Answer) -> int:
    return int(np.argmax(np.array(answer.log_likelihoods) / [len(option) for option in example.options]))


def show(example: DialogueExample, answers: Sequence[Answer], protocol: Protocol) -> tuple[str, str]:
    """The right turn, and the model's answer: written (paper) or chosen (standard)."""
    if protocol == "paper":
        return shown_choice(answers[0], LABELS, example.answer, protocol)
    return example.options[example.answer], example.options[_most_probable_turn(example, answers[1])]


TASK = Task("dialogue", "Dialogue", ask, score, show, {"standard": CHOICE, "paper": ACCURACY}, floor=0.25)
