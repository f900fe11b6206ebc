"""What a tab of the panel may use of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workbench.explorer.worker import Work
from workbench.request import EditRequest

if TYPE_CHECKING:
    from workbench.explorer.session import Session


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
    """

    find_session: "Callable[[], Session | None]"
    fact: Callable[[], EditRequest | None]
    submit: "SubmitJob"
    state: Callable[[], int]
    show_edits: Callable[[EditRequest], None]
    set_layer: Callable[[int], None]

    @property
    def session(self) -> "Session | None":
        """The session, or None before a model is loaded."""
        return self.find_session()


class SubmitJob(Protocol):
    """Type of a function that queues work."""

    def __call__(self, name: str, work: Work, *, slow: bool = False, idle_only: bool = False) -> None: ...
