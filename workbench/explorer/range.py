"""A slider."""

from pathlib import Path

import anywidget
import traitlets


class Range(anywidget.AnyWidget):
    """A slider of the browser's own, with a label and its value; it is reported when it is let go.

    Attributes
    ----------
    label, unit : str
        What is chosen, and what is written after its value.
    value, min, max, step : float
        The value and its limits.
    disabled : bool
        Whether it cannot be moved.
    """

    _esm = (Path(__file__).parent / "range.js").read_text(encoding="utf-8")
    label = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    value = traitlets.Float().tag(sync=True)
    min = traitlets.Float(0).tag(sync=True)
    max = traitlets.Float(100).tag(sync=True)
    step = traitlets.Float(1).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)
