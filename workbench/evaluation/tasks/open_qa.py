r"""Open-domain question answering: short answers, with a passage that may hold them.

Natural Questions (Kwiatkowski et al. 2019; open form of Lee et al. 2019), 3,610 questions; the paper's passages were
written by a language model (GenRead, Yu et al. 2023), and fewer than half of them hold a listed answer. A record:

    question    when is the next deadpool movie being released?
    answer      ["May 18 , 2018"]
    output      ["\n\nThe next Deadpool movie is set to be released on June 1, 2018."]
"""

from collections import Counter
from collections.abc import Sequence

from workbench.data.tasks.examples import OpenQAExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.task import VALID, Protocol, Scores, Task
from workbench.evaluation.text import normalize_answer

SPAN, EXACT, F1 = "span_match", "exact_match", "f1"


def ask(example: OpenQAExample, protocol: Protocol) -> tuple[Query, ...]:
    """The question with its passage, twenty tokens."""
    if protocol == "paper":
        prompt = (
            "Refer to the passage below and answer the following question. "
            f"Passage: {example.passage} Question: {example.question}"
        )
        return (Query(prompt, max_new_tokens=20),)
    question = f"Question: {example.question.rstrip('?')}?"
    if example.passage:
        question = f"Passage: {example.passage.strip()}\n{question}"
    message = f"Answer the question in a few words.\n{question}"
    return (Query(message, max_new_tokens=20, stop=("\n",), chat=True),)


def score(example: OpenQAExample, answers: Sequence[Answer], protocol: Protocol) -> Scores:
    """Match of the continuation with the best of the accepted answers, after normalisation.

    `span_match`: some span of words of the continuation is an accepted answer (the paper's); `exact_match` and `f1`
    take it whole, as in SQuAD (Rajpurkar et al. 2016); `valid_rate`: something is left of it after normalisation.
    """
    said = normalize_answer(answers[0].text)
    golds = [gold for gold in map(normalize_answer, example.answers) if gold]
    return {
        SPAN: float(any(f" {gold} " in f" {said} " for gold in golds)),
        EXACT: float(said in golds),
        F1: max((word_f1(said, gold) for gold in golds), default=0.0),
        VALID: float(bool(said)),
    }


def word_f1(said: str, gold: str) -> float:
    """Harmonic mean of precision and recall over words, each counted as often as it occurs (SQuAD).

    Parameters
    ----------
    said, gold : str
        Normalised texts.

    Returns
    -------
    float
        In [0, 1]; 0 where they share no word.
    """
    words, wanted = said.split(), gold.split()
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0


def show(example: OpenQAExample, answers: Sequence[Answer], protocol: Protocol) -> tuple[str, str]:
    """The accepted answers, and what the model writes."""
    return " / ".join(example.answers), answers[0].text.strip()


TASK = Task("open_qa", "Open-domain QA", ask, score, show, {"standard": SPAN, "paper": SPAN})
