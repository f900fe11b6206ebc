"""MEND's training: its runs against runs that were never stopped, what it starts from, and the split of the facts."""

import json
import math
from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.editing.mend.networks import FACTS, fact, logits_before_target
from tests.helpers import assert_same_bits, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.commands.train_mend import edit_success
from workbench.data.facts import FactSet
from workbench.editing.mend.corpus import split_facts
from workbench.editing.mend.editor import MEND
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.losses import losses_after
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.editing.mend.training import MendTraining, Trainer
from workbench.errors import EditError, RequestError

TRAIN, VALIDATION = FACTS[:9], FACTS[9:]
SHORT = MendTraining(
    steps=6, facts_per_step=4, batch_sizes=(1, 2, 4), rank=4, edit_lr=0.01, val_interval=2, checkpoint_interval=2
)


def state_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# the run


def test_training_lowers_both_losses(tiny_lm):
    settings = replace(SHORT, steps=60, val_interval=20, lr=0.01, edit_lr=0.05)
    history = Trainer(tiny_lm, TRAIN, VALIDATION, settings).run()["history"]
    assert [record["step"] for record in history] == [20, 40, 60]
    assert history[-1]["train_edit"] < history[0]["train_edit"]
    assert history[-1]["train_locality"] < history[0]["train_locality"]


def test_networks_for_a_gemma_3_are_trained_on_small_and_large_batches():
    lm = build_tiny_lm("gemma3_text")  # a gated MLP whose output is normalized before it is added
    settings = replace(SHORT, layers=(2, 3), steps=40, batch_sizes=(1, 2, 4, 6), val_interval=20, lr=0.01, edit_lr=0.05)
    trainer = Trainer(lm, TRAIN, VALIDATION, settings)
    record = trainer.run()
    assert [name.split("layers.")[1] for name in trainer.network.names] == [
        f"{layer}.mlp.{part}_proj.weight" for layer in (2, 3) for part in ("gate", "up", "down")
    ]
    assert record["history"][-1]["train_edit"] < record["history"][0]["train_edit"]
    assert record["largest_batch"] == 6
    assert trainer.network.batch_exponent.abs().min() > 0  # each has learned one


def test_a_run_can_start_from_trained_networks_and_leaves_them_alone(tiny_lm, tmp_path):
    first = Trainer(tiny_lm, TRAIN, VALIDATION, SHORT)
    first.run()
    before = state_of(first)
    start = first.network.requires_grad_(False)
    second = Trainer(tiny_lm, TRAIN, VALIDATION, SHORT, start=start, checkpoint=tmp_path / "mend.checkpoint")
    assert_same_state(state_of(second), before)
    second.run()
    assert_same_state(state_of(first), before)
    after = state_of(second)
    assert all(torch.equal(after[name], before[name]) for name in before if name.endswith((".mean", ".std")))
    assert not torch.equal(after["log_edit_lr"], before["log_edit_lr"])
    with pytest.raises(EditError) as caught:  # other networks to start from: another run
        Trainer(tiny_lm, TRAIN, VALIDATION, SHORT, checkpoint=tmp_path / "mend.checkpoint").resume()
    assert str(caught.value).startswith(f"{tmp_path / 'mend.checkpoint'} is of a run with other facts, settings or ")


def test_networks_for_other_matrices_are_no_start(tiny_lm):
    start = MendNetwork.untrained(tiny_lm, weights_to_edit(tiny_lm, [3]), rank=4)
    with pytest.raises(EditError) as caught:
        Trainer(tiny_lm, TRAIN, VALIDATION, SHORT, start=start)
    assert str(caught.value) == (
        f"the networks to start from are for {', '.join(weights_to_edit(tiny_lm, [3]))}, not for "
        f"{', '.join(weights_to_edit(tiny_lm))}; give the layers that they were trained for."
    )


