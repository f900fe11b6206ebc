"""Reasoning: grade-school word problems with a number for an answer.

GSM8K (Cobbe et al. 2021), test split, 1,319 problems. A record:

    question    A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total does it
                take?
    answer      It takes 2/2=<<2/2=1>>1 bolt of white fiber
                So the total amount of fabric is 2+1=<<2+1=3>>3 bolts of fabric
                #### 3

The paper's prompt holds the gold reasoning, with the answer in it: `paper` measures reading more than reasoning.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from workbench.data.tasks.examples import ReasoningExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.task import VALID, Protocol, Scores, Task

SOLVED = "solve_rate"
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|-?(?<!\w)\.\d+")


def numbers_in(text: str) -> list[Decimal]:
    """Numbers in a text, thousands commas read as such; a minus sign counts where no digit or letter is before it.

    Parameters
    ----------
    text : str
        What a model or a data set writes.

    Returns
    -------
    list of Decimal
        In order.
    """
    found = []
    for match in _NUMBER.finditer(text):
        digits = match.group().replace(",", "")
        before = text[match.start() - 1 : match.start()]
        found.append(Decimal(digits.lstrip("-") if before.isalnum() else digits))
    return found


def ask(example: ReasoningExample, protocol: Protocol) -> tuple[Query, ...]:
    """`paper`: the problem with its worked solution, five tokens. `standard`: the problem alone, one line."""
    if protocol == "paper":
        prompt = (
            f"Q: {example.question} A:Let's think step by step. {example.reasoning} "
            "Therefore, the answer (arabic numerals) is:"
        )
        return (Query(prompt, max_new_tokens=5),)
    return (Query(f"Question: {example.question}\nAnswer:", max_new_tokens=48, stop=("\n",)),)


def score(example: ReasoningExample, answers: Sequence[Answer], protocol: Protocol) -> Scores:
    """Share solved, and share of answers that hold a number.

    `paper`: the gold number is one of the numbers written (equal as numbers: 8 is not in 18). `standard`: it is the
    last one.
    """
    found, gold = numbers_in(answers[0].text), Decimal(example.answer)
    solved = gold in found if protocol == "paper" else found[-1:] == [gold]
    return {SOLVED: float(solved), VALID: float(bool(found))}


def show(example: ReasoningExample, answers: Sequence[Answer], protocol: Protocol) -> tuple[str, str]:
    """The right number, and what the model writes."""
    return example.answer, answers[0].text.strip()


TASK = Task("reasoning", "Reasoning", ask, score, show, {"standard": SOLVED, "paper": SOLVED})
