"""The card that chooses a fact, from a list or by its texts."""

from collections.abc import Callable

import ipywidgets as widgets

from workbench.data.facts import FactSet
from workbench.explorer.widgets import LABEL, WIDE, filled_lines
from workbench.html import render
from workbench.request import PROBE_ARROW, EditRequest, LocalityProbe, PortabilityProbe, split_probe

_ALIAS_BAR = "|"  # separates the names of an answer that are typed in one line
_COUNT = '<div class="wb-small">{{ count }} of {{ total }} facts</div>'


class FactForm(widgets.VBox):
    """The card with the fact.

    Parameters
    ----------
    facts : FactSet
        The facts of the list.
    on_pick : callable
        Called when a fact of the list has been filled in.
    """

    def __init__(self, facts: FactSet, on_pick: Callable[[], None]) -> None:
        self._facts, self._on_pick, self._is_filtering = facts.requests, on_pick, False
        hidden = {"description_width": "0"}  # screen readers read the label
        self._search = widgets.Text(
            description="Search", placeholder="Search: a name, a place, a relation", layout=WIDE, style=hidden
        )
        self._list = widgets.Select(description="Facts", rows=5, layout=WIDE, style=hidden)
        self._subject = _text("Subject", "Eiffel Tower; empty for a method that needs none")
        self._prompt = _text("Prompt", "The {} is located in the city of")
        self._target_new = _text("New answer", "Rome")
        self._target_true = _text("True answer", "may stay empty")
        self._rephrase = _lines("Rephrasings", "One per line; {} stands for the subject", rows=3)
        self._locality = _lines("Left alone", f"One per line: prompt {PROBE_ARROW} answer", rows=3)
        follows = f"One per line: prompt {PROBE_ARROW} answer {_ALIAS_BAR} another name of it"
        self._portability = _lines("Follows", follows, rows=2)
        for widget in (self._search, self._list):
            widget.add_class("wb-unlabeled")
        self._count = widgets.HTML()
        super().__init__(
            [
                widgets.HTML("<h2>Fact</h2>"),
                self._search,
                self._list,
                self._count,
                self._subject,
                self._prompt,
                self._target_new,
                self._target_true,
                self._rephrase,
                self._locality,
                self._portability,
            ]
        )
        self.add_class("wb-card")
        self._search.observe(lambda change: self._filter(), "value")
        self._list.observe(lambda change: self._fill(), "value")
        self._filter()

    def read_request(self) -> EditRequest:
        """Return the fact that the fields describe.

        Raises
        ------
        RequestError
            If they describe none.
        """
        return EditRequest(
            subject=self._subject.value.strip() or None,
            prompt=self._prompt.value.strip(),
            target_new=self._target_new.value.strip(),
            target_true=self._target_true.value.strip() or None,
            rephrase=tuple(filled_lines(self._rephrase.value)),
            locality=tuple(LocalityProbe(*_probe(self._locality, line)) for line in filled_lines(self._locality.value)),
            portability=tuple(_question(self._portability, line) for line in filled_lines(self._portability.value)),
        )

    def fill_first(self) -> None:
        """Fill in the first fact of the list."""
        self.fill(self._facts[0])

    def fill(self, request: EditRequest) -> None:
        """Put a fact into the fields."""
        self._subject.value, self._prompt.value = request.subject or "", request.prompt
        self._target_new.value, self._target_true.value = request.target_new, request.target_true or ""
        self._rephrase.value = "\n".join(request.rephrase)
        self._locality.value = "\n".join(f"{probe.prompt} {PROBE_ARROW} {probe.target}" for probe in request.locality)
        self._portability.value = "\n".join(
            f"{question.prompt} {PROBE_ARROW} {f' {_ALIAS_BAR} '.join([question.target, *question.aliases])}"
            for question in request.portability
        )

    def _filter(self) -> None:
        words = self._search.value.lower().split()
        matches = [(_line(r), i) for i, r in enumerate(self._facts) if all(w in _searchable(r) for w in words)]
        self._count.value = render(_COUNT, count=len(matches), total=len(self._facts))
        self._is_filtering = True  # new options select the first of them
        self._list.options = matches
        self._list.value = None
        self._is_filtering = False

    def _fill(self) -> None:
        if self._list.value is not None and not self._is_filtering:
            self.fill(self._facts[self._list.value])
            self._on_pick()


def _text(label: str, placeholder: str) -> widgets.Text:
    return widgets.Text(description=label, placeholder=placeholder, layout=WIDE, style=LABEL)


def _lines(label: str, placeholder: str, rows: int) -> widgets.Textarea:
    return widgets.Textarea(description=label, placeholder=placeholder, rows=rows, layout=WIDE, style=LABEL)


def _line(request: EditRequest) -> str:
    true = f"{request.target_true} → " if request.target_true else "→ "
    return f"{request.name}: {true}{request.target_new}"


def _searchable(request: EditRequest) -> str:
    relation = (request.relation or "").replace("_", " ")
    return f"{_line(request)} {request.filled_prompt} {relation}".lower()


def _probe(field: widgets.Textarea, line: str) -> tuple[str, str]:
    """Return prompt and answer of one line of a field."""
    return split_probe(line, f"{field.description}:")


def _question(field: widgets.Textarea, line: str) -> PortabilityProbe:
    prompt, names = _probe(field, line)
    target, *aliases = (name.strip() for name in names.split(_ALIAS_BAR))
    return PortabilityProbe(prompt, target, tuple(aliases))
