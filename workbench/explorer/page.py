"""One page about a session, which opens from disk and needs nothing else: text escaped, figures inside."""

import platform
from collections.abc import Sequence
from datetime import date

from workbench.explorer.edits import Answers, Continuation
from workbench.explorer.figures import Picture
from workbench.explorer.markup import (
    answers_table,
    code_block,
    continuations_table,
    edit_line,
    growth_table,
    shown,
)
from workbench.explorer.script import script_of
from workbench.explorer.session import Session
from workbench.explorer.style import style
from workbench.plots.abilities import edits_label
from workbench.versions import library_versions

_LIBRARIES = ("workbench", "torch", "transformers", "numpy")


def page_of(
    session: Session, answers: Sequence[Answers], pictures: Sequence[Picture], continued: Sequence[Continuation]
) -> str:
    """A whole HTML page.

    Parameters
    ----------
    session : Session
        With at least one edit.
    answers : sequence
        From `Session.look`, one an edit.
    pictures : sequence of Picture
        Of the last edit, and the abilities if they were checked.
    continued : sequence of Continued
        From `Session.continue_prompts`; may be empty.

    Returns
    -------
    str
    """
    title = f"{edits_label(len(session.edits))} of {shown(session.lm.name)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style()}</style></head><body><main class='wb-page'>"
        f"<h1>{title}</h1>{''.join(_sections(session, answers, pictures, continued))}</main></body></html>\n"
    )


def _sections(
    session: Session, answers: Sequence[Answers], pictures: Sequence[Picture], continued: Sequence[Continuation]
) -> list[str]:
    _, history = answers[-1]
    pairs = enumerate(zip(session.edits, history, strict=True), start=1)
    parts = ["<h2>Edits</h2>", *(edit_line(number, edit, now) for number, (edit, now) in pairs)]
    for number, (prompts, _) in enumerate(answers, start=1):
        parts += [f"<h2>Answers to edit {number}</h2>", answers_table(prompts, len(session.edits))]
    if continued:
        parts += ["<h2>Continuations</h2>", continuations_table(continued, edited=True)]
    parts += ["<h2>Weights</h2>", *(picture.html() for picture in pictures if picture.name != "abilities")]
    parts.append(growth_table(session.growth(), session.thresholds))
    parts += [f"<h2>Abilities</h2>{picture.html()}" for picture in pictures if picture.name == "abilities"]
    parts += ["<h2>Code</h2>", code_block(script_of(session.lm, session.edits))]
    return [*parts, "<h2>Provenance</h2>", _provenance(session)]


def _provenance(session: Session) -> str:
    lines = {
        "model": f"{session.lm.name}, fingerprint {session.lm.fingerprint}",
        "versions": ", ".join(f"{name} {number}" for name, number in library_versions(*_LIBRARIES).items()),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{shown(value)}</dd>" for name, value in lines.items()) + "</dl>"
