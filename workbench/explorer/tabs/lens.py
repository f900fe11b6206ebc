"""The tab with the logit lens: what each hidden state predicts, before and after the edits."""

from functools import partial
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.live import LiveView
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import button, row, small
from workbench.interactive import View

if TYPE_CHECKING:
    from workbench.request import EditRequest

_ABOUT = (
    "Every hidden state of a text, read by the model's own final norm and head as if it were the last one. A click on "
    "a cell pins its token and chooses the position of the lines."
)


class LensTab(Tab):
    """A grid of layers and tokens, for the prompt of the fact or a text of the user's."""

    title = "Lens"

    def __init__(self, desk: Desk) -> None:
        self.text = widgets.Text(
            placeholder="the prompt of the fact, or a text of yours",
            description="Text",
            layout=widgets.Layout(width="auto", flex="1 1 320px"),
            style={"description_width": "40px"},
        )
        self.button = button("Read states", partial(self._submit, slow=True), disabled=True)
        self._live = LiveView()
        super().__init__(desk, [small(_ABOUT), row(self.text, self.button), self._live])

    def refresh(self) -> None:
        """Read the text again with the current edits and answers."""
        self._submit(slow=False)

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the button."""
        self.button.disabled = not asking

    def views(self) -> list[View]:
        """Return the lens that is shown."""
        return self._live.views()

    def _submit(self, *, slow: bool) -> None:
        if (request := self.desk.fact()) is not None:
            work = partial(self._do_read, request, self.text.value.strip() or request.filled_prompt)
            self.desk.submit("lens" if slow else "lens again", work, slow=slow, idle_only=not slow)

    def _do_read(self, request: "EditRequest", text: str, monitor: ProgressMonitor) -> None:
        from workbench.microscope.lens import read_lenses, watch_answers
        from workbench.microscope.lens_view import TOP, lens_view

        if (session := self.desk.session) is None:
            return
        monitor.stage("Reading the hidden states")
        with session.edited(monitor) as lm:
            top = min(TOP, lm.vocabulary_size)
            before, after = read_lenses(lm, text, watch=watch_answers(request), top=top)
        self._live.show(lens_view(before, after))
