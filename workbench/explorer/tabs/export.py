"""The tab that exports a session."""

import base64
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as widgets

from workbench.errors import EditError
from workbench.explorer.desk import Desk
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import button, row, small
from workbench.html import render
from workbench.interactive import View

if TYPE_CHECKING:
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


class Shown(NamedTuple):
    """What the panel shows besides the edits, for the export: figures, continuations, and views by their tabs."""

    pictures: "list[Picture]"
    continued: "list[Continuation]"
    views: list[tuple[str, View]]


class ExportTab(Tab):
    """The export: its folder, the files that were written, and the code that repeats the edits.

    Parameters
    ----------
    desk : Desk
        What the tab may use of the panel.
    folder : Path
        Folder that is suggested.
    collect : callable
        Returns what the panel shows.
    """

    title = "Export"

    def __init__(self, desk: Desk, folder: Path, collect: Callable[[], Shown]) -> None:
        self._collect = collect
        self.folder = widgets.Text(
            value=str(folder),
            description="Folder",
            layout=widgets.Layout(width="auto", flex="1 1 300px"),
            style={"description_width": "52px"},
        )
        self.button = button("Export", self._export, disabled=True)
        self._written = small("Writes the update, an adapter for PEFT, figures, tables, the code and a report page.")
        self._code = widgets.HTML()
        super().__init__(desk, [row(self.folder, self.button), self._written, self._code])

    def clear(self) -> None:
        """Show no code."""
        self._code.value = ""

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the button."""
        self.button.disabled = not edited

    def show_code(self, session: "Session") -> None:
        """Show the code that repeats the edits."""
        from workbench.explorer.markup import render_code
        from workbench.explorer.script import script_of

        self._code.value = render_code(script_of(session.lm, session.edits, session.accumulated))

    def _export(self) -> None:
        self.desk.submit("export", partial(self._do_export, self.folder.value.strip()), slow=True)

    def _do_export(self, folder: str, monitor: ProgressMonitor) -> None:
        from workbench.explorer.export import export

        if not folder:
            raise EditError("no folder is named; give one to export into.")
        if (session := self.desk.session) is not None:
            monitor.stage("Exporting")
            self._show_written(*export(session, folder, *self._collect()))

    def _show_written(self, folder: Path, written: "Sequence[Exported]") -> None:
        """List what was `written` into `folder`; small files can be downloaded from the page itself."""
        files = [(item, _download_link(folder / item.name, item)) for item in written]
        self._written.value = render(_WRITTEN, folder=folder, files=files)


def _download_link(path: Path, item: "Exported") -> str:
    """Return a link that holds the file itself; nothing for large files, and those that were not written."""
    if item.refused is not None or not path.is_file() or path.stat().st_size > _MAX_DOWNLOAD:
        return ""
    return "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()
