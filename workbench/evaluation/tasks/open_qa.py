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
from workbench.evaluation.tasks.task import VALID, Scores, Task, TaskProtocol
from workbench.evaluation.text import normalize_answer

SPAN, EXACT, F1 = "span_match", "exact_match", "f1"


def ask(example: OpenQAExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return the question with its passage; the answer has at most twenty tokens.

    The reference is the first accepted answer: one text, whose log-likelihoods before and after an edit can be
    subtracted, which those of the most probable of several cannot.
    """
    reference = example.answers[0]
    if protocol == "paper":
        prompt = (
            "Refer to the passage below and answer the following question. "
            f"Passage: {example.passage} Question: {example.question}"
        )
        return (Query(prompt, reference=reference, max_new_tokens=20),)
    question = f"Question: {example.question.rstrip('?')}?"
    if example.passage:
        question = f"Passage: {example.passage.strip()}\n{question}"
    message = f"Answer the question in a few words.\n{question}"
    return (Query(message, reference=reference, max_new_tokens=20, stop=("\n",), chat=True),)


def score(example: OpenQAExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return the match of the continuation with the best of the accepted answers, after normalization.

    `span_match`: some span of words of the continuation is an accepted answer (the paper's metric); `exact_match` and
    `f1` compare the whole continuation, as in SQuAD (Rajpurkar et al. 2016); `valid_rate`: the continuation is not
    empty after normalization.
    """
    answer = normalize_answer(answers[0].text)
    golds = [gold for gold in map(normalize_answer, example.answers) if gold]
    return {
        SPAN: float(any(f" {gold} " in f" {answer} " for gold in golds)),
        EXACT: float(answer in golds),
        F1: max((word_f1(answer, gold) for gold in golds), default=0.0),
        VALID: float(bool(answer)),
    }


def word_f1(answer: str, gold: str) -> float:
    """Return the harmonic mean of precision and recall over words, each counted as often as it occurs (SQuAD).

    Parameters
    ----------
    answer, gold : str
        Normalized texts.

    Returns
    -------
    float
        Score in [0, 1]; 0 if they share no word.
    """
    answer_words, gold_words = answer.split(), gold.split()
    shared = sum((Counter(answer_words) & Counter(gold_words)).values())
    return 2 * shared / (len(answer_words) + len(gold_words)) if shared else 0.0


def show(example: OpenQAExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the accepted answers, and the text that the model writes."""
    return " / ".join(example.answers), answers[0].text.strip()


TASK = Task("open_qa", "Open-domain QA", ask, score, show, {"standard": SPAN, "paper": SPAN})
