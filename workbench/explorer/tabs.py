"""The tabs under the answers: history, continuations, abilities, export. They show, and compute nothing."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.widgets import WIDE, button, classed, filled_lines, row, small

if TYPE_CHECKING:
    import pandas as pd

    from workbench.evaluation.predictions import Answered
    from workbench.explorer.edits import Continued, Edit
    from workbench.explorer.export import Exported
    from workbench.explorer.figures import Picture

_DOWNLOAD_AT_MOST = 1_500_000  # bytes of a file that the page itself offers


class HistoryTab(widgets.VBox):
    """The edits, each with its undo, and the table that grows with them.

    Parameters
    ----------
    undo : callable
        Takes the number of an edit.
    """

    def __init__(self, undo: Callable[[int], None]) -> None:
        self._undo = undo
        self._rows, self._growth = widgets.VBox(), widgets.HTML()
        super().__init__([self._rows, self._growth])
        self.clear()

    def clear(self) -> None:
        """Show no edits."""
        self._rows.children, self._growth.value = [small("No edits yet.")], ""

    def show(
        self, edits: "Sequence[Edit]", now: "Sequence[Answered]", growth: "pd.DataFrame", thresholds: Sequence[float]
    ) -> None:
        """Show `edits`, what the model makes of each one's prompt `now`, and the table `growth`."""
        from workbench.explorer.markup import edit_line, growth_table

        self._rows.children = [
            classed(widgets.Box([widgets.HTML(edit_line(i, *pair)), self._button(i, len(edits))]), "wb-history-row")
            for i, pair in enumerate(zip(edits, now, strict=True), start=1)
        ]
        self._growth.value = growth_table(growth, thresholds)

    def _button(self, number: int, count: int) -> widgets.Button:
        last = number == count
        return button(
            "Undo" if last else f"Undo {number} to {count}",
            lambda: self._undo(number),
            tooltip="Back to before this edit" + ("" if last else "; the later ones were computed on top of it"),
            layout={"width": "110px"},
        )


class ContinuationsTab(widgets.VBox):
    """How prompts of the user's own go on.

    Parameters
    ----------
    go_on : callable
        Called when they are to be continued.
    """

    def __init__(self, go_on: Callable[[], None]) -> None:
        self._prompts = widgets.Textarea(placeholder="Prompts to continue, one a line", rows=3, layout=WIDE)
        self._n_tokens = widgets.BoundedIntText(
            value=20, min=1, max=400, description="Tokens", layout=widgets.Layout(width="140px")
        )
        self.button = button("Continue", go_on, disabled=True)
        self._table = widgets.HTML()
        super().__init__([self._prompts, row(self._n_tokens, self.button), self._table])

    def asked(self) -> tuple[list[str], int]:
        """The prompts, and the number of tokens to write."""
        return filled_lines(self._prompts.value), self._n_tokens.value

    def suggest(self, prompts: Sequence[str]) -> None:
        """Put prompts into the field if it is empty."""
        if not self._prompts.value.strip():
            self._prompts.value = "\n".join(prompts)

    def show(self, rows: "Sequence[Continued]", edited: bool) -> None:
        """Show `rows`, unedited alone unless the model is `edited`."""
        from workbench.explorer.markup import continuations_table

        self._table.value = continuations_table(rows, edited)


class AbilitiesTab(widgets.VBox):
    """Scores on the eight tasks.

    Parameters
    ----------
    check : callable
        Called when they are wanted.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self.limit = widgets.BoundedIntText(
            value=10,
            min=1,
            max=5000,
            description="Examples of each task",
            layout=widgets.Layout(width="250px"),
            style={"description_width": "160px"},
        )
        self.button = button("Check abilities", check, disabled=True)
        self._figure = small("Scores the eight tasks with the unedited and the edited model.")
        super().__init__([row(self.limit, self.button), self._figure])

    def show(self, picture: "Picture") -> None:
        """Show `picture`, of the model as it is."""
        self._figure.value = picture.html()
        self._figure.remove_class("wb-stale")

    def fade(self) -> None:
        """Show that the scores are of a model that has been edited since."""
        self._figure.add_class("wb-stale")


class ExportTab(widgets.VBox):
    """What is written to disk.

    Parameters
    ----------
    folder : Path
        Suggested.
    export : callable
        Called when it is to be written.
    """

    def __init__(self, folder: Path, export: Callable[[], None]) -> None:
        self.folder = widgets.Text(
            value=str(folder),
            description="Folder",
            layout=widgets.Layout(width="auto", flex="1 1 300px"),
            style={"description_width": "52px"},
        )
        self.button = button("Export", export, disabled=True)
        self._written = small("Writes the update, an adapter for PEFT, figures, tables, the code and a report page.")
        self._code = widgets.HTML()
        super().__init__([row(self.folder, self.button), self._written, self._code])

    def clear(self) -> None:
        """Show no code."""
        self._code.value = ""

    def show_code(self, code: str) -> None:
        """Show `code`, which makes the edits again."""
        from workbench.explorer.markup import code_block

        self._code.value = code_block(code)

    def show_written(self, folder: Path, written: "Sequence[Exported]") -> None:
        """Show what was `written` into `folder`, small files to be taken from the page itself."""
        items = "".join(f"<li>{_item(folder / item.name, item)}</li>" for item in written)
        self._written.value = f"<div>Written to <code>{escape(str(folder))}</code></div><ul>{items}</ul>"


def _item(path: Path, item: "Exported") -> str:
    name = escape(item.name)
    if item.refused is not None:
        return f"{name}: <i>not written; {escape(item.refused)}</i>"
    if path.is_file() and path.stat().st_size <= _DOWNLOAD_AT_MOST:
        data = base64.b64encode(path.read_bytes()).decode()
        name = f'<a download="{name}" href="data:application/octet-stream;base64,{data}">{name}</a>'
    return f"{name}: {escape(item.what)}"
