"""Values of wrong types and out of range, at every border of the Python API: one sentence each, and none accepted."""

import datetime

import pytest
import torch

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.parameters import parameters_of
from workbench.registry import methods, regularizers

NO_NUMBERS = [float("nan"), float("inf"), -float("inf"), 2**1100, "text", "", "1", [], {}, {1}, b"x", True, ...]
NO_TEXTS = [float("nan"), 0, 2**64, True, [], {}, {1}, (), b"x", datetime.date(2020, 1, 1), ..., "\ud800"]
NO_PATHS = [*NO_TEXTS, "", "  ", "a\0b"]
FACT = {"subject": "A", "prompt": "{} is", "target_new": "B"}
SIMPLE = (int, float)


def shown(value):
    return ascii(value)[:30]


def refused(make, *args, **fields):
    """Return the sentence with which a call is refused."""
    with pytest.raises(WorkbenchError) as caught:
        make(*args, **fields)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


HYPERPARAMETERS = [
    (row.name, name)
    for row in methods().values()
    for name, parameter in parameters_of(row.editor).items()
    if parameter.kind in SIMPLE and not parameter.choices
]


@pytest.mark.parametrize(("method", "name"), HYPERPARAMETERS)
def test_a_spec_refuses_what_is_no_number(method, name):
    for value in NO_NUMBERS:
        sentence = refused(wb.ExperimentSpec, method=method, n_operations=1, hyperparameters={name: value})
        assert name in sentence, value


def test_every_method_has_numbers_that_are_checked():
    assert {method for method, _ in HYPERPARAMETERS} == methods().keys()


@pytest.mark.parametrize("name", ["batch_size", "n_operations", "seed", "assessed"])
@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, 2**64, 1.5], ids=shown)
def test_a_spec_refuses_numbers_that_are_none_or_out_of_range(name, value):
    assert refused(wb.ExperimentSpec, **{"n_operations": 1, name: value}).startswith(name)


@pytest.mark.parametrize("value", NO_PATHS, ids=shown)
def test_whatever_names_a_model_facts_or_files_must_be_a_name(value):
    refused(wb.load, value)
    refused(wb.load_facts, value)
    refused(wb.Store, value)
    refused(wb.WeightUpdate.load, value)
    refused(wb.ExperimentSpec, n_operations=1, model=value)


@pytest.mark.parametrize("name", ["subject", "prompt", "target_new", "target_true", "relation"])
@pytest.mark.parametrize("value", NO_TEXTS, ids=shown)
def test_a_fact_consists_of_texts(name, value):
    assert refused(wb.EditRequest, **{**FACT, name: value}).startswith(name)


@pytest.mark.parametrize("name", ["rephrase", "locality", "portability"])
@pytest.mark.parametrize("value", [None, 1, "text", b"x", {}, {"a"}, [1], [None], ..., [b"x"]], ids=shown)
def test_lists_of_a_fact_hold_what_they_should(name, value):
    assert name in refused(wb.EditRequest, **{**FACT, name: value})


@pytest.mark.parametrize("value", NO_TEXTS, ids=shown)
def test_probes_consist_of_texts(value):
    refused(wb.LocalityProbe, value, "B")
    refused(wb.LocalityProbe, "A", value)
    refused(wb.PortabilityProbe, "A", "B", aliases=(value,))


@pytest.mark.parametrize(
    "changes",
    [
        None,
        [],
        "text",
        {"w": 1},
        {"w": None},
        {1: torch.ones(2, 2)},
        {"w": torch.ones(2, 2, dtype=torch.complex64)},
        {"w": torch.ones(2, 2, dtype=torch.int64)},
    ],
    ids=shown,
)
def test_an_update_maps_names_to_real_changes(changes):
    refused(wb.WeightUpdate, changes)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=shown)
def test_a_regularizer_refuses_what_is_no_number(value):
    tried = 0
    for row in regularizers().values():
        for name, parameter in parameters_of(row.regularizer).items():
            if parameter.kind in SIMPLE:
                tried += 1
                assert name in refused(row.regularizer, **{name: value})
                refused(wb.ExperimentSpec, n_operations=1, regularizer={"kind": row.kind, name: value})
    assert tried > 4
