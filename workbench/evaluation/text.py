"""Answer normalisation."""

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space (SQuAD; Rajpurkar et al. 2016).

    Parameters
    ----------
    text : str
        An answer as a model or a data set gives it.

    Returns
    -------
    str
        What exact match compares.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def same_answer(a: str, b: str) -> bool:
    """Whether two answers match after normalisation; if one normalises to nothing ("A", "?"), as they stand.

    Parameters
    ----------
    a, b : str
        Two answers.

    Returns
    -------
    bool
        True for a match.
    """
    normal_a, normal_b = normalize_answer(a), normalize_answer(b)
    return normal_a == normal_b if normal_a and normal_b else a.strip().lower() == b.strip().lower()
