"""One reader per format of task records: a record, as JSON, a TSV or the hub gives it, becomes an example.

The format is told by the fields of the records, never by a file's name. `native` has the fields of the dataclasses in
`workbench.data.tasks.examples`; the bundled sets are written in it. A format is not known by its label, so that a split whose
labels are hidden is refused for that reason. Texts stay as the file has them, but for blanks around them where a
docstring says so.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.data.formats import kind_of
from workbench.data.tasks.conll import HUB_TAGS, tagged_example
from workbench.data.tasks.examples import (
    ENTITY_TYPES,
    ClosedQAExample,
    DialogueExample,
    NERExample,
    NLIExample,
    OpenQAExample,
    ReasoningExample,
    SentimentExample,
    SummarizationExample,
    TaskExample,
)
from workbench.errors import DataError

BEYOND = ""  # the field that holds what a TSV row has beyond its header

_NUMBER = re.compile(r"-?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]+)?")
_NOTE = re.compile(r"<<.*?>>")  # GSM8K's calculator notes
_LETTERS = ("A", "B", "C", "D")
_HIDDEN = (-1, "-1")  # GLUE's mark in a test split

# A value of a file and what it means; pairs, since a dict takes 1 and true for one key.
_Labels = tuple[tuple[str | int | bool, bool], ...]
_ENTAILMENT: _Labels = (("entailment", True), ("not_entailment", False), (0, True), (1, False))  # numbers: the hub's
_YES: _Labels = ((True, True), (False, False), (1, True), (0, False))
_YES += (("true", True), ("false", False), ("1", True), ("0", False))
_POSITIVE: _Labels = ((1, True), (0, False), ("1", True), ("0", False), ("positive", True), ("negative", False))


@dataclass(frozen=True)
class TaskFormat:
    """A format of a task's records and how they are read."""

    name: str
    fields: tuple[str, ...]  # those it is known by
    read: Callable[[dict], TaskExample]  # raises DataError with the reason


def _native_reasoning(record: dict) -> ReasoningExample:
    answer = _number(_text(record, "answer"), "answer")
    return ReasoningExample(_filled(record, "question"), _filled(record, "reasoning"), answer)


def _gsm8k(record: dict) -> ReasoningExample:
    """Cobbe et al. 2021 (arXiv 2110.14168): the answer is the reasoning, ``####`` and the number."""
    worked, mark, number = _filled(record, "answer").rpartition("####")
    if not mark:
        raise DataError("answer has no '####' before its number.")
    reasoning = _NOTE.sub("", worked).strip()
    if not reasoning:
        raise DataError("answer has no reasoning before '####'.")
    return ReasoningExample(_filled(record, "question"), reasoning, _number(number, "the answer after '####'"))


def _native_nli(record: dict) -> NLIExample:
    return NLIExample(_filled(record, "premise"), _filled(record, "hypothesis"), _boolean(record, "entailment"))


def _rte(premise: str, hypothesis: str) -> Callable[[dict], NLIExample]:
    """GLUE (Wang et al. 2019), whose fields are sentence1 and sentence2, and SuperGLUE: premise and hypothesis."""

    def read(record: dict) -> NLIExample:
        label = _label(record, "label", _ENTAILMENT, "entailment or not_entailment, or the hub's 0 or 1")
        return NLIExample(_filled(record, premise), _filled(record, hypothesis), label)

    return read


def _native_open_qa(record: dict) -> OpenQAExample:
    """Blanks around the passage are removed; it may be empty."""
    return OpenQAExample(_filled(record, "question"), _text(record, "passage").strip(), _answers(record, "answers"))


def _nq_output(record: dict) -> OpenQAExample:
    """A question with one passage that a language model wrote (GenRead, Yu et al. 2023), blanks around it removed."""
    outputs = _texts(record, "output")
    if len(outputs) != 1:
        raise DataError(f"output must hold one passage; it holds {len(outputs)}.")
    passage = _filled({"output[0]": outputs[0]}, "output[0]").strip()
    return OpenQAExample(_filled(record, "question"), passage, _answers(record, "answer"))


def _nq_contexts(record: dict) -> OpenQAExample:
    """Liu et al. 2023 (arXiv 2307.03172): title and text of each context, a line each, contexts a blank line apart."""
    contexts = _array(record, "ctxs")
    if not contexts:
        raise DataError("ctxs is empty; it must hold at least one passage.")
    for i, context in enumerate(contexts):
        if not isinstance(context, dict):
            raise DataError(f"ctxs[{i}] must be an object; it is {kind_of(context)}.")
    parts = [
        f"{_text(context, 'title', f'ctxs[{i}].title')}\n{_filled(context, 'text', f'ctxs[{i}].text')}"
        for i, context in enumerate(contexts)
    ]
    passage = "\n\n".join(part.strip() for part in parts)
    return OpenQAExample(_filled(record, "question"), passage, _answers(record, "answers"))


