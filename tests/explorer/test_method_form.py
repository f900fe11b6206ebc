"""The fields of every method hold its preset, and take the values that its hyperparameters allow."""

from dataclasses import dataclass
from typing import Annotated

import pytest

import workbench as wb
from tests.tiny_models import build_tiny_lm
from workbench import registry
from workbench.errors import EditError
from workbench.explorer.method_form import MethodForm
from workbench.explorer.session import Session
from workbench.parameters import POSITIVE, SHARE, parameters_of
from workbench.registry import methods
from workbench.rows import MethodRow, SeriesStyle


@pytest.fixture(scope="module")
def session():
    """Give a session with a tiny model; read-only."""
    return Session(build_tiny_lm("llama"))


@pytest.fixture
def form(session):
    """Give the form with the presets of that model."""
    form = MethodForm()
    form.attach(session)
    return form


def field(form, name):
    return form._fields[name][1]


@pytest.mark.parametrize("method", methods())
def test_untouched_fields_give_the_preset(form, session, method):
    form._method.value = method
    chosen, fields = form.read_choice()
    assert chosen == method
    assert len(fields) >= 2
    assert session.editor(method, fields) == session.editor(method)


def test_a_layer_is_there_for_every_method_that_has_one(form):
    shown = {}
    for method in methods():
        form._method.value = method
        shown[method] = {"layer", "layers"} & form._fields.keys()
    assert [name for name, found in shown.items() if not found] == ["kn", "mend", "ultraedit"]


def test_typed_values_replace_those_of_the_preset_until_it_is_restored(form):
    form._method.value = "memit"
    field(form, "layers").value = "0, 2"
    field(form, "v_lr").value = "1e-1"
    assert form.read_choice()[1] | {"layers": (0, 2), "v_lr": 0.1} == form.read_choice()[1]
    form._preset.click()
    assert form.read_choice()[1]["v_lr"] == 0.5


def test_an_empty_field_is_none_where_none_is_allowed(form, session):
    form._method.value = "ft-l"
    field(form, "norm_constraint").value = " "
    assert session.editor(*form.read_choice()).norm_constraint is None


@pytest.mark.parametrize(
    ("method", "name", "text", "sentence"),
    [
        ("rome", "layer", "five", "Layer must be a whole number of at least 0; got 'five'."),
        ("rome", "layer", "", "Layer must be a whole number of at least 0; got ''."),
        ("rome", "v_lr", "fast", "Learning rate must be a positive number; got 'fast'."),
        ("rome", "v_lr", "-1", "Learning rate must be a positive number; got -1.0."),
        ("rome", "v_num_grad_steps", "0", "Steps must be a whole number from 1 to 1000000; got 0."),
        (
            "memit",
            "layers",
            "1; 2",
            "Layers must be a list in which each entry is a whole number of at least 0; got '1; 2'.",
        ),
        ("kn", "p", "most", "p must lie in [0, 1); got 'most'."),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_in_the_declared_sentence(form, method, name, text, sentence):
    form._method.value = method
    field(form, name).value = text
    with pytest.raises(EditError) as caught:
        form.read_choice()
    assert str(caught.value) == sentence


def test_tooltips_name_the_hyperparameter_and_what_it_allows(form, session):
    form._method.value = "rome"
    parameter = parameters_of(wb.ROME)["v_lr"]
    assert parameter.description
    assert field(form, "v_lr").tooltip == f"v_lr: {parameter.description}; must be a positive number"


@dataclass(frozen=True)
class Ones:
    """A method that makes every entry larger."""

    size: Annotated[float, POSITIVE, "what is added to each entry"] = 0.5
    rate: Annotated[float, SHARE] = 1.0
    supports_batch = False
    label = "Ones"

    @classmethod
    def for_model(cls, lm):
        return cls()


def test_a_registered_method_is_offered_with_its_hyperparameters(session, monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    style = SeriesStyle("#123456", "o", "-")
    registry.register_method(MethodRow("ones", "Ones", Ones, style, options={"lr": "rate"}))
    form = MethodForm()
    form.attach(session)
    assert ("Ones", "ones") in form._method.options
    form._method.value = "ones"
    assert [widget.description for widget in form._main.children] == ["Learning rate"]
    assert field(form, "size").tooltip == "size: what is added to each entry; must be a positive number"
    field(form, "rate").value = "2"
    with pytest.raises(EditError) as caught:
        form.read_choice()
    assert str(caught.value) == "Learning rate must lie in (0, 1]; got 2.0."
    field(form, "rate").value = "0.5"
    assert form.read_choice() == ("ones", {"size": 0.5, "rate": 0.5})
