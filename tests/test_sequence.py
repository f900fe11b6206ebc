"""Edits on top of edits: computed on the sum so far, regularized against it, undone and saved exactly."""

from dataclasses import dataclass

import pytest
import torch

import workbench as wb
from tests.helpers import error_of, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.changes import Dense, low_rank
from workbench.edit_record import EditRecord
from workbench.errors import EditError, UpdateError
from workbench.sequence import EditSequence
from workbench.update import WeightUpdate

FACTS = [
    wb.EditRequest("Paris", "{} is a city in", "Italy"),
    wb.EditRequest("Rome", "The city of {} lies in", "Spain"),
    wb.EditRequest("Oslo", "{} is the capital of", "France"),
]
ROME = wb.ROME(layer=1, v_num_grad_steps=3, contexts=("{}",))


def is_unedited(lm, weights):
    return not lm.applied_updates and all(torch.equal(p, weights[n]) for n, p in lm.model.named_parameters())


def same_matrices(a, b):
    return list(a) == list(b) and all(torch.equal(a.delta(name), b.delta(name)) for name in a)


def test_each_edit_is_computed_on_the_sum_of_the_earlier_ones(tiny_lm):
    sequence = wb.EditSequence(tiny_lm)
    sequence.edit([FACTS[0]], ROME, wb.RECT(keep=0.5))
    second = sequence.edit([FACTS[1]], ROME)
    alone = ROME.compute_update(tiny_lm, [FACTS[1]])
    assert not same_matrices(second.computed, alone)
    with sequence.total_after(1).applied(tiny_lm):
        on_top = ROME.compute_update(tiny_lm, [FACTS[1]])
    assert same_matrices(second.computed, on_top)


def test_an_update_is_regularized_against_the_weights_it_is_added_to(tiny_lm):
    sequence = wb.EditSequence(tiny_lm)
    first = sequence.edit([FACTS[0]], ROME)
    second = sequence.edit([FACTS[1]], ROME, wb.RECT(keep=0.3))
    (name,) = second.update
    W = tiny_lm.weight(name).double() + first.update.delta(name).double()
    dW = second.computed.delta(name)
    ratios = (dW.double() / W).abs().flatten()
    count = round(0.3 * ratios.numel())
    kept = second.update.delta(name).flatten() != 0
    assert int(kept.sum()) == count
    assert ratios[kept].min() >= ratios[~kept].max() * (1 - 1e-5)


def test_the_total_is_the_sum_of_the_regularized_updates(tiny_lm):
    sequence = wb.EditSequence(tiny_lm)
    edits = [sequence.edit([fact], ROME, wb.RECT(keep=0.5)) for fact in FACTS]
    (name,) = sequence.total
    expected = sum(edit.update.delta(name).double() for edit in edits)
    torch.testing.assert_close(sequence.total.delta(name).double(), expected, rtol=1e-5, atol=1e-6)
    assert sequence.requests == tuple(FACTS)
    assert [record.method for record in sequence.total.records] == ["ROME"] * 3


def test_between_calls_the_model_is_unedited_bit_for_bit(tiny_lm):
    weights, sequence = weights_of(tiny_lm), wb.EditSequence(tiny_lm)
    for fact in FACTS:
        sequence.edit([fact], ROME)
        assert is_unedited(tiny_lm, weights)
    with sequence.applied():
        assert tiny_lm.applied_updates == (sequence.total,)
    assert is_unedited(tiny_lm, weights)


def test_the_first_edits_can_be_applied_alone(tiny_lm):
    sequence = wb.EditSequence(tiny_lm)
    edits = [sequence.edit([fact], ROME) for fact in FACTS[:2]]
    with sequence.applied(upto=1):
        [update] = tiny_lm.applied_updates
        assert same_matrices(update, edits[0].update)
    with sequence.applied(upto=0):
        assert tiny_lm.applied_updates == ()


def test_without_edits_nothing_is_applied(tiny_lm):
    with wb.EditSequence(tiny_lm).applied() as lm:
        assert lm.applied_updates == ()


def test_undo_removes_an_edit_and_all_later_ones(tiny_lm):
    sequence = wb.EditSequence(tiny_lm)
    edits = [sequence.edit([fact], ROME) for fact in FACTS]
    assert sequence.undo(2) == tuple(edits[1:])
    assert same_matrices(sequence.total, edits[0].update)
    again = sequence.edit([FACTS[1]], ROME)
    assert same_matrices(again.computed, edits[1].computed)
    sequence.undo()
    sequence.undo()
    assert len(sequence.total) == 0


