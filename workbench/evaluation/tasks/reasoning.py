"""Reasoning: grade-school word problems whose answer is a number.

GSM8K (Cobbe et al. 2021), test split, 1,319 problems. A record:

    question    A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total does it
                take?
    answer      It takes 2/2=<<2/2=1>>1 bolt of white fiber
                So the total amount of fabric is 2+1=<<2+1=3>>3 bolts of fabric
                #### 3

The paper's prompt contains the gold reasoning, and so the answer: `paper` measures reading more than reasoning.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from workbench.data.tasks.examples import ReasoningExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.task import VALID, Scores, Task, TaskProtocol

SOLVED = "solve_rate"
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|-?(?<!\w)\.\d+")


def find_numbers(text: str) -> list[Decimal]:
    """Return the numbers in a text.

    Thousands commas are recognized; a minus sign counts unless a digit or letter comes before it.

    Parameters
    ----------
    text : str
        Text of a model or a data set.

    Returns
    -------
    list of Decimal
        The numbers in the order of the text.
    """
    numbers = []
    for match in _NUMBER.finditer(text):
        digits = match.group().replace(",", "")
        before = text[match.start() - 1 : match.start()]
        numbers.append(Decimal(digits.lstrip("-") if before.isalnum() else digits))
    return numbers


def ask(example: ReasoningExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return the problem: in `paper` with its worked solution and five tokens to write, in `standard` alone.

    The reference is the gold number.
    """
    if protocol == "paper":
        prompt = (
            f"Q: {example.question} A:Let's think step by step. {example.reasoning} "
            "Therefore, the answer (arabic numerals) is:"
        )
        return (Query(prompt, reference=example.answer, max_new_tokens=5),)
    prompt = f"Question: {example.question}\nAnswer:"
    return (Query(prompt, reference=example.answer, max_new_tokens=48, stop=("\n",)),)


def score(example: ReasoningExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return whether the problem is solved, and whether the answer contains a number.

    It is solved if the gold number is one of the numbers written (`paper`; equal as numbers, so 8 is not in 18), or
    the last of them (`standard`).
    """
    numbers, gold = find_numbers(answers[0].text), Decimal(example.answer)
    solved = gold in numbers if protocol == "paper" else numbers[-1:] == [gold]
    return {SOLVED: float(solved), VALID: float(bool(numbers))}


def show(example: ReasoningExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the right number, and the text that the model writes."""
    return example.answer, answers[0].text.strip()


TASK = Task("reasoning", "Reasoning", ask, score, show, {"standard": SOLVED, "paper": SOLVED})
