"""Normalization and comparison of answers."""

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SEPARATORS = re.compile(r"[^\w\s]|_")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and extra white space.

    The normalization of SQuAD (Rajpurkar et al. 2016), which exact match compares.

    Parameters
    ----------
    text : str
        Answer of a model or a data set.

    Returns
    -------
    str
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answers_match(a: str, b: str) -> bool:
    """Return whether two answers are equal after normalization.

    If one of them normalizes to nothing ("A", "?"), they are compared without normalization, but in lower case.

    Parameters
    ----------
    a, b : str
        The answers.

    Returns
    -------
    bool
    """
    normal_a, normal_b = normalize_answer(a), normalize_answer(b)
    return normal_a == normal_b if normal_a and normal_b else a.strip().lower() == b.strip().lower()


def contains_answer(text: str, answer: str) -> bool:
    """Return whether a text contains an answer as a run of whole words, after normalization.

    Punctuation is read in two ways, and one of them suffices: removed, so that "U.S." is the word "us", or separating
    words, so that "Rome's" and "Rome-based" contain "Rome". An answer that normalizes to nothing ("A", "?") is
    compared with the whole text, as in `answers_match`.

    Parameters
    ----------
    text, answer : str
        What a model wrote, and the answer.

    Returns
    -------
    bool
    """
    if not normalize_answer(answer):
        return answers_match(text, answer)
    pairs = ((text, answer), (_SEPARATORS.sub(" ", text), _SEPARATORS.sub(" ", answer)))
    runs = [(normalize_answer(a), normalize_answer(b)) for a, b in pairs]
    return any(b != "" and f" {b} " in f" {a} " for a, b in runs)
