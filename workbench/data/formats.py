"""One reader per fact format, which makes an `EditRequest` of a record.

Data sets other than our own write the subject into their prompts and give their fields other names; both are translated
here, and nowhere else. Blanks around targets are removed (the encoding of prompt + target adds the one that a model
needs); prompts stay as the file has them.

Every reader raises a `FieldError`, which is a `RequestError`, if a required field is missing or has the wrong type, and
any other `RequestError` if the fact is not an edit.
"""

import re
from dataclasses import replace

from workbench.data.fields import (
    FieldError,
    Record,
    check_objects,
    check_text,
    check_texts,
    get_array,
    get_object,
    get_text,
)
from workbench.data.records import RecordFormat
from workbench.request import PLACEHOLDER, EditRequest, LocalityProbe, PortabilityProbe

NATIVE_FIELDS = ("relation", "subject", "prompt", "target_true", "target_new", "rephrase", "locality", "portability")
PROBE_FIELDS = ("prompt", "target")
PORTABILITY_FIELDS = (*PROBE_FIELDS, "aliases")
REQUIRED_FIELDS = ("subject", "prompt", "target_new")
_CSV_PROBES = tuple(f"{metric}_{field}" for metric in ("locality", "portability") for field in PROBE_FIELDS)
CSV_COLUMNS = (*REQUIRED_FIELDS, "target_true", "relation", "rephrase", *_CSV_PROBES)
CSV_COLUMN = re.compile("|".join(CSV_COLUMNS) + f"|(rephrase|{'|'.join(_CSV_PROBES)})_[0-9]+")


def read_native(record: Record) -> EditRequest:
    """Read the workbench's own format.

    ``{"relation", "subject", "prompt", "target_true", "target_new", "rephrase": [...], "locality": [{"prompt",
    "target"}, ...], "portability": [{"prompt", "target", "aliases": [...]}, ...]}``; relation, target_true, rephrase,
    locality, portability and aliases are optional. The prompt holds ``{}`` where the subject stands; a rephrasing may.
    A fact for methods that need no subject may lack it; then there is no ``{}``.

    Parameters
    ----------
    record : dict
        One JSON object.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If a field is unknown, missing or not text, or the fact is not an edit.
    """
    _refuse_unknown(record, NATIVE_FIELDS, "a fact")
    return EditRequest(
        subject=_optional_text(record, "subject"),
        prompt=get_text(record, "prompt"),
        target_new=get_text(record, "target_new").strip(),
        target_true=_optional_target(record, "target_true"),
        rephrase=_optional_texts(record, "rephrase"),
        locality=tuple(map(_read_native_probe, _optional_objects(record, "locality"))),
        relation=_optional_text(record, "relation"),
        portability=tuple(map(_read_native_question, _optional_objects(record, "portability"))),
    )


def read_zsre(record: Record) -> EditRequest:
    """Read a record of ZsRE as MEND publishes it (`zsre_mend_eval.json`, `zsre_mend_train.json`).

    Levy et al. 2017 (arXiv 1706.04115), split and rephrased by De Cao et al. 2021 (arXiv 2104.08164) and Mitchell et
    al. 2022 (arXiv 2110.11309). Fields: subject, src, alt and optionally answers, rephrase, loc, loc_ans and
    portability. `alt` is the answer to write. `answers` are the true ones, of which the first is used; `pred` is
    another model's answer and is not read, nor is `cond`. `loc` keeps its opening "nq question: ". `portability` is the
    one-hop question of Yao et al. 2023 (arXiv 2305.13172), with the fields New Question and New Answer; its Recalled
    Relation is not read.
    """
    probes = _paired_probes(record, "loc", "loc_ans")
    request = _read_unmarked(record, probes, prompt="src", new="alt", true="answers", rephrase="rephrase")
    return replace(request, portability=_read_zsre_question(record))


def read_counterfact(record: Record) -> EditRequest:
    """Read a record of CounterFact as its authors publish it.

    Meng et al. 2022 (arXiv 2202.05262). Fields: requested_rewrite and optionally paraphrase_prompts and
    neighborhood_prompts. A neighborhood prompt asks for another subject with the same true object, so the target of
    every probe is target_true. attribute_prompts and generation_prompts are not read.
    """
    rewrite = get_object(record, "requested_rewrite")
    target_true = get_text(get_object(rewrite, "target_true"), "str", "target_true.str").strip()
    neighbors = _optional_texts(record, "neighborhood_prompts")
    return EditRequest(
        subject=get_text(rewrite, "subject"),
        prompt=get_text(rewrite, "prompt"),
        target_new=get_text(get_object(rewrite, "target_new"), "str", "target_new.str").strip(),
        target_true=target_true,
        rephrase=_plain_texts(record, "paraphrase_prompts"),
        locality=tuple(LocalityProbe(prompt, target_true) for prompt in neighbors),
        relation=_optional_text(rewrite, "relation_id"),
    )


