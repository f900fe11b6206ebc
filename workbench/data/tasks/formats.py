"""One reader per format of task records, which makes an example of a record.

`native` has the fields of the dataclasses in `workbench.data.tasks.examples`; the bundled sets are written in it. The
label does not identify a format, so a split with hidden labels is refused for that reason. Texts stay as the file has
them, except that blanks around them are removed where a docstring says so.

Every reader raises a `DataError` with the reason if it cannot use a record.
"""

import ast
import io
import re
import tokenize
from functools import partial

from workbench.data.fields import FieldError, Record, check_objects, check_texts, describe_value, get_array, get_text
from workbench.data.records import RecordFormat
from workbench.data.tasks.conll import HUB_TAGS, make_ner_example
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

_NUMBER = re.compile(r"-?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]+)?")
_NOTE = re.compile(r"<<.*?>>")  # GSM8K's calculator notes
_LETTERS = ("A", "B", "C", "D")
_HIDDEN = (-1, "-1")  # GLUE's mark in a test split

# Values of a label and their meanings; pairs, since a dictionary takes 1 and true for one key.
_Labels = tuple[tuple[str | int | bool, bool], ...]
_ENTAILMENT: _Labels = (("entailment", True), ("not_entailment", False), (0, True), (1, False))  # numbers: the hub's
_YES: _Labels = ((True, True), (False, False), (1, True), (0, False))
_YES += (("true", True), ("false", False), ("1", True), ("0", False))
_POSITIVE: _Labels = ((1, True), (0, False), ("1", True), ("0", False), ("positive", True), ("negative", False))


def _read_native_reasoning(record: Record) -> ReasoningExample:
    answer = _parse_number(get_text(record, "answer"), "answer")
    return ReasoningExample(_get_filled(record, "question"), _get_filled(record, "reasoning"), answer)


def _read_gsm8k(record: Record) -> ReasoningExample:
    """Read GSM8K (Cobbe et al. 2021, arXiv 2110.14168): `answer` is the reasoning, ``####`` and the number."""
    worked, mark, number = _get_filled(record, "answer").rpartition("####")
    if not mark:
        raise FieldError("answer has no '####' before its number.")
    reasoning = _NOTE.sub("", worked).strip()
    if not reasoning:
        raise FieldError("answer has no reasoning before '####'.")
    return ReasoningExample(
        _get_filled(record, "question"), reasoning, _parse_number(number, "the answer after '####'")
    )


def _read_native_nli(record: Record) -> NLIExample:
    return NLIExample(
        _get_filled(record, "premise"), _get_filled(record, "hypothesis"), _get_boolean(record, "entailment")
    )


def _read_rte(record: Record, premise: str, hypothesis: str) -> NLIExample:
    """Read RTE of GLUE (Wang et al. 2019; fields sentence1 and sentence2) or SuperGLUE (premise and hypothesis)."""
    label = _get_label(record, "label", _ENTAILMENT, "entailment or not_entailment, or the hub's 0 or 1")
    return NLIExample(_get_filled(record, premise), _get_filled(record, hypothesis), label)


def _read_native_open_qa(record: Record) -> OpenQAExample:
    """Read the native form; blanks around the passage are removed, and it may be empty."""
    return OpenQAExample(
        _get_filled(record, "question"), get_text(record, "passage").strip(), _get_answers(record, "answers")
    )


def _read_nq_output(record: Record) -> OpenQAExample:
    """Read a question with one passage that a language model wrote (GenRead, Yu et al. 2023), stripped of blanks."""
    outputs = _get_texts(record, "output")
    if len(outputs) != 1:
        raise FieldError(f"output must hold one passage; it holds {len(outputs)}.")
    passage = outputs[0].strip()
    if not passage:
        raise FieldError("output[0] is empty.")
    return OpenQAExample(_get_filled(record, "question"), passage, _get_answers(record, "answer"))


def _read_nq_contexts(record: Record) -> OpenQAExample:
    """Read Liu et al. 2023 (arXiv 2307.03172): contexts of a title line and a text, separated by blank lines."""
    contexts = _get_array(record, "ctxs")
    if not contexts:
        raise FieldError("ctxs is empty; it must hold at least one passage.")
    parts = [
        f"{get_text(context, 'title', f'ctxs[{i}].title')}\n{_get_filled(context, 'text', f'ctxs[{i}].text')}"
        for i, context in enumerate(check_objects(contexts, "ctxs"))
    ]
    passage = "\n\n".join(part.strip() for part in parts)
    return OpenQAExample(_get_filled(record, "question"), passage, _get_answers(record, "answers"))


