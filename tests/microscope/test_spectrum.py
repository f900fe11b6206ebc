"""Spectra of a sum under regularizers against plain float64 singular values."""

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from tests.microscope.sequences import FACTS, make_sequence
from workbench.errors import EditError
from workbench.microscope.spectrum import PLAIN, compare_spectra, score_sum
from workbench.spectral import PRUNE, SPHERE
from workbench.update import WeightUpdate

REGULARIZERS = (wb.RECT(0.3), PRUNE("linear"), SPHERE(eta=0.3, alpha=0.5))


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda each: each.label)
def test_values_are_those_of_plain_algebra(tiny_lm, regularizer):
    sequence = make_sequence(tiny_lm)
    update, name = sequence.total, tiny_lm.arch.mlp_out_weight(1)
    parameter, table = compare_spectra({PLAIN: update, regularizer.label: regularizer(update, tiny_lm)}, tiny_lm)
    W = tiny_lm.weight(name).double()
    matrices = {("W₀", ""): W}
    for label, version in (("as computed", update), (regularizer.label, regularizer(update, tiny_lm))):
        matrices["ΔW", label] = version.delta(name).double()
        matrices["W_t", label] = W + version.delta(name).double()
    assert parameter == name
    assert set(zip(table["matrix"], table["version"], strict=True)) == set(matrices)
    for (matrix, label), M in matrices.items():
        rows = table[(table["matrix"] == matrix) & (table["version"] == label)]
        values = torch.linalg.svdvals(M)
        kept = values[values > values[0] * 1e-6]
        assert rows["index"].tolist() == list(range(1, len(rows) + 1))
        assert rows["value"].to_numpy() == pytest.approx(kept.numpy()[: len(rows)], rel=1e-4)
        assert abs(len(rows) - len(kept)) <= 1  # a value at the limit


def test_prune_restrains_what_is_above_the_largest_value_of_the_weights(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    largest = float(torch.linalg.svdvals(tiny_lm.weight(name).double())[0])
    update = make_sequence(tiny_lm).total
    long = WeightUpdate({name: update.delta(name) * 9 * largest / torch.linalg.svdvals(update.delta(name))[0]})
    _, table = compare_spectra({PLAIN: long, "PRUNE": PRUNE("linear")(long, tiny_lm)}, tiny_lm)
    top = table[(table["matrix"] == "ΔW") & (table["index"] == 1)].set_index("version")["value"]
    assert top["as computed"] == pytest.approx(9 * largest, rel=1e-4)
    assert top["PRUNE"] == pytest.approx(5 * largest, rel=1e-4)


def test_scores_are_those_of_the_model_with_the_regularized_sum(tiny_lm):
    update, rect = make_sequence(tiny_lm).total, wb.RECT(0.3)
    for version in (update, rect(update, tiny_lm)):
        found = score_sum(version, tiny_lm, FACTS[:3]).set_index("metric")
        before = wb.perplexity(tiny_lm, window=32, limit=8)["value"].item()
        with version.applied(tiny_lm):
            scores = wb.evaluate_edits(tiny_lm, FACTS[:3], protocols=["teacher_forced"]).set_index("metric")
            after = wb.perplexity(tiny_lm, window=32, limit=8)["value"].item()
        assert found.loc["reliability", "value"] == pytest.approx(scores.loc["reliability", "value"])
        assert found.loc["perplexity", "value"] == pytest.approx(after / before, rel=1e-4)
        assert found.loc["norm", "value"] == pytest.approx(version.norm())
        assert found["n"].tolist() == [3, 0, 0, 0]
    assert tiny_lm.applied_updates == ()


def test_what_has_no_spectrum_is_refused(tiny_lm):
    update, name = make_sequence(tiny_lm, 1).total, tiny_lm.arch.mlp_out_weight(1)
    assert (
        error_of(EditError, compare_spectra, {PLAIN: WeightUpdate({})}, tiny_lm)
        == "there is no edit yet; make one first."
    )
    assert error_of(EditError, compare_spectra, {PLAIN: update}, tiny_lm, name="x") == (
        f"the edits do not change 'x'; they change {name}."
    )
    with update.applied(tiny_lm):
        assert error_of(EditError, score_sum, update, tiny_lm, FACTS[:1]) == (
            f"an update is applied to {tiny_lm.name}; undo it before looking at its spectrum."
        )
