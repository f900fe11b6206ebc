"""The widget that shows a view in the panel."""

from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from workbench.interactive import View, module, style


class LiveView(anywidget.AnyWidget):
    """A `View` in JupyterLab and under Voilà.

    Parameters
    ----------
    on_pick : callable, optional
        Called with what the view's script sends after a gesture, such as ``{"layer": 5}``.
    """

    _esm = module()
    _css = style()
    view = traitlets.Dict().tag(sync=True)  # empty: nothing is shown
    gesture = traitlets.Dict().tag(sync=True)

    def __init__(self, on_pick: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        super().__init__()
        self.shown: View | None = None
        if on_pick is not None:
            self.observe(lambda change: on_pick(change["new"]), "gesture")

    def show(self, view: View | None) -> None:
        """Show a view; None: nothing."""
        self.shown = view
        self.view = {} if view is None else {"kind": view.kind, "data": view.data}

    def views(self) -> list[View]:
        """Return the view that is shown, in a list; an empty one without it."""
        return [] if self.shown is None else [self.shown]
