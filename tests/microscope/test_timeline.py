"""Timelines against sequences, stored trajectories and the model's own forward pass."""

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, ids_of, weights_of
from tests.microscope.sequences import FACTS, make_sequence
from tests.tiny_models import build_tiny_lm
from workbench.errors import EditError, RunError
from workbench.evaluation.tasks import TASKS
from workbench.experiment.models import load_model
from workbench.experiment.runner import read_updates
from workbench.microscope.timeline import read_timeline, timeline_of, unregularized_timeline_of

SUMS = {
    "plain": {},
    "of the sum": {"accumulated": wb.RECT(0.3)},
    "fed back": {"accumulated": wb.RECT(0.3), "feed_back": True},
    "of each": {"regularizer": wb.RECT(0.5)},
}


@pytest.mark.parametrize("fields", SUMS.values(), ids=SUMS)
def test_every_sum_has_the_bits_of_the_sequence_in_whatever_order_one_looks(tiny_lm, fields):
    sequence = make_sequence(tiny_lm, **fields)
    timeline = timeline_of(sequence)
    assert len(timeline) == 3
    for t in (2, 3, 0, 1, 2):
        total, wanted = timeline.total(t), sequence.total_after(t)
        assert list(total) == list(wanted)
        for name in wanted:
            assert torch.equal(total.delta(name), wanted.delta(name))


def test_a_state_is_the_model_with_the_first_edits_and_leaves_no_trace(tiny_lm):
    sequence, weights = make_sequence(tiny_lm), weights_of(tiny_lm)
    timeline = timeline_of(sequence)
    with sequence.applied(upto=2):
        wanted = weights_of(tiny_lm)
    with timeline.state(2):
        assert_same_bits(tiny_lm, wanted)
    assert_same_bits(tiny_lm, weights)
    with timeline.state(0):
        assert tiny_lm.applied_updates == ()


def test_measures_are_those_of_the_model_in_that_state(tiny_lm):
    sequence = make_sequence(tiny_lm)
    found = timeline_of(sequence).measure(2)
    with sequence.applied(upto=2):
        perplexity = wb.perplexity(tiny_lm, window=32, limit=8)["value"].item()
        hits, answers = [], []
        for fact in FACTS[:2]:
            prompt = ids_of(tiny_lm, fact.filled_prompt)
            ids = ids_of(tiny_lm, f"{fact.filled_prompt} {fact.target_new}")
            with torch.no_grad():
                argmax = tiny_lm.model(torch.tensor([ids])).logits[0].argmax(dim=-1).tolist()
            hits.append([a == b for a, b in zip(argmax[len(prompt) - 1 :], ids[len(prompt) :], strict=False)])
            answers.append(tiny_lm.tokenizer.decode(argmax[len(prompt) - 1 : -1], skip_special_tokens=True).strip())
    assert found.edits == 2
    assert found.held_out.perplexity == pytest.approx(perplexity, rel=1e-5)
    assert found.reliability == pytest.approx([sum(each) / len(each) for each in hits])
    assert found.answers == tuple(answers)
    name = tiny_lm.arch.mlp_out_weight(1)
    dW, W = sequence.total_after(2).delta(name).double(), tiny_lm.weight(name).double()
    assert found.norm == pytest.approx(float(dW.norm()), rel=1e-5)
    assert found.relative_norm == pytest.approx(float(dW.norm() / W.norm()), rel=1e-5)
    largest = [float(torch.linalg.svdvals(matrix)[0]) for matrix in (dW, W)]
    assert found.spectral_ratio == pytest.approx(largest[0] / largest[1], rel=1e-4)


def test_before_the_first_edit_there_is_no_fact_to_ask(tiny_lm):
    found = timeline_of(make_sequence(tiny_lm, 1)).measure(0)
    assert (found.reliability, found.answers, found.norm, found.held_out.factor) == ((), (), 0, 1)


def test_a_state_is_measured_once(tiny_lm):
    timeline = timeline_of(make_sequence(tiny_lm, 1))
    first = timeline.measure(1)
    passes = []
    handle = tiny_lm.model.register_forward_hook(lambda *_: passes.append(1))
    assert timeline.measure(1) is first
    handle.remove()
    assert (passes, list(timeline.measured)) == ([], [1])


def test_an_edit_is_described_by_its_own_update(tiny_lm):
    sequence = make_sequence(tiny_lm, 2)
    found, update = timeline_of(sequence).describe(2), sequence.edits[1].update
    assert found.requests == (FACTS[1],)
    assert found.norm == pytest.approx(update.norm())
    assert found.denominator == update.records[0].diagnostics["denominator"]


def test_the_unregularized_sums_are_those_of_the_computed_updates(tiny_lm):
    sequence = make_sequence(tiny_lm, regularizer=wb.RECT(0.2))
    name = tiny_lm.arch.mlp_out_weight(1)
    wanted = sum(edit.computed.delta(name).double() for edit in sequence.edits)
    assert torch.allclose(unregularized_timeline_of(sequence).total(3).delta(name).double(), wanted, atol=1e-5)


def test_another_regularizer_of_the_sum_is_put_through_each_total(tiny_lm):
    timeline = timeline_of(make_sequence(tiny_lm))
    name, rect = tiny_lm.arch.mlp_out_weight(1), wb.RECT(0.1)
    assert torch.equal(timeline.through(rect).total(2).delta(name), rect(timeline.total(2), tiny_lm).delta(name))
    assert torch.equal(timeline.through(None).total(2).delta(name), timeline.total(2).delta(name))


