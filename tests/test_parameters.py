"""Limits are declared once, and every sentence follows from the declaration."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from workbench.errors import EditError
from workbench.parameters import (
    COUNT,
    NONNEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    Interval,
    check_parameters,
    parameters_of,
)


@dataclass(frozen=True)
class Settings:
    keep: Annotated[float, SHARE] = 0.4
    share: Annotated[float, Interval(0, 1, closed="left")] = 0.0
    lr: Annotated[float, POSITIVE, "learning rate"] = 0.5
    decay: Annotated[float, NONNEGATIVE] = 0.0
    steps: Annotated[int, COUNT] = 3
    seed: Annotated[int, SEED] = 0
    offset: Annotated[int, Interval()] = 0
    scale: Annotated[float, Interval()] = 1.0
    layers: Annotated[tuple[int, ...], Interval(0)] = (1,)
    limit: Annotated[float | None, POSITIVE] = None
    variant: Literal["a", "b"] = "a"
    fast: bool = False
    name: str = "x"
    texts: tuple[str, ...] | None = None
    inner: "Inner | None" = None

    def __post_init__(self) -> None:
        check_parameters(self)


@dataclass(frozen=True)
class Inner:
    size: int = 1


@pytest.mark.parametrize(
    ("field", "value", "phrase"),
    [
        ("keep", 0, "lie in (0, 1]"),
        ("keep", 1.4, "lie in (0, 1]"),
        ("keep", float("nan"), "lie in (0, 1]"),
        ("keep", True, "lie in (0, 1]"),
        ("keep", "0.4", "lie in (0, 1]"),
        ("share", 1, "lie in [0, 1)"),
        ("lr", 0.0, "be a positive number"),
        ("lr", float("inf"), "be a positive number"),
        ("decay", -1e-9, "be a nonnegative number"),
        ("steps", 0, "be a whole number from 1 to 1000000"),
        ("steps", 2.0, "be a whole number from 1 to 1000000"),
        ("steps", None, "be a whole number from 1 to 1000000"),
        ("seed", -1, "be a whole number from 0 to 4294967295"),
        ("seed", 2**64, "be a whole number from 0 to 4294967295"),
        ("offset", "1", "be a whole number"),
        ("scale", float("-inf"), "be a finite number"),
        ("layers", (0, -1), "be a list in which each entry is a whole number of at least 0"),
        ("layers", 3, "be a list in which each entry is a whole number of at least 0"),
        ("limit", 0, "be a positive number or None"),
        ("variant", "c", "be 'a' or 'b'"),
        ("fast", 1, "be true or false"),
        ("name", 3, "be a text"),
        ("texts", ("a", 1), "be None or a list in which each entry is a text"),
        ("inner", 3, "be a Inner or None"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_declared_range(field, value, phrase):
    with pytest.raises(EditError) as caught:
        Settings(**{field: value})
    assert str(caught.value) == f"{field} must {phrase}; got {value!r}."


@pytest.mark.parametrize(
    "given",
    [
        {"keep": 1},
        {"share": 0},
        {"decay": 0},
        {"steps": 1},
        {"seed": 2**32 - 1},
        {"layers": ()},
        {"limit": 0.1},
        {"texts": ("a",)},
        {"inner": Inner()},
    ],
)
def test_the_ends_of_closed_ranges_and_optional_values_are_allowed(given):
    Settings(**given)


def test_descriptions_and_ranges_can_be_read_for_widgets_and_lists():
    declared = parameters_of(Settings)
    assert list(declared)[:3] == ["keep", "share", "lr"]
    assert declared["lr"].description == "learning rate"
    assert (declared["keep"].kind, declared["keep"].interval) == (float, SHARE)
    assert declared["layers"].item.interval == Interval(0)
    assert declared["variant"].choices == ("a", "b")