def _nq(record: dict) -> OpenQAExample:
    """Lee et al. 2019 (arXiv 1906.00300): no passage."""
    return OpenQAExample(_filled(record, "question"), "", _answers(record, "answer"))


def _boolq(record: dict) -> ClosedQAExample:
    """Clark et al. 2019 (arXiv 1905.10044), where `answer` decides, and SuperGLUE, where `label` does; native too."""
    field = "label" if "label" in record and "answer" not in record else "answer"
    answer = _label(record, field, _YES, "true or false")
    return ClosedQAExample(_filled(record, "question"), _filled(record, "passage"), answer)


def _native_dialogue(record: dict) -> DialogueExample:
    answer = record.get("answer")
    if type(answer) is not int or not 0 <= answer <= 3:
        raise DataError(f"answer must be an integer from 0 to 3; {_found(record, 'answer')}.")
    return DialogueExample(_filled(record, "dialogue"), _options(record), answer)


def _mutual(record: dict) -> DialogueExample:
    """Cui et al. 2020 (arXiv 2004.04494): `answers` is the letter of the right option."""
    answer = record.get("answers")
    if answer not in _LETTERS:
        raise DataError(f"answers must be A, B, C or D; {_found(record, 'answers')}.")
    return DialogueExample(_filled(record, "article"), _options(record), _LETTERS.index(answer))


def _samsum(record: dict) -> SummarizationExample:
    r"""Gliwa et al. 2019 (arXiv 1911.12237), native too: turns end in ``\n``, blanks around both texts removed."""
    dialogue = re.sub(r"\r\n?", "\n", _filled(record, "dialogue"))
    return SummarizationExample(dialogue.strip(), _filled(record, "summary").strip())


def _native_ner(record: dict) -> NERExample:
    text, end = _filled(record, "text"), 0
    entities = []
    for i, pair in enumerate(_array(record, "entities")):
        if not (isinstance(pair, list) and len(pair) == 2 and pair[0] in ENTITY_TYPES and isinstance(pair[1], str)):
            known = ", ".join(ENTITY_TYPES)
            raise DataError(f"entities[{i}] must be an array of a type ({known}) and a surface; it is {pair!r}.")
        start = text.find(pair[1], end)
        if not pair[1].strip() or start < 0:
            raise DataError(f"entities[{i}] {pair[1]!r} is not in the text after the entity before it.")
        end = start + len(pair[1])
        entities.append((pair[0], pair[1]))
    return NERExample(text, tuple(entities))


def _conll_hub(record: dict) -> NERExample:
    """CoNLL-2003 as the hub has it: tags are numbers, in the order of `HUB_TAGS`."""
    tags = _array(record, "ner_tags")
    for i, tag in enumerate(tags):
        if type(tag) is not int or not 0 <= tag < len(HUB_TAGS):
            raise DataError(f"ner_tags[{i}] must be an integer from 0 to {len(HUB_TAGS) - 1}; it is {tag!r}.")
    return tagged_example(_texts(record, "tokens"), [HUB_TAGS[tag] for tag in tags])


def _conll_columns(record: dict) -> NERExample:
    return tagged_example(_texts(record, "words"), _texts(record, "tags"))


def _native_sentiment(record: dict) -> SentimentExample:
    return SentimentExample(_filled(record, "text"), _boolean(record, "positive"))


def _sst2(field: str) -> Callable[[dict], SentimentExample]:
    """Socher et al. 2013 as GLUE gives it; blanks around the sentence removed."""

    def read(record: dict) -> SentimentExample:
        label = _label(record, "label", _POSITIVE, "negative or positive, or 0 or 1")
        return SentimentExample(_filled(record, field).strip(), label)

    return read


# In each row the first format whose fields a record has is its format.
TASK_FORMATS: dict[str, tuple[TaskFormat, ...]] = {
    "reasoning": (
        TaskFormat("native", ("question", "reasoning", "answer"), _native_reasoning),
        TaskFormat("gsm8k", ("question", "answer"), _gsm8k),
    ),
    "nli": (
        TaskFormat("native", ("premise", "hypothesis", "entailment"), _native_nli),
        TaskFormat("glue", ("sentence1", "sentence2"), _rte("sentence1", "sentence2")),
        TaskFormat("superglue", ("premise", "hypothesis"), _rte("premise", "hypothesis")),
    ),
    "open_qa": (
        TaskFormat("native", ("question", "passage", "answers"), _native_open_qa),
        TaskFormat("nq-output", ("question", "answer", "output"), _nq_output),
        TaskFormat("nq-contexts", ("question", "answers", "ctxs"), _nq_contexts),
        TaskFormat("nq", ("question", "answer"), _nq),
    ),
    "closed_qa": (TaskFormat("boolq", ("question", "passage"), _boolq),),
    "dialogue": (
        TaskFormat("native", ("dialogue", "options"), _native_dialogue),
        TaskFormat("mutual", ("article", "options"), _mutual),
    ),
    "summarization": (TaskFormat("samsum", ("dialogue", "summary"), _samsum),),
    "ner": (
        TaskFormat("native", ("text", "entities"), _native_ner),
        TaskFormat("conll-hub", ("tokens", "ner_tags"), _conll_hub),
        TaskFormat("conll-columns", ("words", "tags"), _conll_columns),
    ),
    "sentiment": (
        TaskFormat("native", ("text", "positive"), _native_sentiment),
        TaskFormat("sst2", ("sentence",), _sst2("sentence")),
        TaskFormat("sst2-text", ("text", "label"), _sst2("text")),
    ),
}


