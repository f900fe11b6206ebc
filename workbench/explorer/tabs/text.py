"""The tab that reads a text with the unedited and the edited model, token by token."""

from functools import partial
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.desk import Desk
from workbench.explorer.live import LiveView
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import WIDE, button, row, small
from workbench.interactive import View

if TYPE_CHECKING:
    from workbench.lm import LanguageModel

OWN, PASSAGE, CONTINUED = "A text of mine", "A held-out passage", "A continuation by the edited model"
_HINTS = {
    OWN: "A paragraph to read",
    CONTINUED: "The beginning of a text, which the edited model continues",
}
_ABOUT = (
    "Both models read the same text. Each token is colored by how much more or less probable the edits make it; move "
    "over it, or to it with the arrow keys, to see what the models predicted in its place."
)


class TextTab(Tab):
    """A text whose tokens show how the edits change their log-probability."""

    title = "Text"

    def __init__(self, desk: Desk) -> None:
        self._wanted = False  # whether a text has been read, so that it is read again when the edits change
        self._source = widgets.Dropdown(
            options=[OWN, PASSAGE, CONTINUED], description="Text", layout={"width": "340px"}
        )
        self._passage = widgets.Dropdown(description="Passage", layout={"width": "min(440px, 100%)"})
        self._text = widgets.Textarea(rows=3, layout=WIDE)
        self._n_tokens = widgets.BoundedIntText(
            value=60, min=1, max=400, description="Tokens", layout=widgets.Layout(width="160px")
        )
        self._button = button("Read", partial(self._submit, slow=True), disabled=True)
        self._live = LiveView()
        self._source.observe(lambda change: self._show_fields(), "value")
        chosen = row(self._source, self._passage, self._n_tokens, self._button)
        super().__init__(desk, [small(_ABOUT), chosen, self._text, self._live])
        self._show_fields()

    def refresh(self) -> None:
        """Read the text with the current edits; a continuation, which takes longer, only once it has been asked for."""
        if not self._text.value:
            self._text.value = self._suggestion()
        if self._wanted or (self._source.value == OWN and self._text.value.strip()):
            self._submit(slow=False)

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the button."""
        self._button.disabled = not asking

    def views(self) -> list[View]:
        """Return the text that is shown."""
        return self._live.views()

    def _suggestion(self) -> str:
        """Return the prompt of the last edit; nothing without an edit."""
        session = self.desk.session
        return session.edits[-1].request.filled_prompt if session and session.edits else ""

    def _show_fields(self) -> None:
        source = self._source.value
        if source == PASSAGE and not self._passage.options:
            from workbench.microscope.text import held_out_passages  # torch takes seconds to import

            passages = held_out_passages()
            self._passage.options = [(f"{i}. {text[:48]}…", text) for i, text in enumerate(passages, start=1)]
        self._passage.layout.display = "" if source == PASSAGE else "none"
        self._text.layout.display = "none" if source == PASSAGE else ""
        self._text.placeholder = _HINTS.get(source, "")
        self._n_tokens.layout.display = "" if source == CONTINUED else "none"

    def _submit(self, *, slow: bool) -> None:
        source = self._source.value
        text = self._passage.value if source == PASSAGE else self._text.value
        n_tokens = self._n_tokens.value if source == CONTINUED else 0
        work = partial(self._do_read, text, n_tokens)
        self.desk.submit("text" if slow else "text again", work, slow=slow, idle_only=not slow)

    def _do_read(self, text: str, n_tokens: int, monitor: ProgressMonitor) -> None:
        from workbench.microscope.text import compare_text
        from workbench.microscope.text_view import text_view

        if (session := self.desk.session) is None:
            return
        self._wanted = True
        monitor.stage("Reading the text")
        with session.edited(monitor) as lm:
            comparison = compare_text(lm, _continued(lm, text, n_tokens))
        self._live.show(text_view(comparison, is_edited=bool(session.edits)))


def _continued(lm: "LanguageModel", text: str, n_tokens: int) -> str:
    from workbench.microscope.text import continued

    return continued(lm, text, n_tokens) if n_tokens else text
