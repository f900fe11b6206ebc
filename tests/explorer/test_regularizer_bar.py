"""The bar offers every regularizer, and a share to keep where it has one."""

from dataclasses import dataclass

import pytest

import workbench as wb
from workbench import registry
from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.registry import regularizer_row, regularizers
from workbench.rows import RegularizerRow


@dataclass(frozen=True)
class Halve:
    """A regularizer that keeps no share."""

    label = "Halve"

    def __call__(self, update, lm):
        return update


@pytest.fixture
def changes() -> list:
    """Give a list with one entry per call of `on_change`."""
    return []


@pytest.fixture
def bar(changes) -> RegularizerBar:
    """Give the bar."""
    return RegularizerBar("Each edit", lambda: changes.append(1))


@pytest.mark.parametrize("name", regularizers())
def test_every_regularizer_can_be_chosen_and_shown(bar, changes, name):
    cls = regularizer_row(name).regularizer
    bar._kind.value = name
    has_keep = "keep" in cls.__dataclass_fields__
    assert bar.read_choice() == (name, 0.4 if has_keep else None)
    bar._kind.value = "none"
    assert len(changes) == (0 if name == "none" else 2)
    changes.clear()
    bar.set(cls(keep=0.25) if has_keep else cls())
    assert bar.read_choice() == (name, 0.25 if has_keep else None)
    assert changes == []


def test_tooltips_are_the_descriptions_of_the_rows(bar):
    assert list(bar._kind.tooltips) == [row.description for row in regularizers().values()]


def test_a_registered_regularizer_is_offered(monkeypatch):
    monkeypatch.setattr(registry, "_REGULARIZERS", dict(registry._REGULARIZERS))
    registry.register_regularizer(RegularizerRow("halve", "Halve", Halve, "Halve every entry"))
    bar = RegularizerBar("Each edit", lambda: None)
    assert ("Halve", "halve") in bar._kind.options
    bar.set(wb.RECT(0.2))
    bar._kind.value = "halve"
    assert bar.read_choice() == ("halve", None)
