"""The tabs below the answers: history, continuations, abilities, export. They show results and compute none."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.widgets import WIDE, add_classes, button, filled_lines, row, small
from workbench.html import render

if TYPE_CHECKING:
    from workbench.evaluation.predictions import BeforeAfter
    from workbench.explorer.edits import Continuation
    from workbench.explorer.export import Exported
    from workbench.explorer.figures import Picture
    from workbench.explorer.session import Session

_MAX_DOWNLOAD = 1_500_000  # bytes; larger files are only listed
_WRITTEN = """
<div>Written to <code>{{ folder }}</code></div>
<ul>
{% for item, link in files %}
<li>
{%- if link %}<a download="{{ item.name }}" href="{{ link }}">{{ item.name }}</a>{% else %}{{ item.name }}{% endif -%}
: {% if item.refused %}<i>not written; {{ item.refused }}</i>{% else %}{{ item.description }}{% endif %}</li>
{% endfor %}
</ul>
"""


class HistoryTab(widgets.VBox):
    """The edits, each with a button that undoes it, and a table of how far the weights have moved.

    Parameters
    ----------
    on_undo : callable
        Called with the number of the edit to undo.
    """

    def __init__(self, on_undo: Callable[[int], None]) -> None:
        self._on_undo = on_undo
        self._rows, self._growth = widgets.VBox(), widgets.HTML()
        super().__init__([self._rows, self._growth])
        self.clear()

    def clear(self) -> None:
        """Show no edits."""
        self._rows.children, self._growth.value = [small("No edits yet.")], ""

    def show(self, session: "Session", now: "Sequence[BeforeAfter]") -> None:
        """Show the edits, the answer to the prompt of each edit `now`, and the table of their growth."""
        from workbench.explorer.markup import render_edit, render_growth

        edits = session.edits
        self._rows.children = [
            add_classes(
                widgets.Box([widgets.HTML(render_edit(i, *pair)), self._button(i, len(edits))]), "wb-history-row"
            )
            for i, pair in enumerate(zip(edits, now, strict=True), start=1)
        ]
        self._growth.value = render_growth(session.growth(), session.thresholds, session.accumulated)

    def _button(self, number: int, count: int) -> widgets.Button:
        last = number == count
        return button(
            "Undo" if last else f"Undo {number} to {count}",
            lambda: self._on_undo(number),
            tooltip="Undo this edit" + ("" if last else " and the later ones, which were computed on top of it"),
            layout={"width": "110px"},
        )


class ContinuationsTab(widgets.VBox):
    """Prompts that the user types, and their continuations.

    Parameters
    ----------
    on_continue : callable
        Called when the user asks for continuations.
    """

    def __init__(self, on_continue: Callable[[], None]) -> None:
        self._prompts = widgets.Textarea(placeholder="Prompts to continue, one per line", rows=3, layout=WIDE)
        self._n_tokens = widgets.BoundedIntText(
            value=20, min=1, max=400, description="Tokens", layout=widgets.Layout(width="140px")
        )
        self.button = button("Continue", on_continue, disabled=True)
        self._table = widgets.HTML()
        super().__init__([self._prompts, row(self._n_tokens, self.button), self._table])

    def read_choice(self) -> tuple[list[str], int]:
        """Return the prompts and the number of tokens to generate."""
        return filled_lines(self._prompts.value), self._n_tokens.value

    def suggest(self, prompts: Sequence[str]) -> None:
        """Put prompts into the field if it is empty."""
        if not self._prompts.value.strip():
            self._prompts.value = "\n".join(prompts)

    def show(self, rows: "Sequence[Continuation]", edited: bool) -> None:
        """Show continuations; those of the unedited model only, unless the model is `edited`."""
        from workbench.explorer.markup import render_continuations

        self._table.value = render_continuations(rows, edited)


class AbilitiesTab(widgets.VBox):
    """Scores on the eight tasks.

    Parameters
    ----------
    on_check : callable
        Called when the user asks for the scores.
    """

    def __init__(self, on_check: Callable[[], None]) -> None:
        self.limit = widgets.BoundedIntText(
            value=10,
            min=1,
            max=5000,
            description="Examples of each task",
            layout=widgets.Layout(width="250px"),
            style={"description_width": "160px"},
        )
        self.button = button("Check abilities", on_check, disabled=True)
        self._figure = small("Scores the eight tasks with the unedited and the edited model.")
        super().__init__([row(self.limit, self.button), self._figure])

    def show(self, picture: "Picture") -> None:
        """Show the figure of the current scores."""
        self._figure.value = picture.to_html()
        self._figure.remove_class("wb-stale")

    def fade(self) -> None:
        """Show that the edits have changed since the scores were computed."""
        self._figure.add_class("wb-stale")


class ExportTab(widgets.VBox):
    """The export: its folder, the files that were written, and the code that repeats the edits.

    Parameters
    ----------
    folder : Path
        Folder that is suggested.
    on_export : callable
        Called when the user asks for an export.
    """

    def __init__(self, folder: Path, on_export: Callable[[], None]) -> None:
        self.folder = widgets.Text(
            value=str(folder),
            description="Folder",
            layout=widgets.Layout(width="auto", flex="1 1 300px"),
            style={"description_width": "52px"},
        )
        self.button = button("Export", on_export, disabled=True)
        self._written = small("Writes the update, an adapter for PEFT, figures, tables, the code and a report page.")
        self._code = widgets.HTML()
        super().__init__([row(self.folder, self.button), self._written, self._code])

    def clear(self) -> None:
        """Show no code."""
        self._code.value = ""

    def show_code(self, code: str) -> None:
        """Show the code that repeats the edits."""
        from workbench.explorer.markup import render_code

        self._code.value = render_code(code)

    def show_written(self, folder: Path, written: "Sequence[Exported]") -> None:
        """List what was `written` into `folder`; small files can be downloaded from the page itself."""
        files = [(item, _download_link(folder / item.name, item)) for item in written]
        self._written.value = render(_WRITTEN, folder=folder, files=files)


def _download_link(path: Path, item: "Exported") -> str:
    """Return a link that holds the file itself; nothing for large files, and those that were not written."""
    if item.refused is not None or not path.is_file() or path.stat().st_size > _MAX_DOWNLOAD:
        return ""
    return "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()
