"""HTML from jinja2 templates in which every value is escaped."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup


def template_environment(folder: Path | None = None) -> Environment:
    """Return a jinja2 environment that escapes values and refuses names that are not defined.

    Parameters
    ----------
    folder : Path, optional
        Folder of the template files; without one, templates are given as text.

    Returns
    -------
    Environment
    """
    return Environment(
        loader=FileSystemLoader(folder) if folder else None,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def render(source: str, **values: object) -> Markup:
    """Return a template with its values filled in.

    Parameters
    ----------
    source : str
        Text of the template.
    **values : object
        Values of its variables. All are escaped, except HTML that `render` returned.

    Returns
    -------
    Markup
        A string that is not escaped again inside another template.
    """
    return Markup(_compile(source).render(values))


def content_policy(style: str, script: str = "") -> str:
    """Return a Content-Security-Policy that allows a page's own pictures, one style sheet and one script.

    Parameters
    ----------
    style, script : str
        Content of the elements ``<style>`` and ``<script>``; without a script, none runs.

    Returns
    -------
    str
        Everything else is refused: requests, fonts, frames, forms, handlers and styles in attributes.
    """
    rules = ["default-src 'none'", "img-src 'self' file: data:", f"style-src '{_digest(style)}'"]
    rules += [f"script-src '{_digest(script)}'"] if script else []
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


@cache
def _compile(source: str) -> Template:
    return _text_environment().from_string(source)


@cache
def _text_environment() -> Environment:
    return template_environment()
