"""HTML from jinja2 templates in which every value is escaped."""

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


@cache
def _compile(source: str) -> Template:
    return _text_environment().from_string(source)


@cache
def _text_environment() -> Environment:
    return template_environment()
