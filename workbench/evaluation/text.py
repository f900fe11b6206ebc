"""Normalization and comparison of answers."""

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
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
