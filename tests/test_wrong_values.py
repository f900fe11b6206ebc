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


NOT_MODELS = [{}, "", 7, None]


@pytest.mark.parametrize("value", NOT_MODELS, ids=shown)
def test_what_takes_a_model_takes_nothing_else(value):
    assert refused(wb.ROME.for_model, value).startswith("lm must be a LanguageModel")
    assert refused(wb.RECT(0.4), wb.WeightUpdate({}), value).startswith("lm must be a LanguageModel")
    assert refused(wb.evaluate_harness, value, ["sst2"]).startswith("lm must be a LanguageModel")


@pytest.mark.parametrize("value", [[], int, {}, None], ids=shown)
def test_what_takes_an_update_takes_nothing_else(value):
    assert refused(wb.RECT(0.4), value, None).startswith("update must be a WeightUpdate")
    assert refused(lambda: wb.WeightUpdate({}) + value).startswith("other must be a WeightUpdate")


@pytest.mark.parametrize("value", [{}, b"x", "\ud800", "a\0b", 7], ids=shown)
def test_an_update_and_a_sequence_are_saved_under_names_only(value, tiny_lm):
    refused(wb.WeightUpdate({}).save, value)
    refused(wb.EditSequence(tiny_lm).save, value)


@pytest.mark.parametrize("value", [0, torch.zeros(2), None, "rome"], ids=shown)
def test_a_sequence_edits_by_methods_only(value, tiny_lm):
    fact = wb.EditRequest(**FACT)
    assert refused(wb.EditSequence(tiny_lm).edit, [fact], value).startswith("method must be an editing method")


def test_a_guard_and_a_grid_refuse_what_they_cannot_use():
    for limit in (torch.ones(2), "0.2", 0, -1, float("nan"), None):
        assert refused(wb.Guard, limit=limit).startswith("limit must be a positive number")
    for repairs in (float("nan"), "prune", 3j, [1]):
        assert "repairs" in refused(wb.Guard, repairs=repairs)
    for lists in (b"", "\ud800", 7, [("seed", [0])]):
        assert refused(wb.grid, {"n_operations": 1}, lists).startswith("lists must be a")
