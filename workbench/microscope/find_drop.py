"""The edit after which something fell, found by bisection."""

from collections.abc import Callable
from dataclasses import dataclass

from workbench.errors import EditError
from workbench.microscope.timeline import Measured

NOTE = (
    "Bisection finds one edit at which this fell. Where the curve falls and recovers there may be others, and it need "
    "not be the first."
)


@dataclass(frozen=True)
class Drop:
    """Where something fell.

    Attributes
    ----------
    edit : int
        The edit: after `edit` − 1 edits it had not fallen, after `edit` it had.
    lasts : bool
        Whether it is still fallen one edit later; true if there is none.
    looked_at : tuple of int
        Numbers of edits at which the model was measured, in ascending order.
    """

    edit: int
    lasts: bool
    looked_at: tuple[int, ...]


def find_drop(
    measure: Callable[[int], Measured], low: int, high: int, *, by: Callable[[Measured], bool]
) -> Drop | None:
    """Find an edit between two states after which something fell, by bisection.

    With n = `high` − `low` edits between, it measures about log₂ n states, and the one after the edit that it finds.
    Where the curve is not monotone there may be other crossings, and the one that is found need not be the first: see
    `NOTE`, which belongs beside the result.

    Parameters
    ----------
    measure : callable
        Returns the measured model after a number of edits, such as `Timeline.measure`.
    low, high : int
        Numbers of edits to search between.
    by : callable
        Returns whether it has fallen, such as `perplexity_above` and `fact_below` give.

    Returns
    -------
    Drop or None
        None if it has not fallen at `high`.

    Raises
    ------
    EditError
        If `low` is not below `high`, or it has fallen at `low` already.
    """
    if not low < high:
        raise EditError(f"give a first number of edits below the last; got {low} and {high}.")
    fallen: dict[int, bool] = {}

    def has_fallen(edits: int) -> bool:
        if edits not in fallen:
            fallen[edits] = by(measure(edits))
        return fallen[edits]

    if has_fallen(low):
        raise EditError(f"after {low} edits this has fallen already; begin earlier.")
    last = high
    if not has_fallen(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if has_fallen(middle) else (middle, high)
    lasts = high == last or has_fallen(high + 1)
    return Drop(high, lasts, tuple(sorted(fallen)))


def perplexity_above(factor: float = 1.5) -> Callable[[Measured], bool]:
    """Return whether a model's perplexity is above a multiple of the unedited model's, or is no number.

    Raises
    ------
    EditError
        If `factor` is not above 1.
    """
    if not factor > 1:
        raise EditError(f"factor must be above 1; got {factor!r}.")
    return lambda measured: not measured.held_out.factor <= factor


def fact_below(fact: int, limit: float = 0.5) -> Callable[[Measured], bool]:
    """Return whether the reliability of a fact, by its number from 0, is below a limit; before its edit it is not.

    Raises
    ------
    EditError
        If `limit` lies outside (0, 1].
    """
    if not 0 < limit <= 1:
        raise EditError(f"limit must lie in (0, 1]; got {limit!r}.")
    return lambda measured: len(measured.reliability) > fact and measured.reliability[fact] < limit