@pytest.mark.parametrize("number", [0, 2, -1])
def test_undoing_an_edit_that_is_not_there_names_the_edits(tiny_lm, number):
    sequence = wb.EditSequence(tiny_lm)
    sequence.edit([FACTS[0]], ROME)
    with pytest.raises(EditError) as caught:
        sequence.undo(number)
    assert str(caught.value) == f"there is no edit {number}; the sequence has edits 1 to 1."


def test_undo_of_an_empty_sequence_is_refused(tiny_lm):
    with pytest.raises(EditError) as caught:
        wb.EditSequence(tiny_lm).undo()
    assert str(caught.value) == "there is no edit yet; make one first."


def test_a_random_regularizer_keeps_other_entries_in_every_edit_and_the_same_after_undo(tiny_lm):
    sequence, rule = wb.EditSequence(tiny_lm), wb.RandomK(keep=0.4, seed=7)
    first, second = (sequence.edit([fact], ROME, rule) for fact in FACTS[:2])
    assert (first.regularizer.operation, second.regularizer.operation) == (1, 2)
    [name] = first.update
    assert not torch.equal(first.update[name].mask, second.update[name].mask)
    sequence.undo()
    assert same_matrices(sequence.edit([FACTS[1]], ROME, rule).update, second.update)


def test_a_sum_of_edits_counts_as_many_operations_as_it_has_edits(tiny_lm):
    sequence = wb.EditSequence(tiny_lm)
    for fact in FACTS[:2]:
        sequence.edit([fact], ROME)
    onto = wb.EditSequence(tiny_lm)
    onto.add(sequence.total)
    assert onto.edit([FACTS[2]], ROME, wb.RandomK()).regularizer == wb.RandomK(operation=3)


def test_a_saved_sequence_is_loaded_with_every_edit_and_bit(tiny_lm, tmp_path):
    sequence = wb.EditSequence(tiny_lm)
    sequence.edit([FACTS[0]], ROME, wb.RECT(keep=0.4))
    sequence.edit([FACTS[1]], ROME, wb.RandomK(keep=0.4, seed=7))
    sequence.edit([FACTS[2]], ROME)
    sequence.save(tmp_path / "sequence.safetensors")
    loaded = wb.EditSequence.load(tmp_path / "sequence.safetensors", tiny_lm)
    assert len(loaded.edits) == 3
    for a, b in zip(sequence.edits, loaded.edits, strict=True):
        assert (a.regularizer, a.seconds, a.requests) == (b.regularizer, b.seconds, b.requests)
        assert same_matrices(a.computed, b.computed)
        assert same_matrices(a.update, b.update)
    assert same_matrices(loaded.total, sequence.total)
    loaded.undo()
    assert same_matrices(loaded.total, sequence.total_after(2))


def test_the_sum_after_an_undo_is_the_one_before_the_edit_bit_for_bit(tiny_lm):
    sequence, totals = wb.EditSequence(tiny_lm), []
    for fact in FACTS:
        sequence.edit([fact], ROME, wb.RECT(keep=0.5))
        totals.append(sequence.total)
    for number in (2, 1):
        sequence.undo()
        assert same_matrices(sequence.total, totals[number - 1])


def test_a_sequence_of_another_model_is_refused(tmp_path):
    gpt2, llama = build_tiny_lm("gpt2"), build_tiny_lm("llama")
    sequence = wb.EditSequence(gpt2)
    sequence.edit([FACTS[0]], ROME)
    sequence.save(tmp_path / "s")
    with pytest.raises(UpdateError, match=r"the update was computed on .* load the model it was made for"):
        wb.EditSequence.load(tmp_path / "s", llama)


@pytest.mark.parametrize("edits", ["", "[1]", '[{"computed": {}}]'])
def test_a_damaged_sequence_is_refused(tiny_lm, tmp_path, edits):
    from safetensors.torch import save_file

    from workbench.sequence_parts import FORMAT

    save_file({"a": torch.ones(1)}, tmp_path / "s", metadata={"format": FORMAT, "edits": edits})
    with pytest.raises(UpdateError, match=r"is a damaged sequence \(.*\); save it again\.$"):
        wb.EditSequence.load(tmp_path / "s", tiny_lm)


