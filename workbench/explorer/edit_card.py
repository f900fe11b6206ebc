"""The edit card in the panel: what the last edit does, or what a refused one would do."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.explorer.widgets import add_classes, button
from workbench.html import render
from workbench.printable import percent, printable

if TYPE_CHECKING:
    from workbench.explorer.edits import Edit
    from workbench.explorer.progress import ProgressMonitor
    from workbench.explorer.session import Session
    from workbench.microscope.card import EditCard
    from workbench.microscope.written import Written, WrittenToken

MAX_MATRICES = 5  # those with the largest ‖ΔW‖ are read
_CARD = """
<div class="wb-level wb-level-{{ card.level }}"><span class="wb-level-title">{{ card.title }}</span>
<span>{{ "Not applied" if is_refused else "Applied" }}: {{ fact }} … <b>{{ target }}</b>.
{{ card.sentence }}{% if is_refused %} {{ card.offer }}{% endif %}</span></div>
"""
_WRITTEN = """
<details><summary>What it writes: {{ lead }}</summary>
<p class="wb-small">Left singular vectors of ΔW through the final norm and the unembedding: the tokens that each
promotes and suppresses where it is added to the residual stream. Later layers read it, too, so that an edit in a low
layer seldom names its new answer here.</p>
<div class="wb-scroll"><table class="wb-table"><thead><tr><th scope="col">Matrix</th>
<th scope="col">Share of ‖ΔW‖²</th><th scope="col">Promotes</th><th scope="col">Suppresses</th>
<th scope="col">Rank of the new answer</th></tr></thead><tbody>
{% for name, share, promoted, suppressed, rank in rows %}
<tr><th scope="row">{{ name }}</th><td>{{ share }}</td><td>{{ promoted }}</td><td>{{ suppressed }}</td>
<td>{{ rank }}</td></tr>
{% endfor %}
{% for each in refused %}
<tr><th scope="row">{{ each.parameter }}</th><td colspan="4">{{ each.refused }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if n_left_out %}<p class="wb-small">{{ n_left_out }} matrices with a smaller ‖ΔW‖ are left out.</p>{% endif %}
</details>
"""


class EditCardBox(widgets.VBox):
    """The card, with a button that repairs a refused edit.

    Parameters
    ----------
    on_repair : callable
        Called when the user asks for the repair.
    """

    def __init__(self, on_repair: Callable[[], None]) -> None:
        self._card, self._written = widgets.HTML(), widgets.HTML()
        self._shown: Edit | None = None
        self.button = button(
            "Repair and apply",
            on_repair,
            tooltip="Make the refused edit by the first repair that lowers its risk",
            layout={"width": "150px", "display": "none"},
        )
        super().__init__([self._card, self.button, self._written])
        add_classes(self, "wb-edit-card")
        self.clear()

    def clear(self) -> None:
        """Show no edit."""
        self._shown, self._card.value, self._written.value = None, "", ""
        self.layout.display = self.button.layout.display = "none"

    def enable(self, *, asking: bool) -> None:
        """Enable or disable the button."""
        self.button.disabled = not asking

    def show(self, edit: "Edit", *, is_refused: bool) -> None:
        """Show the assessment of an edit; `show_written` adds what it writes."""
        from workbench.microscope.card import describe_risk

        if edit is self._shown:
            return
        card: EditCard = describe_risk(edit.risk, edit.editor, edit.regularizer)
        fact, target = printable(edit.request.filled_prompt), printable(edit.request.target_new.strip())
        self._shown, self._written.value = edit, ""
        self._card.value = render(_CARD, card=card, is_refused=is_refused, fact=fact, target=target)
        self.button.layout.display = "" if is_refused and card.repairs else "none"
        self.layout.display = ""

    def show_written(self, session: "Session", monitor: "ProgressMonitor") -> None:
        """Show what the edit on the card writes, if that is not shown yet."""
        from workbench.microscope.written import read_written
        from workbench.update import WeightUpdate

        if (edit := self._shown) is None or self._written.value:
            return
        with session.exclusive(monitor):
            norms = {name: WeightUpdate({name: change}).norm() for name, change in edit.update.items()}
            names = sorted(norms, key=norms.__getitem__, reverse=True)[:MAX_MATRICES]
            n_vectors = 3 if len(names) == 1 else 1
            largest = WeightUpdate({name: edit.update[name] for name in names}, edit.update.records)
            written = read_written(largest, session.lm, n_vectors=n_vectors)
        if edit is self._shown:
            self._written.value = render_written(written, len(norms) - len(names), session.lm.vocabulary_size)


def render_written(written: "Sequence[Written]", n_left_out: int, n_vocabulary: int) -> str:
    """Return what an update writes: a line, and a table below it that can be unfolded."""
    read = [(each.parameter, vector) for each in written for vector in each.vectors]
    rows = [
        (
            name if vector.is_signed else f"{name} (either sign)",
            percent(vector.share),
            _words(vector.promoted),
            _words(vector.suppressed),
            "" if vector.answer_rank is None else f"{vector.answer_rank:,} of {n_vocabulary:,}",
        )
        for name, vector in read
    ]
    lead = f"{_words(read[0][1].promoted[:4])} …" if read else "it cannot be read as tokens"
    refused = [each for each in written if each.refused]
    return render(_WRITTEN, lead=lead, rows=rows, refused=refused, n_left_out=n_left_out)


def _words(tokens: "Sequence[WrittenToken]") -> str:
    return " · ".join(printable(token.text.strip()) or repr(token.text) for token in tokens)
