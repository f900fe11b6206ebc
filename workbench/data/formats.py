"""One reader per fact format: a record of a file, as JSON gives it, becomes an EditRequest or a RequestError.

The other data sets write the subject out in their prompts and give their fields other names; both are translated
here, and nowhere else. Targets lose surrounding blanks (the encoding of prompt + target puts the one that a model
needs); prompts stay as the file has them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from workbench.errors import RequestError
from workbench.request import PLACEHOLDER, EditRequest, LocalityProbe

NATIVE_FIELDS = ("relation", "subject", "prompt", "target_true", "target_new", "rephrase", "locality")
PROBE_FIELDS = ("prompt", "target")
REQUIRED_FIELDS = ("subject", "prompt", "target_new")
CSV_COLUMNS = (*REQUIRED_FIELDS, "target_true", "relation", "rephrase", "locality_prompt", "locality_target")
CSV_COLUMN = re.compile("|".join(CSV_COLUMNS) + "|(rephrase|locality_prompt|locality_target)_[0-9]+")


@dataclass(frozen=True)
class FactFormat:
    """A format of fact files and how its records are read."""

    name: str  # what `FactSet.format` says
    fields: str  # the fields it is known by, for messages
    read: Callable[[dict], EditRequest]


def read_native(record: dict) -> EditRequest:
    """Read the workbench's own format.

    ``{"relation", "subject", "prompt", "target_true", "target_new", "rephrase": [...], "locality": [{"prompt",
    "target"}, ...]}``; relation, target_true, rephrase and locality may be left out. The prompt holds ``{}`` where
    the subject stands, a rephrasing may.

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
        subject=_text(record, "subject"),
        prompt=_text(record, "prompt"),
        target_new=_text(record, "target_new").strip(),
        target_true=_optional_target(record, "target_true"),
        rephrase=_texts(record, "rephrase"),
        locality=tuple(_native_probe(probe) for probe in _objects(record, "locality")),
        relation=None if record.get("relation") is None else _text(record, "relation"),
    )


def read_zsre(record: dict) -> EditRequest:
    """Read a record of ZsRE as MEND gives it (`zsre_mend_eval.json`, `zsre_mend_train.json`).

    Levy et al. 2017 (arXiv 1706.04115), split and rephrased by De Cao et al. 2021 (arXiv 2104.08164) and Mitchell et
    al. 2022 (arXiv 2110.11309). `alt` is the answer to write. `answers` are the true ones, of which the first counts;
    `pred` is what another model once answered and is not read, nor are `cond` and `portability`. `loc` keeps its
    opening "nq question: ".

    Parameters
    ----------
    record : dict
        One JSON object with subject, src, alt and, where known, answers, rephrase, loc and loc_ans.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If a field is missing or not text, the subject is not in `src`, or the fact is not an edit.
    """
    subject = _text(record, "subject")
    return EditRequest(
        subject=subject,
        prompt=_marked(record, "src", subject),
        target_new=_text(record, "alt").strip(),
        target_true=_optional_target(record, "answers"),
        rephrase=_plain_texts(record, "rephrase"),
        locality=_paired_probes(record, "loc", "loc_ans"),
    )


def read_counterfact(record: dict) -> EditRequest:
    """Read a record of CounterFact as its authors give it.

    Meng et al. 2022 (arXiv 2202.05262). A neighborhood prompt asks for another subject with the same true object, so
    every probe's target is target_true. attribute_prompts and generation_prompts are not read.

    Parameters
    ----------
    record : dict
        One JSON object with requested_rewrite and, where known, paraphrase_prompts and neighborhood_prompts.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If a field is missing or not text, or the fact is not an edit.
    """
    rewrite = _object(record, "requested_rewrite")
    target_true = _text(_object(rewrite, "target_true"), "str", "target_true.str").strip()
    neighbors = _texts(record, "neighborhood_prompts")
    return EditRequest(
        subject=_text(rewrite, "subject"),
        prompt=_text(rewrite, "prompt"),
        target_new=_text(_object(rewrite, "target_new"), "str", "target_new.str").strip(),
        target_true=target_true,
        rephrase=_plain_texts(record, "paraphrase_prompts"),
        locality=tuple(LocalityProbe(prompt, target_true) for prompt in neighbors),
        relation=None if rewrite.get("relation_id") is None else _text(rewrite, "relation_id"),
    )