def format_of(task: str, record: object) -> TaskFormat | None:
    """Tell the format of one record by its fields.

    Parameters
    ----------
    task : str
        A key of `TASK_FORMATS`.
    record : object
        What JSON, a TSV or the hub gave for it.

    Returns
    -------
    TaskFormat or None
        None where no format fits.
    """
    if not isinstance(record, dict):
        return None
    return next((row for row in TASK_FORMATS[task] if set(row.fields) <= record.keys()), None)


def read_record(task_format: TaskFormat, record: object) -> TaskExample:
    """Read one record.

    Parameters
    ----------
    task_format : TaskFormat
        Of the file that it is in.
    record : object
        What JSON, a TSV or the hub gave for it.

    Returns
    -------
    TaskExample

    Raises
    ------
    DataError
        With the reason, if the record cannot be used.
    """
    if not isinstance(record, dict):
        raise DataError(f"a record must be an object; it is {kind_of(record)}.")
    if record.get(BEYOND):
        raise DataError(f"{record[BEYOND]!r} stands beyond the header's last column; a row has one cell a column.")
    return task_format.read(record)


def _text(record: dict, field: str, shown: str | None = None) -> str:
    value, shown = record.get(field), shown or field
    if not isinstance(value, str):
        raise DataError(f"{shown} must be text; it is {kind_of(value) if field in record else 'missing'}.")
    if re.search("[\ud800-\udfff]", value):
        raise DataError(f"{shown} {value!r} holds half a surrogate pair; write the whole character.")
    return value


def _filled(record: dict, field: str, shown: str | None = None) -> str:
    value = _text(record, field, shown)
    if not value.strip():
        raise DataError(f"{shown or field} is empty.")
    return value


def _array(record: dict, field: str) -> list:
    """Return an array; where it comes as text, as a Python literal in it."""
    value = record.get(field)
    value = _literal(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise DataError(f"{field} must be an array; it is {kind_of(value) if field in record else 'missing'}.")
    return value


def _literal(text: str) -> object:
    """Return the list of texts that a Python literal spells, or the text as it is."""
    text = text.strip()
    try:
        value = ast.literal_eval(text)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        strings = [token for token in tokens if token.type == tokenize.STRING]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return text
    # NumPy prints ['a' 'b'], which Python reads as the one string 'ab'
    return value if isinstance(value, list) and len(strings) == len(value) else text


def _texts(record: dict, field: str) -> list[str]:
    return [_text({field: value}, field, f"{field}[{i}]") for i, value in enumerate(_array(record, field))]


def _answers(record: dict, field: str) -> tuple[str, ...]:
    answers = tuple(text.strip() for text in _texts(record, field))
    if not answers or "" in answers:
        raise DataError(f"{field} must hold at least one answer and no empty one; it is {list(answers)}.")
    return answers


def _options(record: dict) -> tuple[str, str, str, str]:
    options = _texts(record, "options")
    if len(options) != 4 or not all(option.strip() for option in options):
        raise DataError(f"options must hold four texts that are not empty; it is {options}.")
    first, second, third, fourth = options
    return first, second, third, fourth


def _number(text: str, shown: str) -> str:
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise DataError(f"{shown} must be a number; it is {text!r}.")
    return text.replace(",", "")


def _boolean(record: dict, field: str) -> bool:
    value = record.get(field)
    if not isinstance(value, bool):
        raise DataError(f"{field} must be true or false; {_found(record, field)}.")
    return value


def _label(record: dict, field: str, labels: _Labels, expected: str) -> bool:
    value = record.get(field)
    if value in _HIDDEN:
        raise DataError(f"{field} is -1, the mark of a hidden label; take a split with labels.")
    said: Any = value.strip().lower() if isinstance(value, str) else value
    for label, meaning in labels:
        if type(said) is type(label) and said == label:
            return meaning
    raise DataError(f"{field} must be {expected}; {_found(record, field)}.")


def _found(record: dict, field: str) -> str:
    """Say what stands in a field."""
    value = record.get(field)
    if field not in record:
        return "it is missing"
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return f"it is {value!r}" if plain else f"it is {kind_of(value)}"
