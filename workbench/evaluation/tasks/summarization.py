"""Summarization: what is a chat about?

SAMSum (Gliwa et al. 2019); the paper's file is the validation split, 818 chats. A record:

    dialogue    A: Hi Tom, are you busy tomorrow's afternoon?
                B: I'm pretty sure I am. What's up?
                …
    summary     A will go to the animal shelter tomorrow to get a puppy for her son. They already visited the shelter …

ROUGE (Lin 2004) is that of rouge-score, without stemming; the paper used `rouge` 1.0.1, whose numbers differ a little.
"""

from collections.abc import Sequence
from functools import cache

from rouge_score.rouge_scorer import RougeScorer

from workbench.data.tasks.examples import SummarizationExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.task import VALID, Scores, Task, TaskProtocol

MEAN = "rouge_mean"
ROUGES = ("rouge1", "rouge2", "rougeL")


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(list(ROUGES), use_stemmer=False)


def ask(example: SummarizationExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return the chat, with at most twenty-five tokens to write (paper) or forty (standard), and its summary."""
    reference = example.summary
    if protocol == "paper":
        return (Query(f"{example.dialogue}\nTL;DR:", reference=reference, max_new_tokens=25),)
    message = f"{example.dialogue}\n\nSummarize the conversation above in one sentence."
    return (Query(message, reference=reference, max_new_tokens=40, stop=("\n",), chat=True),)


def score(example: SummarizationExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return ROUGE-1, ROUGE-2 and ROUGE-L F1 and their mean; `valid_rate`: the summary is not empty."""
    rouges = _scorer().score(example.summary, answers[0].text)
    by_name = {name: rouges[name].fmeasure for name in ROUGES}
    return {MEAN: sum(by_name.values()) / len(by_name), **by_name, VALID: float(bool(answers[0].text.strip()))}


def show(example: SummarizationExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the reference summary, and the model's."""
    return example.summary, answers[0].text.strip()


TASK = Task("summarization", "Summarization", ask, score, show, {"standard": MEAN, "paper": MEAN})
