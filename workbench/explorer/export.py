"""Exports of a session: update, adapter, figures, tables, code and a page, in one new folder."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import pandas as pd

from workbench.arguments import checked
from workbench.errors import EditError, UpdateError
from workbench.explorer.edits import Answers, Continuation
from workbench.explorer.exports_root import export_folder
from workbench.explorer.figures import Picture, drawing
from workbench.explorer.page import render_page
from workbench.explorer.script import script_of
from workbench.explorer.session import Session
from workbench.interactive import View
from workbench.plots.files import save_figure, save_table
from workbench.storage.files import write_atomically

UPDATE, ADAPTER, CODE, PAGE = "update.safetensors", "adapter", "session.py", "report.html"


@dataclass(frozen=True)
class Exported:
    """One file or folder of an export.

    Attributes
    ----------
    name : str
        Name in the folder of the export.
    description : str
        What it holds.
    refused : str or None
        Why it was not written; None if it was.
    """

    name: str
    description: str
    refused: str | None = None


@checked
def export(
    session: Session,
    into: str | Path,
    pictures: Sequence[Picture],
    continued: Sequence[Continuation] = (),
    views: Sequence[tuple[str, View]] = (),
) -> tuple[Path, list[Exported]]:
    """Write all results of a session into a new folder.

    Parameters
    ----------
    session : Session
        A session with at least one edit.
    into : str or Path
        Folder in which the new folder is created; created itself if it does not exist.
    pictures : sequence of Picture
        The figures to write.
    continued : sequence of Continuation
        Continuations from `Session.continue_prompts`.
    views : sequence of (str, View)
        Views of the page, with their headings.

    Returns
    -------
    folder : Path
        The new folder, named by time and subject.
    written : list of Exported
        What was written, and what could not be: an update that is not of low rank has no adapter.

    Raises
    ------
    EditError
        If there is no edit, or the folder cannot be created or lies outside WORKBENCH_EXPORTS.
    DiskError
        If the disk is full or a file cannot be written for another reason; the new folder is removed again.
    """
    if not session.edits:
        raise EditError("there is no edit to export; make one first.")
    into = export_folder(into)
    answers = [session.predict(edit.request) for edit in session.edits]
    page = render_page(session, answers, pictures, continued, views)
    with _new_folder(into, session) as folder:
        return folder, _fill(folder, session, page, answers, pictures)


def _fill(
    folder: Path, session: Session, page: str, answers: Sequence[Answers], pictures: Sequence[Picture]
) -> list[Exported]:
    """Write everything into the new folder."""
    session.update.save(folder / UPDATE)
    written = [Exported(UPDATE, "the sum of all edits, for WeightUpdate.load and the command workbench apply")]
    written.append(_export_adapter(session, folder))
    for picture in pictures:
        with drawing():
            save_figure(picture.figure, picture.table, folder, picture.name)
        written += [Exported(f"{picture.name}.{ending}", "figure") for ending in ("png", "svg")]
        written.append(Exported(f"{picture.name}.csv", "data of the figure"))
    for name, table in {"weight_change": session.growth(), "answers": answers_table(answers)}.items():
        save_table(table, folder, name)
        written.append(Exported(f"{name}.csv", "table"))
    for name, text, description in (
        (CODE, script_of(session.lm, session.edits, session.accumulated), "code that repeats the edits"),
        (PAGE, page, "page with all results"),
    ):
        write_atomically(folder / name, partial(_write_text, text=text))
        written.append(Exported(name, description))
    return written


def answers_table(answers: Sequence[Answers]) -> pd.DataFrame:
    """Return the probabilities of the answers to every prompt of every edit, unedited and with all edits.

    Parameters
    ----------
    answers : sequence of Answers
        `Session.predict` of each edit's fact.

    Returns
    -------
    DataFrame
        Columns edit (from 1), metric, prompt, answer, unedited, edited.
    """
    rows = [
        (number, answered.probe.metric, answered.probe.prompt, answer, before, answered.after.probabilities[answer])
        for number, (prompts, _) in enumerate(answers, start=1)
        for answered in prompts
        for answer, before in answered.before.probabilities.items()
    ]
    return pd.DataFrame(rows, columns=["edit", "metric", "prompt", "answer", "unedited", "edited"])


def _write_text(path: str | Path, *, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


def _export_adapter(session: Session, folder: Path) -> Exported:
    try:
        session.update.to_peft(folder / ADAPTER)
    except UpdateError as err:
        return Exported(ADAPTER, "LoRA adapter for PEFT", refused=str(err))
    return Exported(ADAPTER, "LoRA adapter for PEFT")


@contextmanager
def _new_folder(into: Path, session: Session) -> Iterator[Path]:
    """Make the folder of the export; remove it again if it cannot be filled, as on a full disk."""
    folder = _make_folder(into, session)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _make_folder(into: Path, session: Session) -> Path:
    subject = re.sub(r"[^a-z0-9]+", "-", session.edits[-1].request.name.lower()).strip("-")[:40] or "edit"
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{subject}"
    try:
        into.mkdir(parents=True, exist_ok=True)
        for ending in ("", *(f"-{i}" for i in range(2, 100))):
            folder = into / f"{name}{ending}"
            if not folder.exists():
                folder.mkdir()
                return folder.resolve()
    except OSError as err:
        raise EditError(f"no folder can be made in {into} ({err.strerror or err}); choose another.") from err
    raise EditError(f"{into} holds a hundred exports of this second; choose another folder.")
