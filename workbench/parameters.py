"""Limits of hyperparameters, declared once on the fields of a dataclass.

A field says what is allowed by its type and an `Interval` in its annotation, ``keep: Annotated[float, Interval(0, 1,
closed="right")]``. The check, its error sentence, the bounds of widgets and the generated tests all read that
declaration, and a text in the annotation describes the field in tooltips and lists.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from workbench.errors import EditError

LARGEST_SEED = 2**32 - 1  # what every random generator in use accepts


@dataclass(frozen=True)
class Interval:
    """Allowed range of a number.

    Attributes
    ----------
    low, high : float
        Ends of the range; infinite where there is none.
    closed : {"both", "left", "right", "neither"}
        Which ends belong to the range; an infinite end never does.
    """

    low: float = -math.inf
    high: float = math.inf
    closed: Literal["both", "left", "right", "neither"] = "both"

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.closed in ("both", "left") else value > self.low
        below = value <= self.high if self.closed in ("both", "right") else value < self.high
        return above and below and math.isfinite(value)

    def phrase(self, whole: bool) -> str:
        """Return the range in words that follow "must", for whole numbers or any numbers."""
        number = "a whole number" if whole else "a number"
        if (self.low, self.high) == (-math.inf, math.inf):
            return f"be {number}" if whole else "be a finite number"
        if self.high == math.inf:
            if self.low == 0 and not whole:
                return "be a nonnegative number" if self.closed in ("both", "left") else "be a positive number"
            return f"be {number} of at least {self.low:g}"
        if whole:
            return f"be {number} from {self.low:.0f} to {self.high:.0f}"
        opening, closing = (
            "[" if self.closed in ("both", "left") else "(",
            "]" if self.closed in ("both", "right") else ")",
        )
        return f"lie in {opening}{self.low:g}, {self.high:g}{closing}"


POSITIVE = Interval(0, closed="neither")
NONNEGATIVE = Interval(0)
COUNT = Interval(1, 10**6)  # of steps, facts and ranks; more would never end
SHARE = Interval(0, 1, closed="right")
SEED = Interval(0, LARGEST_SEED)


@dataclass(frozen=True)
class Parameter:
    """What is allowed in one field.

    Attributes
    ----------
    name : str
        Name of the field.
    kind : type
        ``int``, ``float``, ``bool``, ``str``, ``tuple`` (of `item`), or the class of the value.
    item : Parameter or None
        What is allowed in each entry of a tuple.
    choices : tuple of str
        The allowed texts, where the type is a `Literal`.
    interval : Interval
        Allowed range of a number.
    optional : bool
        Whether None is allowed.
    description : str
        What the field is, in a few words; may be empty.
    """

    name: str
    kind: type
    item: "Parameter | None" = None
    choices: tuple[str, ...] = ()
    interval: Interval = Interval()
    optional: bool = False
    description: str = ""

    def check(self, value: object) -> None:
        """Raise `EditError`, in one sentence, unless `value` is allowed."""
        if not self._allows(value):
            raise EditError(f"{self.name} must {self.phrase}; got {value!r}.")

    @property
    def phrase(self) -> str:
        """What is allowed, in words that follow "must"."""
        if not self.optional:
            return self._phrase
        return f"be None or {self._phrase.removeprefix('be ')}" if self.item else f"{self._phrase} or None"

    @property
    def _phrase(self) -> str:
        if self.choices:
            return f"be {' or '.join(map(repr, self.choices))}"
        if self.kind in (int, float):
            return self.interval.phrase(whole=self.kind is int)
        if self.item is not None:
            return f"be a list in which each entry is {self.item.phrase.removeprefix('be ')}"
        return {bool: "be true or false", str: "be a text"}.get(self.kind, f"be a {self.kind.__name__}")

    def _allows(self, value: object) -> bool:
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if self.kind in (int, float):
            number = Integral if self.kind is int else Real
            # bool is a number in Python, and no hyperparameter means it as one
            return isinstance(value, number) and not isinstance(value, bool) and _float(value) in self.interval
        if self.item is not None:
            return isinstance(value, tuple) and all(self.item._allows(entry) for entry in value)
        return isinstance(value, self.kind)


def _float(number: Real) -> float:
    """Return a number as a float; NaN, which lies in no interval, if it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.nan


def from_plain(value: Any) -> Any:
    """Return a value of JSON or YAML as a field holds it: a list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def check_parameters(settings: Any) -> None:
    """Raise `EditError` unless every field of a dataclass holds what its annotation allows.

    Parameters
    ----------
    settings : dataclass instance
        Hyperparameters of a method or a regularizer.

    Raises
    ------
    EditError
        In one sentence: the field, what is allowed, and the value.
    """
    declared = parameters_of(type(settings))  # type: ignore[arg-type]  # every class is hashable
    for parameter in declared.values():
        parameter.check(getattr(settings, parameter.name))


@cache
def parameters_of(cls: type[Any]) -> dict[str, Parameter]:
    """Return what is allowed in each field of a dataclass.

    Parameters
    ----------
    cls : type
        A dataclass.

    Returns
    -------
    dict of str to Parameter
        By field name, in the order of the fields.
    """
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: _parameter(field.name, hints[field.name]) for field in dataclasses.fields(cls)}


def _parameter(name: str, hint: Any) -> Parameter:
    interval, description = Interval(), ""
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        interval = next((extra for extra in extras if isinstance(extra, Interval)), interval)
        description = next((extra for extra in extras if isinstance(extra, str)), description)
    optional = False
    if get_origin(hint) in (Union, UnionType):
        kinds = [part for part in get_args(hint) if part is not NoneType]
        if len(kinds) != 1:
            raise TypeError(f"field {name}: a union of several types has no declared limits")
        optional, [hint] = len(kinds) < len(get_args(hint)), kinds
        if get_origin(hint) is Annotated:  # the interval may stand inside the union
            inner = _parameter(name, hint)
            return dataclasses.replace(inner, optional=optional, description=description or inner.description)
    if get_origin(hint) is Literal:
        return Parameter(name, str, choices=get_args(hint), optional=optional, description=description)
    if get_origin(hint) is tuple:
        item = _parameter(name, get_args(hint)[0])
        return Parameter(
            name, tuple, dataclasses.replace(item, interval=interval), optional=optional, description=description
        )
    return Parameter(name, hint, interval=interval, optional=optional, description=description)
