"""The Python code that makes the edits of a session again."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch

import workbench
from workbench.explorer.edits import Edit
from workbench.lm import LanguageModel
from workbench.versions import library_versions

_WIDTH = 110


def script_of(lm: LanguageModel, edits: Sequence[Edit], *, file: str = "update.safetensors") -> str:
    """Python code that makes the same edits, with the same regularizers, and saves their sum.

    Hyperparameters with their default values are left out; context templates are written down, so nothing is drawn.

    Parameters
    ----------
    lm : LanguageModel
        The model edited.
    edits : sequence of Edit
        In order.
    file : str
        Where the code saves the update.

    Returns
    -------
    str
    """
    versions = ", ".join(
        f"{name} {number}" for name, number in library_versions("workbench", "torch", "transformers").items()
    )
    count = f"{len(edits)} edit{'s' * (len(edits) != 1)}"
    templates = {edit.editor.contexts: "" for edit in edits if getattr(edit.editor, "contexts", None)}
    names = {contexts: f"contexts_{i}" if i > 1 else "contexts" for i, contexts in enumerate(templates, start=1)}
    dtype = next(lm.model.parameters()).dtype
    load = f"wb.load({lm.name!r})" if dtype == torch.float32 else f"wb.load({lm.name!r}, dtype={str(dtype)[6:]!r})"
    lines = [f"# {count} of {lm.name}, made with {versions}", *_imports(edits), "", f"lm = {load}"]
    lines += [f"{name} = {_text(contexts, {})}" for contexts, name in names.items()]
    lines += ["total = wb.WeightUpdate({})"]
    for number, edit in enumerate(edits, start=1):
        lines += ["", f"# edit {number}: {_comment(edit)}", *_edit_lines(edit, names)]
    lines += ["", f"total.save({file!r})"]
    return "\n".join(lines) + "\n"


def _comment(edit: Edit) -> str:
    """One line, whatever the texts hold."""
    request = edit.request
    return f"{request.filled_prompt!r} -> {request.target_new!r}, {edit.editor.label}, {edit.regularizer.label}"


def _edit_lines(edit: Edit, names: dict[tuple, str]) -> list[str]:
    return [
        f"request = {_text(edit.request, {})}",
        f"editor = {_text(edit.editor, names)}",
        f"regularize = {_text(edit.regularizer, {})}",
        "with total.applied(lm):  # edit and regularize on the model as the earlier edits left it",
        "    update = regularize(editor.compute_update(lm, [request]), lm)",
        "total = total + update",
    ]


def _imports(edits: Sequence[Edit]) -> list[str]:
    used = {kind for edit in edits for part in (edit.request, edit.editor, edit.regularizer) for kind in _kinds(part)}
    strange = {kind for kind in used if not _is_public(kind)}
    lines = [f"from {kind.__module__} import {kind.__name__}" for kind in sorted(strange, key=lambda k: k.__name__)]
    return [*lines, "import workbench as wb"]


def _is_public(kind: type) -> bool:
    return kind.__name__ in workbench.__all__ and getattr(workbench, kind.__name__) is kind


def _kinds(value: Any) -> Iterator[type]:
    """The dataclasses that a value is made of."""
    if dataclasses.is_dataclass(value):
        yield type(value)
        for field in dataclasses.fields(value):
            yield from _kinds(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _kinds(part)


def _text(value: Any, names: dict[tuple, str], indent: int = 0) -> str:
    """Source code of dataclasses, tuples and literals, wrapped where a line would be long."""
    if isinstance(value, tuple) and value in names:
        return names[value]
    if dataclasses.is_dataclass(value):
        name = type(value).__name__
        opening, closing = (f"wb.{name}(" if _is_public(type(value)) else f"{name}("), ")"
        shown = [f for f in dataclasses.fields(value) if f.default != getattr(value, f.name)]
        parts = [f"{f.name}={_text(getattr(value, f.name), names, indent + 4)}" for f in shown]
    elif isinstance(value, tuple):
        opening, closing = "(", ")"
        parts = [_text(part, names, indent + 4) for part in value]
    else:
        return repr(value)
    lone = "," if isinstance(value, tuple) and len(parts) == 1 else ""
    line = f"{opening}{', '.join(parts)}{lone}{closing}"
    if indent + len(line) <= _WIDTH and "\n" not in line:
        return line
    pad = " " * (indent + 4)
    return f"{opening}\n" + "".join(f"{pad}{part},\n" for part in parts) + " " * indent + closing
