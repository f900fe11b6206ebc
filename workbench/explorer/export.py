"""What a session leaves on disk: update, adapter, figures, tables, code and a page, in one new folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from workbench.errors import EditError, UpdateError
from workbench.explorer.edits import Continued
from workbench.explorer.figures import Picture, drawing
from workbench.explorer.page import Look, page_of
from workbench.explorer.script import script_of
from workbench.explorer.session import Session
from workbench.plots.files import save_figure, save_table
from workbench.storage.files import write_atomically

UPDATE, ADAPTER, CODE, PAGE = "update.safetensors", "adapter", "session.py", "report.html"


@dataclass(frozen=True)
class Exported:
    """One thing that was to be written.

    Attributes
    ----------
    name : str
        File or folder in the export's folder.
    what : str
        What it is.
    refused : str or None
        Why it is not there.
    """

    name: str
    what: str
    refused: str | None = None


def export(
    session: Session, into: str | Path, pictures: Sequence[Picture], continued: Sequence[Continued] = ()
) -> tuple[Path, list[Exported]]:
    """Write all there is of a session into a new folder.

    Parameters
    ----------
    session : Session
        With at least one edit.
    into : str or Path
        Folder in which the new one is made; made itself if it is not there.
    pictures : sequence of Picture
        The figures.
    continued : sequence of Continued
        From `Session.continue_prompts`.

    Returns
    -------
    folder : Path
        The new one, named by time and subject.
    written : list of Exported
        What is in it, and what could not be made: an update that is not of low rank has no adapter.

    Raises
    ------
    EditError
        If there is no edit, or the folder cannot be made.
    """
    if not session.edits:
        raise EditError("there is no edit to export; make one first.")
    looks = [session.look(edit.request) for edit in session.edits]
    page = page_of(session, looks, pictures, continued)
    folder = _new_folder(Path(into).expanduser(), session)
    session.update.save(folder / UPDATE)
    written = [Exported(UPDATE, "the sum of all edits, for WeightUpdate.load and the command workbench apply")]
    written.append(_adapter(session, folder))
    for picture in pictures:
        with drawing():
            save_figure(picture.figure, picture.table, folder, picture.name)
        written += [Exported(f"{picture.name}.{ending}", "figure") for ending in ("png", "svg")]
        written.append(Exported(f"{picture.name}.csv", "what is drawn in it"))
    for name, table in {"weight_change": session.growth(), "answers": answers_frame(looks)}.items():
        save_table(table, folder, name)
        written.append(Exported(f"{name}.csv", "table"))
    for name, text, what in (
        (CODE, script_of(session.lm, session.edits), "makes the edits again"),
        (PAGE, page, "page"),
    ):
        write_atomically(folder / name, lambda path, text=text: Path(path).write_text(text, encoding="utf-8"))
        written.append(Exported(name, what))
    return folder, written


def answers_frame(looks: Sequence[Look]) -> pd.DataFrame:
    """Chances of the answers to every prompt of every edit, unedited and with all edits, in rows.

    Parameters
    ----------
    looks : sequence
        From `Session.look`, one an edit.

    Returns
    -------
    DataFrame
        Columns edit (from 1), metric, prompt, answer, unedited, edited.
    """
    rows = [
        (number, answered.probe.metric, answered.probe.prompt, answer, before, answered.after.chances[answer])
        for number, (shown, _) in enumerate(looks, start=1)
        for answered in shown
        for answer, before in answered.before.chances.items()
    ]
    return pd.DataFrame(rows, columns=["edit", "metric", "prompt", "answer", "unedited", "edited"])


def _adapter(session: Session, folder: Path) -> Exported:
    try:
        session.update.to_peft(folder / ADAPTER)
    except UpdateError as err:
        return Exported(ADAPTER, "LoRA adapter for PEFT", refused=str(err))
    return Exported(ADAPTER, "LoRA adapter for PEFT")


def _new_folder(into: Path, session: Session) -> Path:
    subject = re.sub(r"[^a-z0-9]+", "-", session.edits[-1].request.subject.lower()).strip("-")[:40] or "edit"
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
