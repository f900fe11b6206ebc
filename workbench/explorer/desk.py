"""What a tab of the panel may use of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from workbench.explorer.worker import Work
from workbench.registry import method_row, regularizer_row
from workbench.request import EditRequest

if TYPE_CHECKING:
    from workbench.explorer.session import Session
    from workbench.microscope.schemes import Scheme

Chosen = tuple[str, float | None]  # name of a regularizer, and the share it keeps


class Choice(NamedTuple):
    """What the forms choose: a method, its hyperparameters, and the regularizers of the edit and of the sum."""

    method: str
    fields: Mapping[str, Any]
    of_edit: Chosen
    of_sum: Chosen

    @property
    def label(self) -> str:
        """The choice in a few words."""
        layers = self.fields.get("layer", self.fields.get("layers"))
        where = [] if layers is None else [f"layer {layers}" if isinstance(layers, int) else f"layers {_join(layers)}"]
        of_sum = [] if self.of_sum[0] == "none" else [f"{_label_of(self.of_sum)} of the sum"]
        of_edit = [] if self.of_edit[0] == "none" else [_label_of(self.of_edit)]
        return ", ".join([method_row(self.method).title, *where, *of_edit, *of_sum])

    def to_scheme(self) -> "Scheme":
        """Return the choice as a scheme to compare with others."""
        from workbench.microscope.schemes import Scheme  # torch takes seconds to import
        from workbench.regularize import make_regularizer

        of_edit, of_sum = (
            None if name == "none" else make_regularizer(name, keep=keep) for name, keep in (self.of_edit, self.of_sum)
        )
        return Scheme(self.method, self.fields, of_edit, of_sum)


def _join(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


def _label_of(chosen: Chosen) -> str:
    name, keep = chosen
    return regularizer_row(name).title + ("" if keep is None else f" {100 * keep:g} %")


@dataclass(frozen=True)
class Desk:
    """The panel as its tabs see it; the functions may be called from any thread.

    Attributes
    ----------
    find_session : callable
        Returns the session, or None before a model is loaded.
    fact : callable
        Returns the fact that the form describes; shows the error and returns None if it describes none.
    submit : callable
        Takes the name of a job, its work, and the fields `slow` and `idle_only` of `Job`.
    state : callable
        Returns a number that changes with the session, its edits and the fact that is shown.
    show_edits : callable
        Shows the session's edits after a tab has changed them, with the answers to a fact.
    set_layer : callable
        Puts a layer into the form of the method.
    choice : callable
        Returns what the forms choose; shows the error and returns None if a hyperparameter is not allowed.
    """

    find_session: "Callable[[], Session | None]"
    fact: Callable[[], EditRequest | None]
    submit: "SubmitJob"
    state: Callable[[], int]
    show_edits: Callable[[EditRequest], None]
    set_layer: Callable[[int], None]
    choice: Callable[[], Choice | None]

    @property
    def session(self) -> "Session | None":
        """The session, or None before a model is loaded."""
        return self.find_session()


class SubmitJob(Protocol):
    """Type of a function that queues work."""

    def __call__(self, name: str, work: Work, *, slow: bool = False, idle_only: bool = False) -> None: ...
