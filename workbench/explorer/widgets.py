"""Widgets that the parts of the panel share."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from workbench.html import render

WIDE = {"width": "auto"}  # not a Layout: widgets that share one would be hidden together
LABEL = {"description_width": "104px"}


def add_classes(widget: widgets.DOMWidget, *names: str) -> widgets.DOMWidget:
    """Add CSS classes of `style.css` to a widget and return it."""
    for name in names:
        widget.add_class(name)
    return widget


def button(label: str, on_click: Callable[[], None], **traits: Any) -> widgets.Button:
    """Return a button that calls `on_click`; `traits` are those of `widgets.Button`."""
    new = widgets.Button(description=label, **traits)
    new.on_click(lambda clicked: on_click())
    return new


def filled_lines(text: str) -> list[str]:
    """Return the lines of a text that are not blank, without white space around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def row(*parts: widgets.Widget) -> widgets.Box:
    """Return widgets side by side, wrapped where there is no room."""
    return add_classes(widgets.Box(parts), "wb-row")


def card(title: str, *parts: widgets.Widget) -> widgets.VBox:
    """Return widgets below a title, in a frame."""
    return add_classes(widgets.VBox([widgets.HTML(render("<h2>{{ title }}</h2>", title=title)), *parts]), "wb-card")


def small(text: str) -> widgets.HTML:
    """Return a text in small print."""
    return widgets.HTML(render('<div class="wb-small">{{ text }}</div>', text=text))