def read_counterfact_edit(record: dict) -> EditRequest:
    """Read a record of CounterFact in EasyEdit's form (`counterfact-edit.json`), the subject written into the prompt.

    Meng et al. 2022 (arXiv 2202.05262), rearranged by Yao et al. 2023 (arXiv 2305.13172). Its rephrasings come from
    CounterFact's generation prompts, so they ask for something near the fact rather than the fact.

    Parameters
    ----------
    record : dict
        One JSON object with subject, prompt, target_new and, where known, ground_truth, rephrase_prompt,
        locality_prompt and locality_ground_truth.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If a field is missing or not text, the subject is not in the prompt, or the fact is not an edit.
    """
    return _filled_in_request(record, _paired_probes(record, "locality_prompt", "locality_ground_truth"))


def read_knowedit(record: dict) -> EditRequest:
    """Read a record of KnowEdit (WikiData-recent, WikiData-counterfact, ZsRE).

    Zhang et al. 2024 (arXiv 2401.01286); the WikiData parts rest on Cohen et al. 2024 (arXiv 2307.12976). Where a
    ground truth is a list, or a list of lists of aliases, its first string counts. All lists under `locality`
    are probed, in the file's order; `portability` is not read.

    Parameters
    ----------
    record : dict
        One JSON object with subject, prompt, target_new and, where known, ground_truth, rephrase_prompt and locality.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If a field is missing or not text, the subject is not in the prompt, a probe has no answer, or the fact is
        not an edit.
    """
    groups = {} if record.get("locality") is None else _object(record, "locality")
    probes = tuple(_knowedit_probe(probe) for group in groups for probe in _objects(groups, group))
    return _filled_in_request(record, probes)


def read_csv_row(row: dict) -> EditRequest:
    """Read a row of a CSV in the workbench's own columns.

    Parameters
    ----------
    row : dict
        Column name to cell: those of `CSV_COLUMNS`, the last three also as rephrase_1, locality_prompt_1 and so on.
        Under "" stands what the row has beyond the header. An empty cell is a missing value.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If the row is longer than the header, a required cell is empty, or the fact is not an edit.
    """
    if row[""]:
        raise RequestError(f"{row['']!r} stands beyond the header's last column; quote cells that hold commas.")
    cells = {column: cell for column, cell in row.items() if cell}
    record = {column: cell for column, cell in cells.items() if column in NATIVE_FIELDS}
    record["rephrase"] = [cell for column, cell in cells.items() if column.startswith("rephrase")]
    places = [column for column in cells if column.startswith("locality_")]
    suffixes = dict.fromkeys(re.sub("locality_(prompt|target)", "", column) for column in places)
    record["locality"] = [
        {name: cells.get(f"locality_{name}{suffix}", "") for name in PROBE_FIELDS} for suffix in suffixes
    ]
    return read_native(record)


NATIVE = FactFormat("native", "subject, prompt, target_new", read_native)
ZSRE = FactFormat("zsre", "subject, src, alt", read_zsre)
COUNTERFACT = FactFormat("counterfact", "requested_rewrite", read_counterfact)
COUNTERFACT_EDIT = FactFormat("counterfact-edit", "subject, prompt, target_new, locality_prompt", read_counterfact_edit)
KNOWEDIT = FactFormat("knowedit", "subject, prompt, target_new, portability or ground_truth", read_knowedit)
CSV = FactFormat("csv", "a header with subject, prompt, target_new", read_csv_row)
JSON_FORMATS = (NATIVE, ZSRE, COUNTERFACT, COUNTERFACT_EDIT, KNOWEDIT)


def format_of(record: object) -> FactFormat | None:
    """Tell the format of one record by its fields.

    Parameters
    ----------
    record : object
        What JSON gave for it.

    Returns
    -------
    FactFormat or None
        None where no format fits.
    """
    if not isinstance(record, dict):
        return None
    if "requested_rewrite" in record:
        return COUNTERFACT
    if {"subject", "src", "alt"} <= record.keys():
        return ZSRE
    if not set(REQUIRED_FIELDS) <= record.keys():
        return None
    if "locality_prompt" in record:
        return COUNTERFACT_EDIT
    if "portability" in record or "ground_truth" in record or isinstance(record.get("locality"), dict):
        return KNOWEDIT
    return NATIVE