def _read_nq(record: Record) -> OpenQAExample:
    """Read NQ-open (Lee et al. 2019, arXiv 1906.00300), which has no passages."""
    return OpenQAExample(_get_filled(record, "question"), "", _get_answers(record, "answer"))


def _read_boolq(record: Record) -> ClosedQAExample:
    """Read BoolQ (Clark et al. 2019, arXiv 1905.10044; label `answer`), SuperGLUE's form (`label`) or native."""
    field = "label" if "label" in record and "answer" not in record else "answer"
    answer = _get_label(record, field, _YES, "true or false")
    return ClosedQAExample(_get_filled(record, "question"), _get_filled(record, "passage"), answer)


def _read_native_dialogue(record: Record) -> DialogueExample:
    answer = record.get("answer")
    if type(answer) is not int or not 0 <= answer <= 3:
        raise FieldError(f"answer must be an integer from 0 to 3; it is {describe_value(record, 'answer')}.")
    return DialogueExample(_get_filled(record, "dialogue"), _get_options(record), answer)


def _read_mutual(record: Record) -> DialogueExample:
    """Read MuTual (Cui et al. 2020, arXiv 2004.04494): `answers` is the letter of the right option."""
    answer = record.get("answers")
    if answer not in _LETTERS:
        raise FieldError(f"answers must be A, B, C or D; it is {describe_value(record, 'answers')}.")
    return DialogueExample(_get_filled(record, "article"), _get_options(record), _LETTERS.index(answer))


def _read_samsum(record: Record) -> SummarizationExample:
    r"""Read SAMSum (Gliwa et al. 2019, arXiv 1911.12237), or native: turns end in ``\n``, outer blanks are removed."""
    dialogue = re.sub(r"\r\n?", "\n", _get_filled(record, "dialogue"))
    return SummarizationExample(dialogue.strip(), _get_filled(record, "summary").strip())


def _read_native_ner(record: Record) -> NERExample:
    text, end = _get_filled(record, "text"), 0
    entities = []
    for i, pair in enumerate(_get_array(record, "entities")):
        if not (isinstance(pair, list) and len(pair) == 2 and pair[0] in ENTITY_TYPES and isinstance(pair[1], str)):
            known = ", ".join(ENTITY_TYPES)
            raise FieldError(f"entities[{i}] must be an array of a type ({known}) and a surface; it is {pair!r}.")
        start = text.find(pair[1], end)
        if not pair[1].strip() or start < 0:
            raise FieldError(f"entities[{i}] {pair[1]!r} is not in the text after the preceding entity.")
        end = start + len(pair[1])
        entities.append((pair[0], pair[1]))
    return NERExample(text, tuple(entities))


def _read_conll_hub(record: Record) -> NERExample:
    """Read CoNLL-2003 in the hub's form: tags are numbers, in the order of `HUB_TAGS`."""
    tags: list[str] = []
    for i, tag in enumerate(_get_array(record, "ner_tags")):
        if type(tag) is not int or not 0 <= tag < len(HUB_TAGS):
            raise FieldError(f"ner_tags[{i}] must be an integer from 0 to {len(HUB_TAGS) - 1}; it is {tag!r}.")
        tags.append(HUB_TAGS[tag])
    return make_ner_example(_get_texts(record, "tokens"), tags)


def _read_conll_columns(record: Record) -> NERExample:
    return make_ner_example(_get_texts(record, "words"), _get_texts(record, "tags"))


def _read_native_sentiment(record: Record) -> SentimentExample:
    return SentimentExample(_get_filled(record, "text"), _get_boolean(record, "positive"))


def _read_sst2(record: Record, field: str) -> SentimentExample:
    """Read SST-2 (Socher et al. 2013) in GLUE's form; blanks around the sentence are removed."""
    label = _get_label(record, "label", _POSITIVE, "negative or positive, or 0 or 1")
    return SentimentExample(_get_filled(record, field).strip(), label)