def read_counterfact_edit(record: Record) -> EditRequest:
    """Read a record of CounterFact in EasyEdit's form (`counterfact-edit.json`), whose prompts hold the subject.

    Meng et al. 2022 (arXiv 2202.05262), rearranged by Yao et al. 2023 (arXiv 2305.13172). Fields: subject, prompt,
    target_new and optionally ground_truth, rephrase_prompt, locality_prompt and locality_ground_truth. The rephrasings
    come from CounterFact's generation prompts, so they ask for something related to the fact rather than the fact.
    """
    return _read_unmarked(record, _paired_probes(record, "locality_prompt", "locality_ground_truth"))


def read_knowedit(record: Record) -> EditRequest:
    """Read a record of KnowEdit (WikiData-recent, WikiData-counterfact, ZsRE).

    Zhang et al. 2024 (arXiv 2401.01286); the WikiData parts are based on Cohen et al. 2024 (arXiv 2307.12976). Fields:
    subject, prompt, target_new and optionally ground_truth, rephrase_prompt, locality and portability. Where a ground
    truth is a list, or a list of lists of aliases, its first string is used, as in EasyEdit; the other strings of a
    portability question, which are further names and further right answers, become its aliases. All lists under
    `locality` and `portability` are read, in the file's order: the latter ask for other names of the subject and for
    logical consequences as well as for one-hop answers. A probe without an answer is refused.
    """
    locality = tuple(LocalityProbe(*_knowedit_probe(probe, "locality")) for probe in _grouped(record, "locality"))
    request = _read_unmarked(record, locality)
    return replace(request, portability=tuple(map(_read_knowedit_question, _grouped(record, "portability"))))


def read_csv_row(row: Record) -> EditRequest:
    """Read a row of a CSV with the columns `CSV_COLUMNS`.

    rephrase and the columns of the probes may also be numbered, as in rephrase_1. An empty cell is a missing value.
    """
    cells = {column: cell for column, cell in row.items() if cell}
    record = {column: cell for column, cell in cells.items() if column in NATIVE_FIELDS}
    record["rephrase"] = [cell for column, cell in cells.items() if column.startswith("rephrase")]
    for metric in ("locality", "portability"):
        columns = [column for column in cells if column.startswith(f"{metric}_")]
        suffixes = dict.fromkeys(re.sub(f"{metric}_(prompt|target)", "", column) for column in columns)
        record[metric] = [
            {field: cells.get(f"{metric}_{field}{suffix}", "") for field in PROBE_FIELDS} for suffix in suffixes
        ]
    return read_native(record)


def _is_knowedit(record: Record) -> bool:
    """Return whether a record has, beside the required fields, a field or the objects that only KnowEdit has."""
    has_objects = any(isinstance(record.get(field), dict) for field in ("portability", "locality"))
    return set(REQUIRED_FIELDS) <= record.keys() and ("ground_truth" in record or has_objects)


# A record has the first format that it matches.
JSON_FORMATS = (
    RecordFormat("counterfact", ("requested_rewrite",), read_counterfact),
    RecordFormat("zsre", ("subject", "src", "alt"), read_zsre),
    RecordFormat("counterfact-edit", (*REQUIRED_FIELDS, "locality_prompt"), read_counterfact_edit),
    RecordFormat("knowedit", (*REQUIRED_FIELDS, "ground_truth or an object of lists"), read_knowedit, _is_knowedit),
    RecordFormat("native", ("prompt", "target_new"), read_native),
)
CSV = RecordFormat("csv", ("a header with subject", "prompt", "target_new"), read_csv_row)


def _read_unmarked(
    record: Record,
    locality: tuple[LocalityProbe, ...],
    *,
    prompt: str = "prompt",
    new: str = "target_new",
    true: str = "ground_truth",
    rephrase: str = "rephrase_prompt",
) -> EditRequest:
    """Read a record whose prompt holds the subject, from the fields with these names."""
    subject = get_text(record, "subject")
    return EditRequest(
        subject=subject,
        prompt=_mark_subject(record, prompt, subject),
        target_new=get_text(record, new).strip(),
        target_true=_optional_target(record, true),
        rephrase=_plain_texts(record, rephrase),
        locality=locality,
    )


def _mark_subject(record: Record, field: str, subject: str) -> str:
    """Return the prompt in `field` with {} in place of the subject's first mention."""
    prompt = _refuse_placeholder(get_text(record, field), field)
    if not subject.strip():
        return prompt  # EditRequest says what is wrong with such a subject
    # A later mention is as often part of another name ("Is Rome in Rome, Georgia?"), and what follows the first one
    # already depends on the subject. A mention inside a word is taken only where there is no other (scripts without
    # blanks between words).
    mention = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt) or re.search(re.escape(subject), prompt)
    if mention is None:
        raise FieldError(f"subject {subject!r} is not in {field} {prompt!r}, which must hold it letter for letter.")
    return prompt[: mention.start()] + PLACEHOLDER + prompt[mention.end() :]