def kind_of(value: object) -> str:
    """Name the kind of a JSON value, for messages.

    Parameters
    ----------
    value : object
        What JSON gave.

    Returns
    -------
    str
        Such as "an array".
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    kinds = {str: "text", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def _filled_in_request(record: dict, locality: tuple[LocalityProbe, ...]) -> EditRequest:
    subject = _text(record, "subject")
    return EditRequest(
        subject=subject,
        prompt=_marked(record, "prompt", subject),
        target_new=_text(record, "target_new").strip(),
        target_true=_optional_target(record, "ground_truth"),
        rephrase=_plain_texts(record, "rephrase_prompt"),
        locality=locality,
    )


def _marked(record: dict, field: str, subject: str) -> str:
    """Return the prompt in `field` with {} in place of the subject's first mention."""
    prompt = _plain(_text(record, field), field)
    if not subject.strip():
        return prompt  # EditRequest says what is wrong with such a subject
    # A later mention is as often part of another name ("Is Rome in Rome, Georgia?"), and what follows the first one
    # already depends on the subject; the same goes for a mention inside a word, taken only where there is no other
    # (scripts without blanks between words).
    found = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt) or re.search(re.escape(subject), prompt)
    if found is None:
        raise RequestError(f"subject {subject!r} is not in {field} {prompt!r}, which must hold it letter for letter.")
    return prompt[: found.start()] + PLACEHOLDER + prompt[found.end() :]


def _plain(text: str, field: str) -> str:
    """Return a text of a format that knows no placeholder; {} in it would be filled with the subject later."""
    if PLACEHOLDER in text:
        raise RequestError(
            f"{field} {text!r} holds {PLACEHOLDER}, which would be taken for the subject's place; "
            "write the text without it."
        )
    return text


def _text(record: dict, field: str, shown: str | None = None) -> str:
    value = record.get(field)
    shown = shown or field
    if not isinstance(value, str):
        raise RequestError(f"{shown} must be text; it is {kind_of(value) if field in record else 'missing'}.")
    if re.search("[\ud800-\udfff]", value):
        raise RequestError(f"{shown} {value!r} holds half a surrogate pair; write the whole character.")
    return value


def _texts(record: dict, field: str) -> tuple[str, ...]:
    """Return the texts in `field`, an array of texts; none where it is missing or null."""
    return tuple(_text({field: value}, field, f"{field}[{i}]") for i, value in enumerate(_array(record, field)))


def _plain_texts(record: dict, field: str) -> tuple[str, ...]:
    """Like `_texts`, for formats that write one text without an array and know no placeholder."""
    if isinstance(record.get(field), str):
        return (_plain(_text(record, field), field),)
    return tuple(_plain(text, field) for text in _texts(record, field))


def _array(record: dict, field: str) -> list:
    value = record.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{field} must be an array; it is {kind_of(value)}.")
    return value


def _object(record: dict, field: str) -> dict:
    value = record.get(field)
    if not isinstance(value, dict):
        raise RequestError(f"{field} must be an object; it is {kind_of(value) if field in record else 'missing'}.")
    return value


def _objects(record: dict, field: str) -> list[dict]:
    items = {f"{field}[{i}]": value for i, value in enumerate(_array(record, field))}
    return [_object(items, shown) for shown in items]


def _optional_target(record: dict, field: str) -> str | None:
    first = _first(record.get(field))
    return None if first is None else _text({field: first}, field).strip()


def _first(value: object) -> object:
    """Return the first thing in an array of arrays, left to right; None where they are all empty."""
    if not isinstance(value, list):
        return value
    return next((first for first in map(_first, value) if first is not None), None)


def _paired_probes(record: dict, prompt_field: str, target_field: str) -> tuple[LocalityProbe, ...]:
    """Return the one probe whose prompt and answer lie in two fields; none where there is neither."""
    if record.get(prompt_field) is None and record.get(target_field) is None:
        return ()
    target = _text({target_field: _first(record.get(target_field))}, target_field).strip()
    return (LocalityProbe(_text(record, prompt_field), target),)


def _native_probe(probe: dict) -> LocalityProbe:
    _refuse_unknown(probe, PROBE_FIELDS, "a locality probe")
    prompt = _text(probe, "prompt", "locality prompt")
    if PLACEHOLDER in prompt:
        raise RequestError(
            f"locality prompt {prompt!r} holds {PLACEHOLDER}, which is not filled in here; write it out."
        )
    return LocalityProbe(prompt, _text(probe, "target", "locality target").strip())


def _knowedit_probe(probe: dict) -> LocalityProbe:
    prompt = _text(probe, "prompt", "locality prompt")
    first = _first(probe.get("ground_truth"))
    if first is None:
        raise RequestError(f"the locality prompt {prompt!r} has no ground_truth; give its answer or leave it out.")
    return LocalityProbe(prompt, _text({"ground_truth": first}, "ground_truth").strip())


def _refuse_unknown(record: dict, known: tuple[str, ...], what: str) -> None:
    unknown = [field for field in record if field not in known]
    if unknown:
        raise RequestError(f"{unknown[0]!r} is not a field of {what}; known: {', '.join(known)}.")
