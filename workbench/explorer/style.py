"""Style sheet of the panel and of the exported page."""

from importlib import resources


def read_style() -> str:
    """Return the CSS as text."""
    return resources.files("workbench.explorer").joinpath("style.css").read_text(encoding="utf-8")
