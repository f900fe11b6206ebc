"""Held-out text in one pass, against `wb.perplexity` and the distributions of the model's own forward pass."""

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from workbench.changes import LowRank
from workbench.errors import SpecError
from workbench.evaluation.perplexity import read_windows
from workbench.microscope.held_out import measure_held_out
from workbench.update import WeightUpdate


def update_of(lm, size=0.3):
    name = lm.arch.mlp_out_weight(1)
    rows, cols = lm.weight(name).shape
    generator = torch.Generator().manual_seed(0)
    return WeightUpdate(
        {name: LowRank(*(size * torch.randn(n, 2, generator=generator) for n in (rows, cols)))},
    )


def log_probs_of(lm, row):
    with torch.no_grad():
        return lm.model(torch.tensor([row])).logits[0].double().log_softmax(dim=-1)


def test_perplexity_is_that_of_the_usual_function_on_the_same_windows(tiny_lm):
    before = wb.perplexity(tiny_lm, window=16, limit=3)["value"].item()
    with update_of(tiny_lm).applied(tiny_lm):
        found = measure_held_out(tiny_lm, windows=3, window=16)
        after = wb.perplexity(tiny_lm, window=16, limit=3)["value"].item()
    assert found.unedited == pytest.approx(before, rel=1e-5)
    assert found.perplexity == pytest.approx(after, rel=1e-5)
    assert found.factor == pytest.approx(after / before, rel=1e-5)
    assert abs(found.factor - 1) > 1e-3


def test_kl_is_that_of_the_last_eight_predictions_of_each_window(tiny_lm):
    rows = read_windows(tiny_lm, "bundled", window=16, limit=3)
    update, wanted = update_of(tiny_lm), []
    for row in rows:
        p = log_probs_of(tiny_lm, row)
        with update.applied(tiny_lm):
            q = log_probs_of(tiny_lm, row)
        wanted.append((p.exp() * (p - q)).sum(dim=-1)[:-1][-8:])
    with update.applied(tiny_lm):
        found = measure_held_out(tiny_lm, windows=3, window=16)
    assert found.kl == pytest.approx(float(torch.cat(wanted).mean()), rel=1e-3)
    assert found.kl > 1e-4


def test_the_unedited_model_is_at_one_and_zero_whatever_was_measured_before(tiny_lm):
    with update_of(tiny_lm).applied(tiny_lm):
        measure_held_out(tiny_lm, windows=2, window=8)
    found = measure_held_out(tiny_lm, windows=2, window=8)
    assert (found.factor, found.kl) == (1, 0)


def test_a_window_of_one_token_is_refused(tiny_lm):
    assert error_of(SpecError, measure_held_out, tiny_lm, window=1) == (
        f"window must lie in 2 to 512, what {tiny_lm.name} takes; got 1."
    )