# A record has the first format in its task's row whose fields it has.
TASK_FORMATS: dict[str, tuple[RecordFormat[TaskExample], ...]] = {
    "reasoning": (
        RecordFormat("native", ("question", "reasoning", "answer"), _read_native_reasoning),
        RecordFormat("gsm8k", ("question", "answer"), _read_gsm8k),
    ),
    "nli": (
        RecordFormat("native", ("premise", "hypothesis", "entailment"), _read_native_nli),
        RecordFormat(
            "glue", ("sentence1", "sentence2"), partial(_read_rte, premise="sentence1", hypothesis="sentence2")
        ),
        RecordFormat(
            "superglue", ("premise", "hypothesis"), partial(_read_rte, premise="premise", hypothesis="hypothesis")
        ),
    ),
    "open_qa": (
        RecordFormat("native", ("question", "passage", "answers"), _read_native_open_qa),
        RecordFormat("nq-output", ("question", "answer", "output"), _read_nq_output),
        RecordFormat("nq-contexts", ("question", "answers", "ctxs"), _read_nq_contexts),
        RecordFormat("nq", ("question", "answer"), _read_nq),
    ),
    "closed_qa": (RecordFormat("boolq", ("question", "passage"), _read_boolq),),
    "dialogue": (
        RecordFormat("native", ("dialogue", "options"), _read_native_dialogue),
        RecordFormat("mutual", ("article", "options"), _read_mutual),
    ),
    "summarization": (RecordFormat("samsum", ("dialogue", "summary"), _read_samsum),),
    "ner": (
        RecordFormat("native", ("text", "entities"), _read_native_ner),
        RecordFormat("conll-hub", ("tokens", "ner_tags"), _read_conll_hub),
        RecordFormat("conll-columns", ("words", "tags"), _read_conll_columns),
    ),
    "sentiment": (
        RecordFormat("native", ("text", "positive"), _read_native_sentiment),
        RecordFormat("sst2", ("sentence",), partial(_read_sst2, field="sentence")),
        RecordFormat("sst2-text", ("text", "label"), partial(_read_sst2, field="text")),
    ),
}


def _get_filled(record: Record, field: str, label: str | None = None) -> str:
    """Return the text in a field, which must not be blank."""
    value = get_text(record, field, label)
    if not value.strip():
        raise FieldError(f"{label or field} is empty.")
    return value


def _get_array(record: Record, field: str) -> list[object]:
    """Return the array in a field, which may be written as text, in the form of a Python literal."""
    value = record.get(field)
    return get_array({field: _parse_literal(value)} if isinstance(value, str) else record, field)


def _parse_literal(text: str) -> object:
    """Return the list of texts that a Python literal spells, or else the text itself."""
    text = text.strip()
    try:
        value = ast.literal_eval(text)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        strings = [token for token in tokens if token.type == tokenize.STRING]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return text
    # NumPy prints ['a' 'b'], which Python reads as the one string 'ab'
    return value if isinstance(value, list) and len(strings) == len(value) else text


def _get_texts(record: Record, field: str) -> tuple[str, ...]:
    return check_texts(_get_array(record, field), field)


def _get_answers(record: Record, field: str) -> tuple[str, ...]:
    answers = tuple(text.strip() for text in _get_texts(record, field))
    if not answers or "" in answers:
        raise FieldError(f"{field} must hold at least one answer and no empty one; it is {list(answers)}.")
    return answers


def _get_options(record: Record) -> tuple[str, str, str, str]:
    options = _get_texts(record, "options")
    if len(options) != 4 or not all(option.strip() for option in options):
        raise FieldError(f"options must hold four texts that are not empty; it is {list(options)}.")
    return options


def _parse_number(text: str, label: str) -> str:
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise FieldError(f"{label} must be a number; it is {text!r}.")
    return text.replace(",", "")


def _get_boolean(record: Record, field: str) -> bool:
    value = record.get(field)
    if not isinstance(value, bool):
        raise FieldError(f"{field} must be true or false; it is {describe_value(record, field)}.")
    return value


def _get_label(record: Record, field: str, labels: _Labels, expected: str) -> bool:
    value = record.get(field)
    if value in _HIDDEN:
        raise FieldError(f"{field} is -1, the mark of a hidden label; take a split with labels.")
    given = value.strip().lower() if isinstance(value, str) else value
    for label, meaning in labels:
        if type(given) is type(label) and given == label:
            return meaning
    raise FieldError(f"{field} must be {expected}; it is {describe_value(record, field)}.")