def test_validations_read_batches_of_every_size_that_fits(tiny_lm, monkeypatch):
    seen = []

    def record(corpus, network, edits):
        seen.append([tuple(draw.fact for draw in edit) for edit in edits])
        return losses_after(corpus, network, edits)

    trainer = Trainer(tiny_lm, TRAIN, FACTS[7:], replace(SHORT, batch_sizes=(1, 2, 2, 5, 8)))
    trainer._progress.recent = [[0.0, 0.0]]
    monkeypatch.setattr("workbench.editing.mend.training.losses_after", record)
    trainer._validate()
    assert [[len(edit) for edit in edits] for edits in seen] == [[1]] * 5 + [[2]] * 2
    assert sorted(facts[0][0] for facts in seen[:5]) == [0, 1, 2, 3, 4]
    assert len({fact for [edit] in seen[5:] for fact in edit}) == 4


def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_bits(tiny_lm, tmp_path, monkeypatch):
    whole = Trainer(tiny_lm, TRAIN, VALIDATION, SHORT)
    record = whole.run()
    expected = state_of(whole)
    step_of, stops = Trainer._step, 0
    for killed_after in (1, 3, 4, 5):
        path = tmp_path / f"{killed_after}.checkpoint"
        calls = iter(range(100))

        def step(trainer, calls=calls, killed_after=killed_after):
            if next(calls) == killed_after:
                raise KeyboardInterrupt
            return step_of(trainer)

        monkeypatch.setattr(Trainer, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            Trainer(tiny_lm, TRAIN, VALIDATION, SHORT, checkpoint=path).run()
        monkeypatch.setattr(Trainer, "_step", step_of)
        assert path.exists() == (killed_after >= SHORT.checkpoint_interval)
        again = Trainer(tiny_lm, TRAIN, VALIDATION, SHORT, checkpoint=path)
        assert again.resume() == path.exists()
        resumed = again.run()
        assert resumed["history"] == record["history"]
        assert_same_state(state_of(again), expected)
        stops += 1
    assert stops == 4


def test_global_random_state_does_not_matter_and_stays(tiny_lm):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        trainer = Trainer(tiny_lm, TRAIN, VALIDATION, replace(SHORT, steps=2))
        trainer.run()
        assert torch.equal(torch.random.get_rng_state(), before)
        states.append(state_of(trainer))
    assert_same_state(*states)


def test_the_model_is_left_as_it_was(tiny_lm):
    weights = weights_of(tiny_lm)
    Trainer(tiny_lm, TRAIN, VALIDATION, replace(SHORT, steps=2)).run()
    assert_same_bits(tiny_lm, weights)
    assert all(p.grad is None and not p.requires_grad for p in tiny_lm.model.parameters())
    for module in tiny_lm.model.modules():
        assert not module._forward_hooks
        assert "forward" not in module.__dict__


def test_training_stops_when_validations_bring_nothing_new_and_keeps_the_best(tiny_lm):
    settings = replace(SHORT, steps=200, lr=0.1, val_interval=1, patience=3)  # so high that it soon gets worse
    trainer = Trainer(tiny_lm, TRAIN, VALIDATION, settings)
    record = trainer.run()
    losses = [entry["loss"] for entry in record["history"]]
    assert record["steps"] < 200
    assert record["best_step"] == losses.index(min(losses)) + 1
    assert record["steps"] == record["best_step"] + 3
    best = Trainer(tiny_lm, TRAIN, VALIDATION, settings)
    for _ in range(record["best_step"]):
        best._step()
    assert_same_state(state_of(trainer), state_of(best))


def test_a_checkpoint_of_other_settings_or_facts_is_refused(tiny_lm, tmp_path):
    path = tmp_path / "mend.checkpoint"
    Trainer(tiny_lm, TRAIN, VALIDATION, SHORT, checkpoint=path).run()
    others = [(TRAIN, replace(SHORT, seed=1)), (TRAIN[1:], SHORT)]
    for train, settings in others:
        with pytest.raises(EditError) as caught:
            Trainer(tiny_lm, train, VALIDATION, settings, checkpoint=path).resume()
        assert str(caught.value) == (
            f"{path} is of a run with other facts, settings or another model; repeat those, or delete it to start over."
        )


def test_a_file_that_is_no_checkpoint_is_refused(tiny_lm, tmp_path):
    path = tmp_path / "mend.checkpoint"
    path.write_bytes(b"nothing")
    with pytest.raises(EditError) as caught:
        Trainer(tiny_lm, TRAIN, VALIDATION, SHORT, checkpoint=path).resume()
    assert str(caught.value).startswith(f"{path} cannot be read as a checkpoint (")
    assert str(caught.value).endswith("); delete it to start over.")


def test_the_record_is_json(tiny_lm):
    record = Trainer(tiny_lm, TRAIN, VALIDATION, SHORT).run()
    assert json.loads(json.dumps(record)) == record
    assert (record["steps"], len(record["history"]), record["largest_batch"]) == (6, 3, 4)


def test_edit_success_is_that_of_edits_made_by_hand(tiny_lm, tmp_path):
    network = MendNetwork.untrained(tiny_lm, weights_to_edit(tiny_lm), rank=4, edit_lr=0.05)
    mend = MEND(network=str(save_network(network, tmp_path / "mend.safetensors", tiny_lm)))
    hits = []
    for start in (0, 2):
        batch = FACTS[start : start + 2]
        with mend.compute_update(tiny_lm, batch).applied(tiny_lm):
            for r in batch:
                logits, target = logits_before_target(tiny_lm, r.filled_prompt, r.target_new)
                hits.append(float((logits.argmax(-1) == target).double().mean()))
    table = edit_success(tiny_lm, mend, FACTS[:4], label="few", batch_size=2)
    [row] = table[(table["metric"] == "reliability") & (table["protocol"] == "teacher_forced")].to_dict("records")
    assert row["value"] == pytest.approx(sum(hits) / 4)
    assert (row["facts"], row["batch_size"], row["n"]) == ("few", 2, 4)
    assert tiny_lm.applied_updates == ()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1000000; got 0."),
        ({"lr": math.nan}, "lr must be a positive number; got nan."),
        ({"batch_sizes": (1, 3)}, "batch_sizes must divide facts_per_step, 10, or be larger; got 3."),
    ],
)
def test_settings_out_of_range_are_named(settings, sentence):
    with pytest.raises(EditError) as caught:
        MendTraining(**settings)
    assert str(caught.value) == sentence