def _refuse_placeholder(text: str, field: str) -> str:
    """Return a text of a format without placeholders; {} in it would later be replaced by the subject."""
    if PLACEHOLDER in text:
        raise FieldError(
            f"{field} {text!r} holds {PLACEHOLDER}, which would be taken for the subject's place; "
            "write the text without it."
        )
    return text


def _optional_text(record: Record, field: str) -> str | None:
    return None if record.get(field) is None else get_text(record, field)


def _optional_array(record: Record, field: str) -> list[object]:
    return [] if record.get(field) is None else get_array(record, field)


def _optional_objects(record: Record, field: str) -> list[Record]:
    return check_objects(_optional_array(record, field), field)


def _optional_texts(record: Record, field: str) -> tuple[str, ...]:
    return check_texts(_optional_array(record, field), field)


def _plain_texts(record: Record, field: str) -> tuple[str, ...]:
    """Return the texts in `field`, an array or one text, of a format without placeholders."""
    is_one = isinstance(record.get(field), str)
    texts = (get_text(record, field),) if is_one else _optional_texts(record, field)
    return tuple(_refuse_placeholder(text, field) for text in texts)


def _optional_target(record: Record, field: str) -> str | None:
    first = _first_item(record.get(field))
    return None if first is None else check_text(first, field).strip()


def _first_item(value: object) -> object:
    """Return the first item of nested arrays, left to right; None if they are all empty."""
    if not isinstance(value, list):
        return value
    return next((first for first in map(_first_item, value) if first is not None), None)


def _paired_probes(record: Record, prompt_field: str, target_field: str) -> tuple[LocalityProbe, ...]:
    """Return the one probe whose prompt and answer are in two fields; none if both are missing."""
    if record.get(prompt_field) is None and record.get(target_field) is None:
        return ()
    target = check_text(_first_item(record.get(target_field)), target_field).strip()
    return (LocalityProbe(get_text(record, prompt_field), target),)


def _read_native_probe(probe: Record) -> LocalityProbe:
    _refuse_unknown(probe, PROBE_FIELDS, "a locality probe")
    return LocalityProbe(*_prompt_and_target(probe, "locality"))


def _read_native_question(probe: Record) -> PortabilityProbe:
    _refuse_unknown(probe, PORTABILITY_FIELDS, "a portability probe")
    prompt, target = _prompt_and_target(probe, "portability")
    return PortabilityProbe(prompt, target, tuple(alias.strip() for alias in _optional_texts(probe, "aliases")))


def _prompt_and_target(probe: Record, metric: str) -> tuple[str, str]:
    prompt = get_text(probe, "prompt", f"{metric} prompt")
    if PLACEHOLDER in prompt:
        raise FieldError(f"{metric} prompt {prompt!r} holds {PLACEHOLDER}, which is not filled in here; write it out.")
    return prompt, get_text(probe, "target", f"{metric} target").strip()


def _read_zsre_question(record: Record) -> tuple[PortabilityProbe, ...]:
    if record.get("portability") is None:
        return ()
    question = get_object(record, "portability")
    prompt, target = (get_text(question, f"New {part}", f"portability 'New {part}'") for part in ("Question", "Answer"))
    return (PortabilityProbe(prompt, target.strip()),)


def _grouped(record: Record, field: str) -> list[Record]:
    """Return the probes of all lists of the object in `field`."""
    groups = {} if record.get(field) is None else get_object(record, field)
    return [probe for group in groups for probe in _optional_objects(groups, group)]


def _knowedit_probe(probe: Record, metric: str) -> tuple[str, str]:
    prompt = get_text(probe, "prompt", f"{metric} prompt")
    target = _optional_target(probe, "ground_truth")
    if target is None:
        raise FieldError(f"the {metric} prompt {prompt!r} has no ground_truth; give its answer or leave it out.")
    return prompt, target


def _read_knowedit_question(probe: Record) -> PortabilityProbe:
    prompt, target = _knowedit_probe(probe, "portability")
    names = [check_text(name, "ground_truth").strip() for name in _flatten(probe["ground_truth"])]
    return PortabilityProbe(prompt, target, tuple(dict.fromkeys(name for name in names if name not in ("", target))))


def _flatten(value: object) -> list[object]:
    """Return the items of nested arrays, left to right; a value that is no array as its only item."""
    return [item for part in value for item in _flatten(part)] if isinstance(value, list) else [value]


def _refuse_unknown(record: Record, known: tuple[str, ...], owner: str) -> None:
    unknown = [field for field in record if field not in known]
    if unknown:
        raise FieldError(f"{unknown[0]!r} is not a field of {owner}; known: {', '.join(known)}.")
