"""Natural language inference: does a premise entail a hypothesis?

RTE in two classes (PASCAL RTE 1-3 and 5; GLUE, Wang et al. 2019). The paper's file is the training split, 2,490 pairs.
A record:

    sentence1   No Weapons of Mass Destruction Found in Iraq Yet.
    sentence2   Weapons of Mass Destruction Found in Iraq.
    label       not_entailment
"""

from workbench.data.tasks.examples import NLIExample
from workbench.evaluation.engine import Query
from workbench.evaluation.tasks.choices import make_label_task
from workbench.evaluation.tasks.task import TaskProtocol

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


TASK = make_label_task("nli", "NLI", ask, labels=LABELS, gold=lambda example: example.entailment)
