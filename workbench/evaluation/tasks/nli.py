"""Natural language inference: does a premise entail a hypothesis?

RTE in two classes (PASCAL RTE 1-3 and 5; GLUE, Wang et al. 2019). The paper's file is the training split, 2,490 pairs.
A record:

    sentence1   No Weapons of Mass Destruction Found in Iraq Yet.
    sentence2   Weapons of Mass Destruction Found in Iraq.
    label       not_entailment
"""

from collections.abc import Sequence

from workbench.data.tasks.examples import NLIExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.choices import ACCURACY, AUC, CHOICE, score_choice, show_choice
from workbench.evaluation.tasks.task import Choice, Scores, Task, TaskProtocol

LABELS = ("False", "True")


def ask(example: NLIExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return one question, with both labels as options; the reference is the right label."""
    if protocol == "paper":
        prompt = f"{example.premise} entails the {example.hypothesis}. True or False? answer:"
        return (Query(prompt, LABELS, reference=LABELS[example.entailment], max_new_tokens=1),)
    message = (
        "Given the text, is the statement true or false? Answer with one word.\n"
        f"Text: {example.premise}\nStatement: {example.hypothesis}"
    )
    return (
        Query(
            message,
            LABELS,
            reference=LABELS[example.entailment],
            max_new_tokens=8,
            stop=("\n",),
            chat=True,
            lead="The statement is",
        ),
    )


def choose(example: NLIExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Choice:
    """Return the choice between the labels by log-likelihood."""
    return Choice(answers[0].log_likelihoods, int(example.entailment))


def score(example: NLIExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return accuracy (neither true nor false is wrong), valid rate, and the choice by log-likelihood."""
    return score_choice(answers[0].text, choose(example, answers, protocol), LABELS)


def show(example: NLIExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right label, and the model's answer: the written one (paper) or the most probable one (standard)."""
    return show_choice(answers[0], choose(example, answers, protocol), LABELS, protocol)


TASK = Task("nli", "NLI", ask, score, show, {"standard": CHOICE, "paper": ACCURACY}, floor=0.5, choose=choose, auc=AUC)
