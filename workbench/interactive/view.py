"""Views: what an interactive element shows, and the script and style that show it.

A view is drawn by the function ``views.KIND`` of ``js/KIND.js``, which fills an element from the view's data. The same
functions run in the explorer, as the module of a widget, and in a saved page, as one script.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from workbench.errors import ReportError
from workbench.html import render

MIME = "application/vnd.workbench.view+json"
_FOLDER = Path(__file__).parent
_BASE = "base"
_ELEMENT = """
<div class="wb-view"><div class="wb-view-fallback">{{ fallback }}</div>\
<script type="application/json">{{ data }}</script></div>
"""


@dataclass(frozen=True)
class View:
    """What an interactive element shows.

    Attributes
    ----------
    kind : str
        Name of the function that draws it; see `kinds`.
    data : mapping
        What it draws; anything that JSON can hold.
    fallback : Markup
        What is shown where no script runs: a table, or an image with its description.

    Raises
    ------
    ReportError
        If there is no such kind.
    """

    kind: str
    data: Mapping[str, Any]
    fallback: Markup = field(default=Markup(""), repr=False)

    def __post_init__(self) -> None:
        if self.kind not in kinds():
            raise ReportError(f"there is no view of the kind {self.kind!r}; known: {', '.join(kinds())}.")

    def to_html(self) -> Markup:
        """Return the element for a page that runs `page_script`; elsewhere its fallback is shown."""
        text = json.dumps({"kind": self.kind, "data": self.data}, ensure_ascii=False, separators=(",", ":"))
        return render(_ELEMENT, fallback=self.fallback, data=Markup(text.replace("<", "\\u003c")))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        content = {"kind": self.kind, "data": self.data, "fallback": str(self.fallback)}
        return {MIME: content, "text/html": str(self.fallback)}


def load_view(content: object) -> View:
    """Return the view that a notebook's output holds.

    Parameters
    ----------
    content : object
        The output of the type `MIME`, as read from JSON.

    Returns
    -------
    View
        Its fallback is HTML that has not been sanitized.

    Raises
    ------
    ReportError
        If it is not the content of a view, or there is no such kind.
    """
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise ReportError(f"an output of the type {MIME} has no data.")
    return View(str(content.get("kind")), content["data"], Markup(str(content.get("fallback", ""))))


@cache
def kinds() -> tuple[str, ...]:
    """Return the kinds of views there are, in alphabetical order."""
    return tuple(sorted(path.stem for path in (_FOLDER / "js").glob("*.js") if path.stem != _BASE))


@cache
def style() -> str:
    """Return the style sheet of all views."""
    return "\n".join(_read("css", name) for name in (_BASE, *kinds()))


@cache
def module() -> str:
    """Return the ECMAScript module of a widget with the traits `view` and `gesture`."""
    return f"{_script()}\nexport default {{ render: renderWidget }};\n"


@cache
def page_script() -> str:
    """Return the script that draws the views of a saved page."""
    return f'"use strict";\n(() => {{\n{_script()}\ndrawPage(document);\n}})();\n'


def _script() -> str:
    return "\n".join(_read("js", name) for name in (_BASE, *kinds()))


def _read(folder: str, name: str) -> str:
    path = _FOLDER / folder / f"{name}.{folder}"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
