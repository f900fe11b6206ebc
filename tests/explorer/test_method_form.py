"""The fields of every method hold its preset, and give it back."""

import pytest

from tests.tiny_models import build_tiny_lm
from workbench.errors import EditError
from workbench.explorer.method_form import MethodForm
from workbench.explorer.session import Session
from workbench.registry import METHODS


@pytest.fixture(scope="module")
def session():
    """Give a session of a tiny model; read-only."""
    return Session(build_tiny_lm("llama"))


@pytest.fixture
def form(session):
    """Give the form with the presets of that model."""
    form = MethodForm()
    form.attach(session)
    return form


def field(form, name):
    return form._fields[name][1]


@pytest.mark.parametrize("method", METHODS)
def test_untouched_fields_give_the_preset(form, session, method):
    form._method.value = method
    chosen, fields = form.chosen()
    assert chosen == method
    assert len(fields) >= 2
    assert session.editor(method, fields) == session.editor(method)


def test_a_layer_is_there_for_every_method_that_has_one(form):
    shown = {}
    for method in METHODS:
        form._method.value = method
        shown[method] = {"layer", "layers"} & form._fields.keys()
    assert [name for name, found in shown.items() if not found] == ["kn", "mend"]


def test_what_is_typed_wins_over_the_preset_until_another_is_chosen(form):
    form._method.value = "memit"
    field(form, "layers").value = "0, 2"
    field(form, "v_lr").value = "1e-1"
    assert form.chosen()[1] | {"layers": (0, 2), "v_lr": 0.1} == form.chosen()[1]
    form._preset.click()
    assert form.chosen()[1]["v_lr"] == 0.5


def test_an_empty_field_is_none_where_none_is_allowed(form, session):
    form._method.value = "ft-l"
    field(form, "norm_constraint").value = " "
    assert session.editor(*form.chosen()).norm_constraint is None


@pytest.mark.parametrize(
    ("method", "name", "text", "sentence"),
    [
        ("rome", "layer", "five", "Layer must be a whole number; got 'five'."),
        ("rome", "layer", "", "Layer must be a whole number; got ''."),
        ("rome", "v_lr", "fast", "Learning rate must be a number; got 'fast'."),
        ("memit", "layers", "1; 2", "Layers must be whole numbers with commas between them; got '1; 2'."),
        ("kn", "p", "most", "p must be a number; got 'most'."),
    ],
)
def test_text_of_another_type_is_refused_by_the_fields_name(form, method, name, text, sentence):
    form._method.value = method
    field(form, name).value = text
    with pytest.raises(EditError) as caught:
        form.chosen()
    assert str(caught.value) == sentence
