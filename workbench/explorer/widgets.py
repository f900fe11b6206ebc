"""What the parts of the panel share in looks."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

WIDE = {"width": "auto"}  # no Layout: widgets that share one would be hidden together
LABEL = {"description_width": "104px"}


def classed(widget: widgets.DOMWidget, *names: str) -> widgets.DOMWidget:
    """The widget, with CSS classes of `style.css`."""
    for name in names:
        widget.add_class(name)
    return widget


def button(label: str, act: Callable[[], None], **traits: Any) -> widgets.Button:
    """A button that calls `act`; `traits` are those of `widgets.Button`."""
    made = widgets.Button(description=label, **traits)
    made.on_click(lambda clicked: act())
    return made


def filled_lines(text: str) -> list[str]:
    """The lines of a text that hold something, without white space around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def row(*parts: widgets.Widget) -> widgets.Box:
    """Widgets side by side, below one another where there is no room."""
    return classed(widgets.Box(parts), "wb-row")


def card(title: str, *parts: widgets.Widget) -> widgets.VBox:
    """Widgets below a title, in a frame."""
    return classed(widgets.VBox([widgets.HTML(f"<h2>{title}</h2>"), *parts]), "wb-card")


def small(text: str) -> widgets.HTML:
    """A remark."""
    return widgets.HTML(f'<div class="wb-small">{text}</div>')
