"""The code of the tutorial on extending runs as written and does what the page says."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, weights_of
from tests.pages import code_blocks
from workbench import registry
from workbench.encoding import encode

PAGE = Path(__file__).parent.parent / "docs" / "tutorials" / "extend.md"
REQUEST = wb.EditRequest(
    "Edith Piaf",
    "The mother tongue of {} is",
    "English",
    locality=(wb.LocalityProbe(prompt="The mother tongue of Goethe is", target="German"),),
)


@pytest.fixture
def names(tiny_lm, monkeypatch) -> dict:
    """Return the names that are defined when the whole page has been run."""
    for rows in ("_METHODS", "_REGULARIZERS"):  # what the page registers is forgotten after the test
        monkeypatch.setattr(registry, rows, dict(getattr(registry, rows)))
    found = {"lm": tiny_lm, "request": REQUEST, "__name__": "extending"}
    for block in code_blocks(PAGE, "python"):
        exec(compile(block, PAGE.name, "exec"), found)
    return found


def nll(lm) -> float:
    text = encode(lm.tokenizer, REQUEST.filled_prompt, REQUEST.target_new)
    logits = lm.model(torch.tensor([text.ids])).logits[0].log_softmax(-1)
    return -sum(float(logits[i - 1, text.ids[i]]) for i in range(text.n_prompt, len(text.ids)))


def test_the_regularizer_bounds_every_entry_and_leaves_the_small_ones(names, tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    dW = torch.randn(tiny_lm.weight(name).shape, generator=torch.Generator().manual_seed(0))
    bound = 0.5 * float(tiny_lm.weight(name).square().mean().sqrt())
    clipped = names["Clip"](0.5)(wb.WeightUpdate({name: dW}), tiny_lm).delta(name)
    assert float(clipped.abs().max()) == pytest.approx(bound)
    small = dW.abs() < bound
    assert torch.equal(clipped[small], dW[small])


def test_the_method_lowers_the_targets_nll_and_leaves_the_model(names, tiny_lm):
    weights = weights_of(tiny_lm)
    update = names["GradientStep"].for_model(tiny_lm).compute_update(tiny_lm, [REQUEST])
    assert_same_bits(tiny_lm, weights)
    before = nll(tiny_lm)
    with update.applied(tiny_lm):
        assert nll(tiny_lm) < before


def test_the_pages_example_measures_the_edit_and_a_task(names):
    assert set(names["scores"]["metric"]) == {"reliability", "locality"}
    assert set(names["tasks"]["task"]) == {"nli"}


def test_the_rows_make_both_known_by_name(names, tiny_lm):
    assert registry.make_editor("gradient-step", tiny_lm) == names["GradientStep"].for_model(tiny_lm)
    assert names["spec"].make_regularizer() == names["Clip"](0.5)


def test_the_update_can_be_saved_and_computed_again_from_its_record(names, tiny_lm, tmp_path):
    editor = names["GradientStep"].for_model(tiny_lm)
    update = names["Clip"]()(editor.compute_update(tiny_lm, [REQUEST]), tiny_lm)
    update.save(tmp_path / "update.safetensors")
    [record] = wb.WeightUpdate.load(tmp_path / "update.safetensors").records
    again = names["GradientStep"](**record.hyperparameters).compute_update(tiny_lm, list(record.requests))
    assert record.regularizer == {"kind": "Clip", "share": 0.5}
    assert record.steps == (1,)
    (name,) = update
    assert torch.equal(names["Clip"]()(again, tiny_lm).delta(name), update.delta(name))
