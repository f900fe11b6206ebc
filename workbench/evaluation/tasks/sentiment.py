"""Sentiment: is a snippet of a review positive or negative?

SST-2 (Socher et al. 2013; GLUE, Wang et al. 2019), development split, 872 snippets. A record:

    sentence    it 's a charming and often affecting journey .
    label       1
"""

from workbench.data.tasks.examples import SentimentExample
from workbench.evaluation.engine import Query
from workbench.evaluation.tasks.choices import make_label_task
from workbench.evaluation.tasks.task import TaskProtocol

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


TASK = make_label_task("sentiment", "Sentiment", ask, labels=LABELS, gold=lambda example: example.positive)
