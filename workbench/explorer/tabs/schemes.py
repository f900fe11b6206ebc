"""The tab that compares editing schemes for one fact."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.errors import SpecError
from workbench.explorer.desk import Choice, Desk
from workbench.explorer.live import LiveView
from workbench.explorer.progress import ProgressMonitor
from workbench.explorer.tabs.tab import Tab
from workbench.explorer.widgets import add_classes, button, row, small
from workbench.interactive import View

if TYPE_CHECKING:
    from workbench.microscope.schemes import SchemeResult
    from workbench.request import EditRequest

MAX_ROWS = 6
_NONE, _RECT, _PRUNE = ("none", None), ("rect", 0.4), ("prune", None)
# three updates to compute; methods that estimate second moments first are left to the reader
_SUGGESTED = [
    *(Choice("rome", {}, of_edit, _NONE) for of_edit in (_NONE, _RECT, _PRUNE)),
    *(Choice("r-rome", {}, of_edit, _NONE) for of_edit in (_NONE, _RECT)),
    Choice("ft-l", {}, _NONE, _NONE),
]
_ABOUT = (
    "The fact on the left, edited by up to six schemes, each on the model with the edits so far. Rows with the same "
    "method and hyperparameters compute the edit once."
)


class SchemesTab(Tab):
    """Rows of method, hyperparameters and regularizers, and what each does to the fact."""

    title = "Schemes"

    def __init__(self, desk: Desk) -> None:
        self._choices: list[Choice] = []
        self._results: list[SchemeResult] = []
        self._rows = widgets.VBox()
        self._add = button("Add the settings on the left", self._add_settings, layout={"width": "auto"})
        self._suggest = button("Suggest six", partial(self._set_choices, _SUGGESTED), layout={"width": "auto"})
        self._compare_button = button("Compare", self._submit, button_style="primary", disabled=True)
        self._notice, self._live = small(""), LiveView(self._use)
        buttons = row(self._add, self._suggest, self._compare_button)
        super().__init__(desk, [small(_ABOUT), self._rows, buttons, self._notice, self._live])
        self._set_choices([])

    def refresh(self) -> None:
        """Show whether the rows can still be used."""
        if self._results:
            self._show(self._results)

    def clear(self) -> None:
        """Show no result; the rows stay."""
        self._notice.value = ""
        self._show([])

    def enable(self, *, asking: bool, edited: bool) -> None:
        """Enable or disable the button that compares."""
        self._compare_button.disabled = not asking

    def views(self) -> list[View]:
        """Return the results that are shown."""
        return self._live.views()

    def _add_settings(self) -> None:
        if (choice := self.desk.choice()) is not None and len(self._choices) < MAX_ROWS:
            self._set_choices([*self._choices, choice])

    def _set_choices(self, choices: list[Choice]) -> None:
        self._choices = list(choices)
        self._add.disabled = len(choices) >= MAX_ROWS
        self._rows.children = [self._line(i, choice) for i, choice in enumerate(choices)] or [small("No rows yet.")]

    def _line(self, number: int, choice: Choice) -> widgets.Widget:
        rest = self._choices[:number] + self._choices[number + 1 :]
        remove = button(
            "Remove",
            partial(self._set_choices, rest),
            tooltip=f"Remove row {number + 1}",
            layout={"width": "80px"},
        )
        return add_classes(row(small(f"{number + 1}. {choice.label}"), remove), "wb-schemes-line")

    def _submit(self) -> None:
        if (request := self.desk.fact()) is not None:
            self.desk.submit("schemes", partial(self._do_compare, request, list(self._choices)), slow=True)

    def _do_compare(self, request: "EditRequest", choices: list[Choice], monitor: ProgressMonitor) -> None:
        from workbench.explorer.proposals import try_schemes

        if (session := self.desk.session) is None:
            return
        if not choices:
            raise SpecError("there is no row to compare; add the settings on the left, or the suggested rows.")
        self._notice.value = _notice_of([edit.request for edit in session.edits], request).value
        results: list[SchemeResult] = []

        def keep(result: "SchemeResult") -> None:
            results.append(result)
            self._show(list(results))

        try_schemes(session, request, [choice.to_scheme() for choice in choices], after_row=keep, monitor=monitor)

    def _show(self, results: "list[SchemeResult]") -> None:
        self._results, session = results, self.desk.session
        if not results or session is None:
            self._live.show(None)
            return
        from workbench.microscope.scheme_view import scheme_view

        self._live.show(scheme_view(results, is_stale=results[0].earlier != session.sequence.edits))

    def _use(self, picked: Mapping[str, Any]) -> None:
        self.desk.submit("use scheme", partial(self._do_use, int(picked["row"])), slow=True)

    def _do_use(self, number: int, monitor: ProgressMonitor) -> None:
        from workbench.explorer.proposals import use_scheme

        if (session := self.desk.session) is not None and number < len(self._results):
            monitor.stage("Making the edit")
            self.desk.show_edits(use_scheme(session, self._results[number]).request)


def _notice_of(edited: "list[EditRequest]", request: "EditRequest") -> widgets.HTML:
    """Return what is to be known before rows are compared: that the fact has been edited already."""
    numbers = [i for i, earlier in enumerate(edited, 1) if earlier.filled_prompt == request.filled_prompt]
    if not numbers:
        return small("")
    already = f"Edit {numbers[-1]} already wrote to this prompt, and the rows come on top of it."
    return small(f"{already} Undo it to compare them from before.")
