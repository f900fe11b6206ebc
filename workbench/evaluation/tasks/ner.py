"""Named entity recognition: which persons, places, organizations and other names does a sentence contain?

CoNLL-2003 English (Tjong Kim Sang and De Meulder 2003). The paper's file is the validation split. A record
has one line per word, with its tags:

    LONDON NNP B-NP B-LOC
    1996-08-30 CD I-NP O
"""

import re
from collections.abc import Sequence

from workbench.data.tasks.examples import ENTITY_TYPES, NERExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.task import VALID, Ratio, Scores, Task, TaskProtocol

F1, PRECISION, RECALL = "f1", "precision", "recall"
_PAPER_WORDS = {"PER": "Person", "LOC": "Location", "ORG": "Organization", "MISC": "Miscellaneous"}
_PLAIN_WORDS = {
    "PER": "people",
    "LOC": "places",
    "ORG": "organizations",
    "MISC": "nationalities, events and works",
}
_NOTHING = {"", "none", "n/a", "no one", "nothing"}


def ask(example: NERExample, protocol: TaskProtocol) -> tuple[Query, ...]:
    """Return one question for each type of entity, in the order of `ENTITY_TYPES`.

    The reference of a question is the names of that type in the order of the text, with commas between them, or none.
    """
    kinds = [(kind, _reference(example, kind)) for kind in ENTITY_TYPES]
    if protocol == "paper":
        prompt = "Please identify {} Entity from the given text. Text: {} Entity:"
        text = _join_as_paper(example.text.split(" "))
        return tuple(
            Query(prompt.format(_PAPER_WORDS[kind], text), reference=reference, max_new_tokens=10)
            for kind, reference in kinds
        )
    message = "Text: {}\nList the names of {} in the text, with commas between them, or write none."
    return tuple(
        Query(
            message.format(example.text, _PLAIN_WORDS[kind]),
            reference=reference,
            max_new_tokens=24,
            stop=("\n",),
            chat=True,
            lead="Names:",
        )
        for kind, reference in kinds
    )


def _reference(example: NERExample, kind: str) -> str:
    names = dict.fromkeys(surface for of_name, surface in example.entities if of_name == kind)
    return ", ".join(names) or "none"


def _join_as_paper(words: Sequence[str]) -> str:
    """Return the sentence as the paper's code joins it: no blank before the words "," and ".".

    The first character is dropped, which is the blank before the first word or a comma or full stop in its place.
    """
    return "".join(word if word in (",", ".") else f" {word}" for word in words)[1:]


def find_names(text: str) -> list[str]:
    """Return the names that an answer lists.

    Commas, semicolons, "and" and line ends separate names; "none" and the like list no names.

    Parameters
    ----------
    text : str
        Text that a model wrote.

    Returns
    -------
    list of str
        The names, each once, without quotes and full stops around them.
    """
    cleaned = map(_strip_marks, re.split(r"[,;\n]|\band\b", text))
    return list(dict.fromkeys(name for name in cleaned if name.lower() not in _NOTHING))


def _strip_marks(name: str) -> str:
    return re.sub(r"^[\s\"'*.:()-]+|[\s\"'*.:()-]+$", "", name)


def score(example: NERExample, answers: Sequence[Answer], protocol: TaskProtocol) -> Scores:
    """Return entity-level F1, precision and recall over sets of (type, surface), pooled over all sentences.

    Case does not matter. `valid_rate`: the share of the four answers that list a name from the text, or no name.
    """
    gold = {(kind, _strip_marks(surface).lower()) for kind, surface in example.entities}
    listed = [find_names(answer.text) for answer in answers]
    predicted = {(kind, name.lower()) for kind, names in zip(ENTITY_TYPES, listed, strict=True) for name in names}
    hits = len(gold & predicted)
    text = example.text.lower()
    valid = [not names or any(name.lower() in text for name in names) for names in listed]
    return {
        F1: Ratio(2 * hits, len(gold) + len(predicted)),
        PRECISION: Ratio(hits, len(predicted)),
        RECALL: Ratio(hits, len(gold)),
        VALID: sum(valid) / len(valid),
    }


def show(example: NERExample, answers: Sequence[Answer], protocol: TaskProtocol) -> tuple[str, str]:
    """Return the entities by type, and those that the model lists."""
    gold = {kind: [s for k, s in example.entities if k == kind] for kind in ENTITY_TYPES}
    names = {kind: find_names(answer.text) for kind, answer in zip(ENTITY_TYPES, answers, strict=True)}
    expected, listed = ("; ".join(f"{kind}: {', '.join(v)}" for kind, v in d.items() if v) for d in (gold, names))
    return expected, listed


TASK = Task("ner", "NER", ask, score, show, {"standard": F1, "paper": F1})
