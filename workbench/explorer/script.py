"""Python code that repeats the edits of a session."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

import workbench
from workbench.explorer.edits import Edit
from workbench.lm import LanguageModel
from workbench.printable import printable
from workbench.regularize import Regularizer
from workbench.versions import library_versions

_WIDTH = 110

Contexts = tuple[str, ...]


def script_of(
    lm: LanguageModel,
    edits: Sequence[Edit],
    accumulated: Regularizer | None = None,
    *,
    file: str = "update.safetensors",
) -> str:
    """Return Python code that makes the same edits, with the same regularizers, and saves their sum.

    Hyperparameters with their default values are left out. Context templates are written out, so that nothing is
    sampled.

    Parameters
    ----------
    lm : LanguageModel
        The edited model.
    edits : sequence of Edit
        The edits, first to last.
    accumulated : Regularizer, optional
        The regularizer of their sum.
    file : str
        File in which the code saves the update.

    Returns
    -------
    str
    """
    versions = ", ".join(
        f"{name} {number}" for name, number in library_versions("workbench", "torch", "transformers").items()
    )
    count = f"{len(edits)} edit{'s' * (len(edits) != 1)}"
    sampled = [contexts for edit in edits if (contexts := getattr(edit.editor, "contexts", None))]
    names = {contexts: f"contexts_{i}" if i > 1 else "contexts" for i, contexts in enumerate(dict.fromkeys(sampled), 1)}
    dtype = next(lm.model.parameters()).dtype
    load = f"wb.load({lm.name!r})" if dtype == torch.float32 else f"wb.load({lm.name!r}, dtype={str(dtype)[6:]!r})"
    lines = [_comment(f"{count} of {lm.name}, made with {versions}"), *_imports(edits, accumulated), "", f"lm = {load}"]
    lines += [f"{name} = {_source(contexts, {})}" for contexts, name in names.items()]
    of_sum = "" if accumulated is None else f", accumulated={_source(accumulated, {})}"
    lines += [f"sequence = wb.EditSequence(lm{of_sum})  # each edit is computed on the model with all earlier edits"]
    for number, edit in enumerate(edits, start=1):
        lines += ["", _comment(f"edit {number}: {_summary(edit)}"), *_edit_lines(edit, names)]
    lines += ["", f"sequence.total.save({file!r})"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Return a comment of one line, whatever the text holds: a line break in it would make code of the rest."""
    return f"# {printable(text)}"


def _summary(edit: Edit) -> str:
    request = edit.request
    return f"{request.filled_prompt!r} -> {request.target_new!r}, {edit.editor.label}, {edit.regularizer.label}"


def _edit_lines(edit: Edit, names: Mapping[Contexts, str]) -> list[str]:
    return [
        f"request = {_source(edit.request, {})}",
        f"editor = {_source(edit.editor, names)}",
        f"regularizer = {_source(edit.regularizer, {})}",
        "sequence.edit([request], editor, regularizer)",
    ]


def _imports(edits: Sequence[Edit], accumulated: Regularizer | None) -> list[str]:
    parts = [part for edit in edits for part in (edit.request, edit.editor, edit.regularizer)]
    used = {cls for part in [*parts, accumulated] for cls in _classes_in(part)}
    others = {cls for cls in used if not _is_public(cls)}
    lines = [f"from {cls.__module__} import {cls.__name__}" for cls in sorted(others, key=lambda c: c.__name__)]
    return [*lines, "import workbench as wb"]


def _is_public(cls: type) -> bool:
    return cls.__name__ in workbench.__all__ and getattr(workbench, cls.__name__) is cls


def _classes_in(value: Any) -> Iterator[type]:
    """Yield the dataclasses that a value consists of."""
    if dataclasses.is_dataclass(value):
        yield type(value)
        for field in dataclasses.fields(value):
            yield from _classes_in(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _classes_in(part)


def _source(value: Any, names: Mapping[Contexts, str], indent: int = 0) -> str:
    """Return source code of dataclasses, tuples and literals, wrapped where a line would be long."""
    if isinstance(value, tuple) and value in names:
        return names[value]
    if dataclasses.is_dataclass(value):
        name = type(value).__name__
        opening, closing = (f"wb.{name}(" if _is_public(type(value)) else f"{name}("), ")"
        changed = [f for f in dataclasses.fields(value) if f.default != getattr(value, f.name)]
        parts = [f"{f.name}={_source(getattr(value, f.name), names, indent + 4)}" for f in changed]
    elif isinstance(value, tuple):
        opening, closing = "(", ")"
        parts = [_source(part, names, indent + 4) for part in value]
    else:
        return repr(value)
    lone = "," if isinstance(value, tuple) and len(parts) == 1 else ""
    line = f"{opening}{', '.join(parts)}{lone}{closing}"
    if indent + len(line) <= _WIDTH and "\n" not in line:
        return line
    pad = " " * (indent + 4)
    return f"{opening}\n" + "".join(f"{pad}{part},\n" for part in parts) + " " * indent + closing
