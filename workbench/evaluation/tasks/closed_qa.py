"""Closed-domain question answering: yes or no, from a passage.

BoolQ (Clark et al. 2019), development split, 3,270 questions. A record:

    question    does ethanol take more energy make that produces
    passage     All biomass goes through at least some of these steps: it needs to be grown, collected, dried, …
    answer      false
"""

from workbench.data.tasks.examples import ClosedQAExample
from workbench.evaluation.engine import Query
from workbench.evaluation.tasks.choices import make_label_task
from workbench.evaluation.tasks.task import TaskProtocol

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


TASK = make_label_task("closed_qa", "Closed-domain QA", ask, labels=LABELS, gold=lambda example: example.answer)
