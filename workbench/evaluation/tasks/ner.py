"""Named entity recognition: which persons, places, organizations and other names are in a sentence?

CoNLL-2003 English (Tjong Kim Sang and De Meulder 2003). The paper's file is the validation split. A record,
a word and its tags a line:

    LONDON NNP B-NP B-LOC
    1996-08-30 CD I-NP O
"""

import re
from collections.abc import Sequence

from workbench.data.tasks.examples import ENTITY_TYPES, NERExample
from workbench.evaluation.engine import Answer, Query
from workbench.evaluation.tasks.task import VALID, Protocol, Ratio, Scores, Task

F1, PRECISION, RECALL = "f1", "precision", "recall"
_PAPER_WORDS = {"PER": "Person", "LOC": "Location", "ORG": "Organization", "MISC": "Miscellaneous"}
_PLAIN_WORDS = {
    "PER": "people",
    "LOC": "places",
    "ORG": "organizations",
    "MISC": "nationalities, events and works",
}
_NOTHING = {"", "none", "n/a", "no one", "nothing"}


def ask(example: NERExample, protocol: Protocol) -> tuple[Query, ...]:
    """One question for each type of entity, in the order of `ENTITY_TYPES`."""
    if protocol == "paper":
        prompt = "Please identify {} Entity from the given text. Text: {} Entity:"
        return tuple(Query(prompt.format(_PAPER_WORDS[kind], example.text), max_new_tokens=10) for kind in ENTITY_TYPES)
    message = "Text: {}\nList the names of {} in the text, with commas between them, or write none."
    return tuple(
        Query(
            message.format(example.text, _PLAIN_WORDS[kind]), max_new_tokens=24, stop=("\n",), chat=True, lead="Names:"
        )
        for kind in ENTITY_TYPES
    )


def names_in(text: str) -> list[str]:
    """The names that an answer lists: parted by commas, semicolons, "and" or line ends; "none" lists none.

    Parameters
    ----------
    text : str
        What a model wrote.

    Returns
    -------
    list of str
        Without quotes and full stops around them, each once.
    """
    cleaned = map(_bare, re.split(r"[,;\n]|\band\b", text))
    return list(dict.fromkeys(name for name in cleaned if name.lower() not in _NOTHING))


def _bare(name: str) -> str:
    return re.sub(r"^[\s\"'*.:()-]+|[\s\"'*.:()-]+$", "", name)


def score(example: NERExample, answers: Sequence[Answer], protocol: Protocol) -> Scores:
    """Entity-level F1, precision and recall over sets of (type, surface), in any case, pooled over all sentences.

    `valid_rate`: of the four answers, the share that lists a name that is in the text, or none.
    """
    gold = {(kind, _bare(surface).lower()) for kind, surface in example.entities}
    listed = [names_in(answer.text) for answer in answers]
    found = {(kind, name.lower()) for kind, names in zip(ENTITY_TYPES, listed, strict=True) for name in names}
    hits = len(gold & found)
    text = example.text.lower()
    valid = [not names or any(name.lower() in text for name in names) for names in listed]
    return {
        F1: Ratio(2 * hits, len(gold) + len(found)),
        PRECISION: Ratio(hits, len(found)),
        RECALL: Ratio(hits, len(gold)),
        VALID: sum(valid) / len(valid),
    }


def show(example: NERExample, answers: Sequence[Answer], protocol: Protocol) -> tuple[str, str]:
    """The entities by type, and what the model lists."""
    gold = {kind: [s for k, s in example.entities if k == kind] for kind in ENTITY_TYPES}
    said = {kind: names_in(answer.text) for kind, answer in zip(ENTITY_TYPES, answers, strict=True)}
    expected, listed = ("; ".join(f"{kind}: {', '.join(v)}" for kind, v in d.items() if v) for d in (gold, said))
    return expected, listed


TASK = Task("ner", "NER", ask, score, show, {"standard": F1, "paper": F1})