def test_an_update_file_is_no_sequence(tiny_lm, tmp_path):
    WeightUpdate({"W": torch.ones(2, 2)}).save(tmp_path / "u")
    with pytest.raises(UpdateError, match="but not a saved sequence"):
        wb.EditSequence.load(tmp_path / "u", tiny_lm)


def test_an_edited_model_is_refused(tiny_lm):
    sequence = wb.EditSequence(tiny_lm)
    name = tiny_lm.arch.mlp_out_weight(0)
    no_change = WeightUpdate({name: torch.zeros_like(tiny_lm.weight(name))})
    with no_change.applied(tiny_lm), pytest.raises(EditError) as caught:
        sequence.edit([FACTS[0]], ROME)
    assert str(caught.value) == f"an update is applied to {tiny_lm.name}; undo it before editing in sequence."


@dataclass(frozen=True)
class Exploding:
    """A method whose update is not finite."""

    supports_batch = True
    label = "Exploding"

    def prepared(self, lm):
        return self

    def compute_update(self, lm, requests):
        name = lm.arch.mlp_out_weight(0)
        d_in, d_out = lm.linear_shape(name)
        change = low_rank(lm, name, torch.full((d_out, 1), torch.inf), torch.ones(d_in, 1))
        return WeightUpdate.of_edit(lm, {name: change}, EditRecord(self.label, tuple(requests), {}))


def test_an_update_that_is_not_finite_is_refused_and_changes_nothing(tiny_lm):
    weights, sequence = weights_of(tiny_lm), wb.EditSequence(tiny_lm)
    with pytest.raises(UpdateError, match="is not finite; milder hyperparameters may help"):
        sequence.edit([FACTS[0]], Exploding())
    assert sequence.edits == ()
    assert is_unedited(tiny_lm, weights)


@dataclass(frozen=True)
class Spy:
    """A method that notes the state of the model in which it is prepared and computes."""

    seen: list
    supports_batch = True
    label = "Spy"

    def prepared(self, lm):
        self.seen.append(("prepared", len(lm.applied_updates)))
        return self

    def compute_update(self, lm, requests):
        self.seen.append(("computed", len(lm.applied_updates)))
        return ROME.compute_update(lm, requests)


def test_methods_are_prepared_on_the_unedited_model_and_compute_on_the_edited_one(tiny_lm):
    seen = []
    sequence = wb.EditSequence(tiny_lm)
    sequence.edit([FACTS[0]], ROME)
    sequence.edit([FACTS[1]], Spy(seen))
    assert ("prepared", 0) in seen
    assert ("prepared", 1) not in seen
    assert ("computed", 1) in seen


def test_keys_of_all_edits_are_kept_in_order_and_through_files(tiny_lm, tmp_path):
    sequence = wb.EditSequence(tiny_lm)
    for fact in FACTS:
        sequence.edit([fact], ROME, wb.RECT(keep=0.4))
    (name,) = sequence.total
    keys = sequence.keys(name)
    d_in, _ = tiny_lm.linear_shape(name)
    assert keys.shape == (3, d_in)
    assert torch.equal(keys[1:2], sequence.edits[1].computed.records[0].keys[name])
    sequence.save(tmp_path / "s")
    assert torch.equal(wb.EditSequence.load(tmp_path / "s", tiny_lm).keys(name), keys)
    assert sequence.keys("other.weight") is None


HALF = wb.RECT(keep=0.5)  # applied to a sum twice, it is not the same as once: edits in between fill the zeros


def edited(lm, **sums):
    sequence = wb.EditSequence(lm, **sums)
    for fact in FACTS:
        sequence.edit([fact], ROME)
    return sequence


def test_edits_are_computed_on_the_plain_sum_unless_the_regularized_one_is_fed_back(tiny_lm):
    plain, sequence = edited(tiny_lm), edited(tiny_lm, accumulated=HALF)
    for a, b in zip(plain.edits, sequence.edits, strict=True):
        assert same_matrices(a.computed, b.computed)
    assert same_matrices(sequence.base, plain.total)
    assert same_matrices(sequence.total, HALF(plain.total, tiny_lm))
    assert same_matrices(sequence.total_after(2), HALF(plain.total_after(2), tiny_lm))


