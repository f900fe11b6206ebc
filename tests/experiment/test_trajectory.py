"""The columns of each operation: steps for every method, norms against dense algebra, and states in memory."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.editing.rome import ROME
from workbench.experiment.models import load_model
from workbench.experiment.runner import read_updates, run
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.registry import methods
from workbench.weightstats import spectral_ratio

CONTEXTS = {"contexts": ["{}"]}
# hyperparameters, facts per operation, and optimization steps per operation; None where nothing is optimized
CASES = {
    "rome": (CONTEXTS | {"v_num_grad_steps": 3}, 1, 3),
    "r-rome": (CONTEXTS | {"v_num_grad_steps": 4}, 1, 4),
    "memit": (CONTEXTS | {"v_num_grad_steps": 5, "second_moment": {"n_tokens": 512}}, 2, 5),
    "memit-seq": (CONTEXTS | {"v_num_grad_steps": 4, "second_moment": {"n_tokens": 512}}, 2, 4),
    "encore": (CONTEXTS | {"v_num_grad_steps": 3, "second_moment": {"n_tokens": 512}}, 2, 3),
    "alphaedit": (CONTEXTS | {"v_num_grad_steps": 2, "second_moment": {"n_tokens": 512}, "null_energy": 0.9}, 2, 2),
    "emmet": (CONTEXTS | {"v_num_grad_steps": 3, "second_moment": {"n_tokens": 512}}, 2, 3),
    "kn": (CONTEXTS, 1, None),
    "mend": ({}, 2, None),
    "ft": ({"num_steps": 6}, 2, 6),
    "ft-l": ({"num_steps": 7}, 1, 7),
    "locft-bf": ({"num_steps": 5}, 2, 5),
    "ultraedit": ({}, 2, None),
    "lora": ({"num_steps": 4, "loss_threshold": 0.0}, 2, 4),
}


@pytest.fixture
def make_spec(tiny, tmp_path):
    """Give a function from a method to a spec of two operations; the network of MEND is untrained."""

    def make(method, **fields):
        hyperparameters, batch_size, _ = CASES[method]
        if method == "mend":
            lm = load_model(tiny)
            network = MendNetwork.untrained(lm, weights_to_edit(lm), rank=4, edit_lr=0.01)
            hyperparameters = {"network": str(save_network(network, tmp_path / "mend.safetensors", lm))}
        given = {"model": tiny, "method": method, "hyperparameters": hyperparameters, "batch_size": batch_size}
        return ExperimentSpec(**{**given, "n_operations": 2, "tasks": None, "perplexity": None, **fields})

    return make


@pytest.mark.parametrize("method", methods())
def test_steps_are_those_of_the_optimizations(make_spec, tmp_path, own_cache, method):
    run(make_spec(method), store=tmp_path / "store")
    operations = Store(tmp_path / "store").operations()
    assert operations["failed"].isna().all()
    steps = CASES[method][2]
    assert operations["steps"].isna().all() if steps is None else operations["steps"].tolist() == [steps, steps]


def test_steps_of_a_batch_are_the_mean_over_its_optimizations(make_spec, tmp_path, monkeypatch):
    compute = ROME.compute_update

    def optimized_twice(self, lm, requests):
        update = compute(self, lm, requests)
        return replace(update, records=(replace(update.records[0], losses=((2.0, 1.0), (3.0, 2.0, 1.0))),))

    monkeypatch.setattr(ROME, "compute_update", optimized_twice)
    run(make_spec("rome"), store=tmp_path)
    assert Store(tmp_path).operations()["steps"].tolist() == [2.5, 2.5]


def test_norms_are_relative_to_the_weights_that_an_edit_is_added_to(make_spec, tiny, tmp_path):
    spec = make_spec("rome", checkpoints=[1, 2], regularizer={"kind": "RECT", "keep": 0.4})
    run(spec, store=tmp_path)
    rows, sums, lm = Store(tmp_path).operations().set_index("operation"), read_updates(spec, tmp_path), load_model(tiny)
    [name] = sums[2]
    W, first, second = lm.weight(name).double(), sums[1].delta(name).double(), sums[2].delta(name).double()
    with sums[1].applied(lm):
        computed = spec.make_editor(lm).compute_update(lm, list(wb.load_facts().sample(2, seed=0)[1:])).delta(name)
    assert rows.loc[1, "applied_norm"] == pytest.approx(float(first.norm()), rel=1e-6)
    assert rows.loc[2, "applied_norm"] == pytest.approx(float((second - first).norm()), rel=1e-4)
    assert rows.loc[2, "norm"] == pytest.approx(float(computed.double().norm()), rel=1e-4)
    assert rows["share_applied"].tolist() == [round(0.4 * W.numel()) / W.numel()] * 2
    assert rows.loc[2, "relative_norm"] == pytest.approx(rows.loc[2, "norm"] / float((W + first).norm()), rel=1e-6)


def test_an_edit_that_is_not_finite_is_recorded_and_not_added(make_spec, tmp_path, monkeypatch):
    compute = ROME.compute_update

    def diverging(self, lm, requests):
        update = compute(self, lm, requests)
        return wb.WeightUpdate({name: torch.full_like(lm.weight(name), torch.inf) for name in update}, update.records)

    monkeypatch.setattr(ROME, "compute_update", diverging)
    spec = make_spec("rome")
    run(spec, store=tmp_path)
    operations = Store(tmp_path).operations()
    assert operations["failed"].str.endswith("is not finite; milder hyperparameters may help.").all()
    assert operations[["norm", "relative_norm", "applied_norm", "steps"]].isna().all(axis=None)
    assert read_updates(spec, tmp_path) == {}


def test_a_sequence_with_a_failed_edit_equals_the_one_without_it(make_spec, tiny, tmp_path, monkeypatch):
    compute, facts = ROME.compute_update, wb.load_facts().sample(3, seed=0)

    def failing(self, lm, requests):
        if requests[0] == facts[0]:
            raise torch.linalg.LinAlgError("the second moment is singular")
        return compute(self, lm, requests)

    monkeypatch.setattr(ROME, "compute_update", failing)
    spec = make_spec("rome", n_operations=3, checkpoints=[1, 2, 3])
    run(spec, store=tmp_path)
    assert list(read_updates(spec, tmp_path)) == [2, 3]
    monkeypatch.undo()
    lm, sequence = load_model(tiny), wb.EditSequence(load_model(tiny))
    for request in facts[1:]:
        sequence.edit([request], spec.make_editor(lm))
    total = read_updates(spec, tmp_path)[3]
    assert all(torch.equal(total.delta(name), sequence.total.delta(name)) for name in sequence.total)
    assert pd.isna(Store(tmp_path).operations()["norm"].iloc[0])


def test_an_edit_whose_file_is_missing_is_computed_again(make_spec, tmp_path):
    run(make_spec("rome"), store=tmp_path)
    whole = read_updates(make_spec("rome"), tmp_path)[2]
    for path in [*(tmp_path / "edits").glob("*.safetensors"), *(tmp_path / "trajectories").iterdir()]:
        path.unlink()
    run(make_spec("rome"), store=tmp_path)
    assert len(list((tmp_path / "edits").glob("*.safetensors"))) == 2
    again = read_updates(make_spec("rome"), tmp_path)[2]
    assert all(torch.equal(again.delta(name), whole.delta(name)) for name in whole)


def test_perplexity_after_every_operation_is_that_of_the_model_then(make_spec, tiny, tmp_path):
    spec = make_spec("rome", perplexity={"window": 32, "limit": 1, "each": 3}, n_operations=3, checkpoints=[3])
    run(spec, store=tmp_path / "store")
    rows = Store(tmp_path / "store").operations()
    lm = load_model(tiny)
    assert rows["perplexity_unedited"].tolist() == [wb.perplexity(lm, window=32, limit=3)["value"].item()] * 3
    total = read_updates(spec, tmp_path / "store")[3]
    with total.applied(lm):
        last = wb.perplexity(lm, window=32, limit=3)["value"].item()
    assert rows["perplexity"].iloc[-1] == pytest.approx(last, rel=1e-6)
    assert rows["perplexity"].nunique() == 3


def test_perplexity_after_every_operation_is_measured_on_request_only(make_spec, tmp_path):
    run(make_spec("rome"), store=tmp_path / "store")
    assert Store(tmp_path / "store").operations()["perplexity"].isna().all()


def test_the_spectral_ratio_of_an_operation_is_that_of_its_update(make_spec, tiny, tmp_path):
    spec = make_spec("rome", n_operations=1)
    run(spec, store=tmp_path / "store")
    [row] = Store(tmp_path / "store").operations().to_dict("records")
    [update] = read_updates(spec, tmp_path / "store").values()
    assert row["spectral_ratio"] == pytest.approx(spectral_ratio(update, load_model(tiny)), rel=1e-5)
    assert row["first_token"] in (True, False)


@pytest.mark.parametrize("feed_back", [False, True])
def test_the_sum_of_edits_is_regularized_at_every_checkpoint(make_spec, tiny, tmp_path, feed_back):
    half = {"kind": "RECT", "keep": 0.5}
    sizes = {"n_operations": 3, "checkpoints": [0, 1, 2, 3]}
    plain, spec = make_spec("rome", **sizes), make_spec("rome", accumulated=half, feed_back=feed_back, **sizes)
    run([plain, spec], store=tmp_path)
    lm = load_model(tiny)
    sequence = wb.EditSequence(lm, accumulated=wb.RECT(keep=0.5), feed_back=feed_back)
    for operation, request in enumerate(wb.load_facts().sample(3, seed=0), start=1):
        sequence.edit([request], spec.make_editor(lm))
        total = read_updates(spec, tmp_path)[operation]
        assert all(torch.equal(total.delta(name), sequence.total.delta(name)) for name in sequence.total)
    # the same edits on the same models are computed once
    assert len(list((tmp_path / "edits").glob("*.safetensors"))) == (5 if feed_back else 3)


def test_scores_after_an_edit_are_of_the_model_with_the_regularized_sum(make_spec, tiny, tmp_path):
    spec = make_spec("rome", accumulated={"kind": "RECT", "keep": 0.2}, n_operations=2)
    table = run(spec, store=tmp_path)
    assert set(table["regularizer"]) == {"RECT 20 % of the sum"}
    lm, facts = load_model(tiny), wb.load_facts().sample(2, seed=0)
    with read_updates(spec, tmp_path)[2].applied(lm):
        wanted = wb.score_edits(lm, [facts[1]])
    scores = Store(tmp_path).scores()
    found = scores[(scores["moment"] == "after_edit") & (scores["operation"] == 2) & (scores["example"] == 1)]
    by = ["metric", "protocol"]
    assert found.set_index(by)["value"].to_dict() == wanted.set_index(by)["value"].to_dict()