def test_states_that_there_are_not_are_refused(tiny_lm):
    timeline = timeline_of(make_sequence(tiny_lm, 1))
    assert error_of(EditError, timeline.total, 2) == "there are 1 edits; the timeline has no state after 2."
    with timeline.state(1):
        assert error_of(EditError, timeline.measure, 1) == (
            f"an update is applied to {tiny_lm.name}; undo it before looking at the timeline."
        )


@pytest.fixture
def spec(tiny):
    def make(**fields):
        small = {"model": tiny, "hyperparameters": {"v_num_grad_steps": 3, "contexts": ["{}"]}, "tasks": None}
        small |= {"perplexity": None, "edit_protocols": ["teacher_forced"], "n_operations": 3, "checkpoints": [0, 1, 2]}
        return wb.ExperimentSpec(**{**small, **fields})

    return make


RUNS = {
    "plain": {},
    "rect": {"regularizer": {"kind": "RECT", "keep": 0.4}},
    "random": {"regularizer": {"kind": "RandomK", "keep": 0.4}},
    "sum": {"accumulated": {"kind": "RECT", "keep": 0.4}},
    "fed back": {"accumulated": {"kind": "RECT", "keep": 0.4}, "feed_back": True},
    "guard that admits": {"guard": {"limit": 1e9}},
    "memit": {"method": "memit", "batch_size": 2, "hyperparameters": {"layers": [1, 2], "v_num_grad_steps": 2}},
}


@pytest.mark.parametrize("fields", RUNS.values(), ids=RUNS)
def test_a_stored_trajectory_has_the_bits_that_it_measured_and_computes_no_edit(spec, tmp_path, monkeypatch, fields):
    chosen, store = spec(**fields), wb.Store(tmp_path)
    [key] = wb.run(chosen, store=store)["trajectory"].unique()
    stored = read_updates(chosen, store)
    assert stored
    for method in (wb.ROME, wb.MEMIT):
        monkeypatch.setattr(method, "compute_update", None)
    timeline = read_timeline(store, key)
    assert len(timeline) == 3
    for t, update in stored.items():
        for name in update:
            assert torch.equal(timeline.total(t).delta(name), update.delta(name))
    assert load_model(chosen.model).applied_updates == ()


def test_abilities_are_those_that_the_store_has(spec, tmp_path):
    tasks, store = {"tasks": ["nli"], "limit": 2, "written_at": []}, wb.Store(tmp_path)
    table = wb.run(spec(tasks=tasks, n_operations=2, checkpoints=[]), store=store)
    rows = table[(table["task"] == "nli") & (table["metric"] == TASKS["nli"].smooth)].set_index("operation")["value"]
    timeline = read_timeline(store, table["trajectory"].iloc[0])
    assert timeline.abilities == {0: 0, 2: pytest.approx(rows[2] - rows[0])}
    assert rows[2] != rows[0]


def test_an_edit_that_failed_leaves_the_model_as_it_was(spec, tmp_path, monkeypatch):
    compute, store = wb.ROME.compute_update, wb.Store(tmp_path)
    calls = []

    def failing(self, lm, requests):
        calls.append(requests)
        if len(calls) == 2:
            raise EditError("the loss is not finite.")
        return compute(self, lm, requests)

    monkeypatch.setattr(wb.ROME, "compute_update", failing)
    table = wb.run(spec(), store=store)
    timeline = read_timeline(store, table["trajectory"].iloc[0])
    name = next(iter(timeline.total(1)))
    assert len(timeline) == 3
    assert torch.equal(timeline.total(1).delta(name), timeline.total(2).delta(name))
    assert not torch.equal(timeline.total(2).delta(name), timeline.total(3).delta(name))
    assert timeline.describe(2).norm == 0


def test_edits_that_a_guard_refused_are_not_applied(spec, tmp_path):
    store = wb.Store(tmp_path)
    [key] = wb.run(spec(guard={"limit": 1e-9}), store=store)["trajectory"].unique()
    timeline = read_timeline(store, key)
    assert (len(timeline), len(timeline.total(3))) == (3, 0)


def test_a_model_that_is_loaded_already_is_used_and_another_one_refused(spec, tmp_path):
    store, chosen = wb.Store(tmp_path), spec(n_operations=1, checkpoints=[])
    [key] = wb.run(chosen, store=store)["trajectory"].unique()
    own, other = build_tiny_lm("llama"), build_tiny_lm("gpt2")
    assert read_timeline(store, key, own).lm is own
    assert error_of(RunError, read_timeline, store, key, other) == (
        f"the trajectory {key} is of {chosen.model}, not of tiny-gpt2; load that model first."
    )


def test_what_is_missing_in_a_store_is_named(spec, tmp_path):
    store = wb.Store(tmp_path)
    assert error_of(RunError, read_timeline, store, "abc") == (
        f"the store {tmp_path} has no finished trajectory 'abc'; run it first."
    )
    [single] = wb.run(spec(setting="single", n_operations=1, checkpoints=[]), store=store)["trajectory"].unique()
    assert error_of(RunError, read_timeline, store, single) == (
        f"the trajectory {single} edits the unedited model in every operation; give a sequential one."
    )
    [key] = wb.run(spec(n_operations=2, checkpoints=[]), store=store)["trajectory"].unique()
    for file in (tmp_path / "edits").glob("*.safetensors"):
        file.unlink()
    assert error_of(RunError, read_timeline, store, key) == (
        f"edit 1 of the trajectory {key} is not in the store {tmp_path}; run the trajectory again there, which writes "
        "it."
    )
