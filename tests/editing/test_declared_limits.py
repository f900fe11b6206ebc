"""Every hyperparameter is checked against its declaration: cases are generated from the declarations themselves."""

import dataclasses
import math
from dataclasses import replace

import pytest

from tests.helpers import error_of
from workbench.editing.mend.training import MendTraining
from workbench.editing.second_moment.estimate import SecondMoment
from workbench.editing.ultraedit import UltraEdit
from workbench.errors import EditError
from workbench.parameters import Interval, parameters_of
from workbench.registry import methods, regularizers

CLASSES = [
    *dict.fromkeys(row.editor for row in methods().values()),
    *dict.fromkeys(row.regularizer for row in regularizers().values()),
    SecondMoment,
    MendTraining,
]
# a number that divides every other; a name
OTHER_FIELDS = {MendTraining: {"batch_sizes": (1,)}, UltraEdit: {"inner_params": ("weight",)}}


def make(cls):
    """Return an instance in which every field without default has a value that is allowed."""
    required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    fields = {name: (1,) if parameters_of(cls)[name].kind is tuple else 1 for name in required}
    return cls(**fields | OTHER_FIELDS.get(cls, {}))


def just_outside(interval: Interval, kind: type) -> list[float]:
    """Return the numbers of that kind next to the range, at each finite end."""
    values = []
    for end, is_closed, away in (
        (interval.low, interval.closed in ("both", "left"), -math.inf),
        (interval.high, interval.closed in ("both", "right"), math.inf),
    ):
        if math.isfinite(end):
            next_one = int(end + math.copysign(1, away)) if kind is int else math.nextafter(end, away)
            values.append(next_one if is_closed else kind(end))
    return values


def just_inside(interval: Interval, kind: type) -> list[float]:
    """Return the closed ends of the range, and the numbers next to its open ends."""
    values = []
    for end, is_closed, inwards in (
        (interval.low, interval.closed in ("both", "left"), math.inf),
        (interval.high, interval.closed in ("both", "right"), -math.inf),
    ):
        if math.isfinite(end):
            next_one = int(end + math.copysign(1, inwards)) if kind is int else math.nextafter(end, inwards)
            values.append(kind(end) if is_closed else next_one)
    return values


def refused_values(parameter):
    """Return values that the declaration of one field does not allow."""
    none = [] if parameter.optional else [None]
    if parameter.item is not None:
        return [*none, 1, "text", *[(value,) for value in refused_values(parameter.item)]]
    if parameter.choices:
        return [*none, 1, "".join(parameter.choices)]
    if parameter.kind in (int, float):
        fraction = [1.5, 2.0] if parameter.kind is int else []
        not_numbers = [math.nan, math.inf, -math.inf, True, False, "1", [1]]
        return [*none, *just_outside(parameter.interval, parameter.kind), *fraction, *not_numbers]
    if parameter.kind is bool:
        return [*none, 0, 1, "true"]
    return [] if is_protocol(parameter.kind) else [*none, 1]


def is_protocol(kind):
    """Return whether any value is taken for one of that kind until it is used."""
    return getattr(kind, "_is_protocol", False)


PARAMETERS = [(cls, parameter) for cls in CLASSES for parameter in parameters_of(cls).values()]
NUMBERS = [(cls, p) for cls, p in PARAMETERS if (p.item or p).kind in (int, float)]


def names(case):
    return getattr(case, "__name__", None) or getattr(case, "name", None)


def test_the_walk_sees_every_class_and_its_ranges():
    assert {"ROME", "MEMIT", "KN", "MEND", "FT", "RECT", "RandomK", "PCAK"} <= {cls.__name__ for cls in CLASSES}
    assert len(NUMBERS) > 50
    assert all(refused_values(parameter) for _, parameter in PARAMETERS if not is_protocol(parameter.kind))


@pytest.mark.parametrize(("cls", "parameter"), NUMBERS, ids=names)
def test_every_number_has_a_declared_range(cls, parameter):
    assert (parameter.item or parameter).interval != Interval()


@pytest.mark.parametrize(("cls", "parameter"), PARAMETERS, ids=names)
def test_every_field_is_described_and_its_default_is_allowed(cls, parameter):
    assert parameter.description
    parameter.check(getattr(make(cls), parameter.name))


@pytest.mark.parametrize(("cls", "parameter"), PARAMETERS, ids=names)
def test_what_is_not_allowed_is_refused_in_the_words_of_the_declaration(cls, parameter):
    settings = make(cls)
    for value in refused_values(parameter):
        sentence = error_of(EditError, replace, settings, **{parameter.name: value})
        assert sentence == f"{parameter.name} must {parameter.phrase}; got {value!r}."


@pytest.mark.parametrize(("cls", "parameter"), NUMBERS, ids=names)
def test_the_ends_of_a_closed_range_are_allowed(cls, parameter):
    number = parameter.item or parameter
    for value in just_inside(number.interval, number.kind):
        given = (value,) if parameter.item else value
        assert getattr(replace(make(cls), **{parameter.name: given}), parameter.name) == given
    if parameter.optional:
        assert getattr(replace(make(cls), **{parameter.name: None}), parameter.name) is None