def test_a_regularized_sum_that_is_fed_back_is_what_the_next_edit_is_computed_on_and_added_to(tiny_lm):
    sequence = edited(tiny_lm, accumulated=HALF, feed_back=True)
    expected = WeightUpdate({})
    for edit, fact in zip(sequence.edits, FACTS, strict=True):
        onto = wb.EditSequence(tiny_lm, start=expected)
        assert same_matrices(onto.edit([fact], ROME).computed, edit.computed)
        expected = HALF(expected + edit.computed, tiny_lm)
    assert same_matrices(sequence.total, expected)
    assert same_matrices(sequence.base, expected)
    assert not same_matrices(sequence.edits[2].computed, edited(tiny_lm).edits[2].computed)


@pytest.mark.parametrize("feed_back", [False, True])
def test_a_sequence_that_starts_from_a_sum_is_the_end_of_the_whole_one(tiny_lm, feed_back):
    whole = edited(tiny_lm, accumulated=HALF, feed_back=feed_back)
    first = wb.EditSequence(tiny_lm, accumulated=HALF, feed_back=feed_back)
    for fact in FACTS[:2]:
        first.edit([fact], ROME)
    rest = wb.EditSequence(tiny_lm, accumulated=HALF, feed_back=feed_back, start=first.base)
    rest.edit([FACTS[2]], ROME)
    assert same_matrices(rest.total, whole.total)
    assert rest.add(whole.edits[0].computed, wb.RandomK()).regularizer.operation == 4


@pytest.mark.parametrize("feed_back", [False, True])
def test_undo_and_files_keep_the_regularized_sum_bit_for_bit(tiny_lm, tmp_path, feed_back):
    sequence = edited(tiny_lm, accumulated=HALF, feed_back=feed_back, start=edited(tiny_lm).total)
    after_two = sequence.total_after(2)
    sequence.save(tmp_path / "s")
    loaded = wb.EditSequence.load(tmp_path / "s", tiny_lm)
    assert (loaded.accumulated, loaded.feed_back) == (HALF, feed_back)
    for each in (sequence, loaded):
        each.undo()
        assert same_matrices(each.total, after_two)
    assert same_matrices(loaded.base, sequence.base)


def test_the_regularizer_of_the_sum_leaves_the_records_of_the_edits_alone(tiny_lm):
    sequence = wb.EditSequence(tiny_lm, accumulated=HALF)
    sequence.edit([FACTS[0]], ROME, wb.RECT(keep=0.25))
    assert [record.regularizer for record in sequence.total.records] == [{"kind": "RECT", "keep": 0.25}]


def test_a_start_of_another_model_is_refused():
    total = edited(build_tiny_lm("gpt2")).total
    with pytest.raises(UpdateError, match="load the model it was made for"):
        wb.EditSequence(build_tiny_lm("llama"), start=total)


def test_the_regularizer_of_the_sum_can_be_changed_without_computing_an_edit_again(tiny_lm):
    sequence, wanted = edited(tiny_lm), edited(tiny_lm, accumulated=HALF)
    edits = sequence.edits
    sequence.regularize_sum(HALF)
    assert same_matrices(sequence.total, wanted.total)
    assert same_matrices(sequence.base_after(2), wanted.base_after(2))
    sequence.regularize_sum(None)
    assert same_matrices(sequence.total, edited(tiny_lm).total)
    assert sequence.edits == edits


def test_the_regularizer_of_a_sum_that_is_fed_back_is_kept(tiny_lm):
    sequence = edited(tiny_lm, accumulated=HALF, feed_back=True)
    sentence = "the sum is fed back, so the edits depend on its regularizer; undo them before changing it."
    assert error_of(EditError, sequence.regularize_sum, None) == sentence
    assert sequence.accumulated == HALF


def test_an_update_that_is_not_finite_is_not_added(tiny_lm):
    edits, name = EditSequence(tiny_lm), tiny_lm.arch.mlp_out_weight(1)
    update = WeightUpdate({name: torch.full(tiny_lm.weight(name).shape, float("nan"))})
    sentence = error_of(UpdateError, edits.add, update)
    assert sentence == f"the update of {name} is not finite; milder hyperparameters may help."
    assert edits.edits == ()


def test_an_update_whose_regularizer_makes_it_infinite_is_not_added(tiny_lm):
    edits, name = EditSequence(tiny_lm), tiny_lm.arch.mlp_out_weight(1)
    update = WeightUpdate({name: torch.full(tiny_lm.weight(name).shape, 1e38)})

    def ten_times(update, lm):
        return update.regularized({name: Dense(10 * update.delta(name))}, {})

    sentence = error_of(UpdateError, edits.add, update, ten_times)
    assert sentence == f"the update of {name} is not finite; milder hyperparameters may help."
    assert edits.edits == ()
