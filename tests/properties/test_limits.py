"""Every field's declared limits: what is drawn inside them is accepted, everything else refused by the field's name."""

import dataclasses
import math

import annotated_types
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from tests.editing.test_declared_limits import CLASSES, is_protocol, make
from tests.properties.mutations import anything
from tests.properties.outcomes import check_sentence, outcome_of
from tests.properties.profiles import examples
from workbench.errors import EditError, SpecError
from workbench.experiment.spec import DriftSpec, FactsSpec, GuardSpec, PerplexitySpec, TasksSpec
from workbench.parameters import parameters_of

SPECS = (wb.ExperimentSpec, FactsSpec, TasksSpec, PerplexitySpec, DriftSpec, GuardSpec)
REQUIRED = {wb.ExperimentSpec: {"n_operations": 3}}


def inside(parameter):
    """Return a strategy of the values that a declaration allows."""
    interval, low, high = parameter.interval, parameter.interval.low, parameter.interval.high
    if parameter.item is not None:
        values = st.lists(inside(parameter.item), min_size=1, max_size=3).map(tuple)
    elif parameter.choices:
        values = st.sampled_from(parameter.choices)
    elif parameter.kind is int:
        ends = [None if math.isinf(end) else int(end) for end in (low, high)]
        values = st.integers(*ends).filter(lambda value: abs(value) < 2**1000 and value in interval)
    elif parameter.kind is float:
        ends = [None if math.isinf(end) else end for end in (low, high)]
        values = st.floats(*ends, allow_nan=False, allow_infinity=False).filter(lambda value: value in interval)
    else:
        values = st.booleans() if parameter.kind is bool else st.text(max_size=10)
    return st.one_of(st.none(), values) if parameter.optional else values


def plain_parameters(cls):
    """Return the fields whose type says all: numbers, texts, choices, switches and lists of them."""
    declared = parameters_of(cls).values()
    return [each for each in declared if (each.item or each).kind in (int, float, bool, str)]


WITH_FIELDS = [cls for cls in CLASSES if plain_parameters(cls)]


@pytest.mark.parametrize("cls", WITH_FIELDS, ids=lambda cls: cls.__name__)
@examples(few=20)
@given(data=st.data())
def test_what_lies_inside_the_limits_is_accepted(cls, data):
    parameter = data.draw(st.sampled_from(plain_parameters(cls)))
    value = data.draw(inside(parameter))
    parameter.check(value)
    made, sentence = outcome_of(dataclasses.replace, make(cls), **{parameter.name: value})
    if sentence is not None:  # a rule about several fields, which names them
        assert parameter.name in sentence
        assert f"must {parameter.phrase}; got" not in sentence
    else:  # methods sort the blocks that they edit and name each once
        expected = tuple(sorted(set(value))) if parameter.name == "layers" and value else value
        assert getattr(made, parameter.name) == expected


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if parameters_of(cls)], ids=lambda cls: cls.__name__)
@examples(few=20)
@given(data=st.data())
def test_what_lies_outside_the_limits_is_refused_by_the_name_of_the_field(cls, data):
    declared = [each for each in parameters_of(cls).values() if not is_protocol(each.kind)]
    parameter, value = data.draw(st.sampled_from(declared)), data.draw(anything)
    as_given = tuple(value) if parameter.item and isinstance(value, list) else value  # methods take lists
    if value == {} and dataclasses.is_dataclass(parameter.kind):  # and mappings of the fields of settings
        as_given = parameter.kind()
    _, sentence = outcome_of(parameter.check, as_given)
    if sentence is not None:
        assert sentence.startswith(f"{parameter.name} must ")
        with pytest.raises(EditError, match=parameter.name):
            dataclasses.replace(make(cls), **{parameter.name: value})


def range_of(field):
    """Return the least and the largest whole number of a field of a spec; None if it is no number."""
    if field.annotation not in (int, int | None):
        return None
    low = next((rule.ge for rule in field.metadata if isinstance(rule, annotated_types.Ge)), None)
    high = next((rule.le for rule in field.metadata if isinstance(rule, annotated_types.Le)), None)
    return low, high


NUMBERS = [(cls, name) for cls in SPECS for name, field in cls.model_fields.items() if range_of(field) is not None]


def test_every_number_of_a_spec_has_a_declared_range():
    assert len(NUMBERS) > 8
    for cls, name in NUMBERS:
        assert None not in range_of(cls.model_fields[name]), f"{cls.__name__}.{name}"


@pytest.mark.parametrize(("cls", "name"), NUMBERS, ids=lambda part: getattr(part, "__name__", part))
@examples(few=15)
@given(data=st.data())
def test_numbers_of_a_spec_are_accepted_inside_their_range_only(cls, name, data):
    low, high = range_of(cls.model_fields[name])
    value = data.draw(st.one_of(st.integers(low, high), anything))
    fields = {**REQUIRED.get(cls, {}), name: value}
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_optional = cls.model_fields[name].annotation is not int
    if (is_whole and low <= value <= high) or (value is None and is_optional):
        made, sentence = outcome_of(cls, **fields)
        if sentence is None:
            assert getattr(made, name) in (value, None)
        else:  # several facts per operation need a method that takes them
            assert name == "batch_size"
            assert "edits one fact per operation" in sentence
    else:
        with pytest.raises(SpecError, match=name):
            cls(**fields)


@pytest.mark.parametrize("cls", SPECS, ids=lambda cls: cls.__name__)
@examples(few=40)
@given(data=st.data())
def test_no_value_of_a_spec_makes_another_error(cls, data):
    name, value = data.draw(st.sampled_from([*cls.model_fields, "unknown"])), data.draw(anything)
    spec, sentence = outcome_of(cls, **{**REQUIRED.get(cls, {}), name: value})
    if sentence is None:
        assert cls(**spec.model_dump()) == spec
    else:
        check_sentence(sentence)