# the split


def facts_of(requests, source="facts.json"):
    return FactSet(source, "native", tuple(requests), ())


def test_the_test_facts_are_the_sample_of_the_first_source_and_no_prompt_is_in_two_sets():
    first, second = facts_of(FACTS), facts_of([fact(i) for i in (3, 20, 21, 22)], "more.json")
    splits = split_facts([first, second], hold_out=4, validation=3, seed=5, exclude=[facts_of([fact(20)])])
    assert splits.test == first.sample(4, seed=5)
    prompts = [{r.filled_prompt for r in part} for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in prompts] == [len(splits.train), 3, 4]
    assert not prompts[0] & prompts[1]
    assert not (prompts[0] | prompts[1]) & prompts[2]
    assert fact(20).filled_prompt not in prompts[0] | prompts[1]
    assert len(splits.train) + 3 + 4 + splits.n_dropped == 16
    assert splits.n_dropped == 2  # the excluded one, and the one that both sources hold


def test_the_bundled_test_facts_are_those_of_the_table():
    splits = split_facts([wb.load_facts()], hold_out=100, validation=40, seed=0)
    assert splits.test == wb.load_facts().sample(100, seed=0)


def test_more_validation_facts_than_there_are_is_refused():
    with pytest.raises(RequestError) as caught:
        split_facts([facts_of(FACTS)], hold_out=4, validation=8, seed=0)
    assert str(caught.value) == (
        "8 facts are left to train on and validate with: validation must lie in 2 to 6; got 8."
    )
