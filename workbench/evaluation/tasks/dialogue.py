"""Dialogue: which of four turns continues a conversation?

MuTual (Cui et al. 2020), development split, 886 conversations. A record:

    article     m : hi , della . how long are you going to stay here ? f : only 4 days . i know that 's not long …
    options     m : so you come to manchester just for watching a concert , do n't you ? (and three more)
    answers     B
"""

from collections.abc import Sequence

from workbench.data.tasks.examples import DialogueExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.choices import AUC, HEADLINES, score_choice, show_choice
from workbench.evaluation.tasks.task import Choice, Scores, Task, TaskProtocol

LABELS = ("A", "B", "C", "D")


def ask(example: DialogueExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return the queries: for the letter, and in `standard` for the turns as continuations of the conversation.

    The reference is the right letter in `paper`, and the right turn in `standard`.
    """
    if protocol == "paper":
        choices = "".join(f"({label}){option}" for label, option in zip(LABELS, example.options, strict=True))
        prompt = (
            f"Q: {example.dialogue} Which choice is correct? Answer Chioces: {choices} "
            "A: Among A through D, the answer is"
        )
        return (Query(prompt, LABELS, reference=LABELS[example.answer], max_new_tokens=1),)
    choices = "\n".join(f"{label}. {option}" for label, option in zip(LABELS, example.options, strict=True))
    message = f"Which turn goes on this conversation? Answer with its letter.\n{example.dialogue}\n{choices}"
    letter = Query(message, max_new_tokens=8, stop=("\n",), chat=True, lead="The answer is")
    return (letter, Query(example.dialogue, example.options, reference=example.options[example.answer]))


def choose(example: DialogueExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Choice:
    """Return the choice of the letter (paper) or of the turn (standard) by log-likelihood.

    The score of a turn is its log-likelihood per character, as in acc_norm of lm-evaluation-harness, because turns
    differ in length.
    """
    if protocol == "paper":
        return Choice(answers[0].log_likelihoods, example.answer)
    turns = zip(answers[1].log_likelihoods, example.options, strict=True)
    return Choice(tuple(log_likelihood / len(turn) for log_likelihood, turn in turns), example.answer)


def score(example: DialogueExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return accuracy (Recall 4@1), valid rate, and the choice by log-likelihood."""
    return score_choice(answers[0].text, choose(example, answers, protocol), LABELS)


def show(example: DialogueExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right turn, and the model's answer: the written letter (paper) or most probable turn (standard)."""
    choice = choose(example, answers, protocol)
    if protocol == "paper":
        return show_choice(answers[0], choice, LABELS, protocol)
    return example.options[choice.gold], example.options[choice.chosen]


TASK = Task(
    "dialogue",
    "Dialogue",
    ask,
    score,
    show,
    HEADLINES,
    floor=0.25,
    choose=choose,
    auc=AUC,
)
