"""After an interrupt at any moment, the weights are those that the records of the model say they are."""

import random
import signal
import sys
from collections.abc import Callable, Collection

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, weights_of
from tests.tiny_models import build_tiny_lm
from workbench import lm, replaced, sequence, update
from workbench.changes import LowRank
from workbench.editing.passes import hooks, upper_blocks
from workbench.editing.passes.hooks import StopForward
from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import pad
from workbench.sequence import EditSequence

FILES = {module.__file__ for module in (lm, replaced, sequence, update)}
STEP = 13  # every bytecode takes many minutes; 1 and 3 were run


def interrupt_at(n: int, act: Callable[[], object], files: Collection[str] = FILES) -> bool:
    """Call `act` and raise `KeyboardInterrupt` before the n-th bytecode in `files`; return whether there is one."""
    left = n

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if not left:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def an_update(model, seed):
    g = torch.Generator().manual_seed(seed)

    def change(layer):
        rows, cols = model.weight(model.arch.mlp_out_weight(layer)).shape
        return LowRank(torch.randn(rows, 1, generator=g), torch.randn(cols, 1, generator=g))

    return wb.WeightUpdate({model.arch.mlp_out_weight(layer): change(layer) for layer in (0, 2)})


def applied(model, first, second):
    with first.applied(model):
        pass


def applied_and_undone(model, first, second):
    first.apply(model)
    second.apply(model)
    second.undo(model)
    first.undo(model)


def unedited_for_a_while(model, first, second):
    with first.applied(model), model.unedited():
        second.apply(model)


def in_sequence(model, first, second):
    edits = EditSequence(model)
    edits.add(first)
    edits.add(second)
    with edits.applied():
        pass


ACTS = pytest.mark.parametrize("act", [applied, applied_and_undone, unedited_for_a_while, in_sequence])


@ACTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_after_an_interrupt_at_any_bytecode_the_record_says_what_is_applied(act, dtype):
    model = build_tiny_lm("llama", dtype=dtype)
    before, n, left = weights_of(model), 1, 0
    updates = an_update(model, 0), an_update(model, 1)
    while interrupt_at(n, lambda: act(model, *updates)):
        left += bool(model.applied_updates)
        while model.applied_updates:
            model.applied_updates[-1].undo(model)
        assert_same_bits(model, before)
        n += STEP
    assert n > 200
    if act is not applied_and_undone:
        assert left <= 12  # in the first bytecodes of an `__exit__`, before it can do anything


@ACTS
def test_an_interrupt_at_any_bytecode_leaves_nothing_applied_after_an_outer_block(act):
    model = build_tiny_lm("llama")
    before, n, hit = weights_of(model), 1, True
    updates = an_update(model, 0), an_update(model, 1)
    while hit:
        with model.restored_after():
            hit = interrupt_at(n, lambda: act(model, *updates))
        assert model.applied_updates == ()
        assert_same_bits(model, before)
        n += STEP
    assert n > 200


def test_an_interrupt_at_any_bytecode_leaves_a_sequence_with_its_sums(tiny_lm):
    n, first, second = 1, an_update(tiny_lm, 0), an_update(tiny_lm, 1)
    name, several = next(iter(first)), set()
    updates = {1: first, 2: first + second}
    while True:
        edits = EditSequence(tiny_lm)
        edits.add(first)
        interrupted = interrupt_at(n, lambda edits=edits: (edits.add(second), edits.undo(1)))
        added = len(edits.edits)
        if added:
            assert torch.equal(edits.total.delta(name), updates[added].delta(name))
        else:
            assert len(edits.total) == 0
        while tiny_lm.applied_updates:
            tiny_lm.applied_updates[-1].undo(tiny_lm)
        several.add(added)
        if not interrupted:
            break
        n += STEP
    assert several == {0, 1, 2}


def run_with_hooks(model):
    for layer in (0, 2):
        UpperBlocks.compute(model, BATCH, READ, layer).logits()


BATCH = pad([(5, 6, 7)])
READ = torch.ones(1, 3, dtype=torch.bool)


def test_an_interrupt_at_any_bytecode_leaves_no_hook_with_an_effect():
    model = build_tiny_lm("llama")
    ids = torch.tensor([[5, 6, 7, 8]])
    expected, n, left = model.model(ids).logits, 1, 0
    while interrupt_at(n, lambda: run_with_hooks(model), {hooks.__file__, upper_blocks.__file__}):
        try:
            changed = not torch.equal(model.model(ids).logits, expected)
        except (StopForward, RuntimeError):
            changed = True
        left += changed
        hooks.remove_leftovers(model.model)
        assert torch.equal(model.model(ids).logits, expected)
        n += STEP
    assert n > 200
    assert left <= 12  # in the first bytecodes of an `__exit__`, before it can do anything


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_five_hundred_signals_at_random_moments_leave_nothing_unrecorded(tiny_lm):
    before, draw, hits = weights_of(tiny_lm), random.Random(0), 0
    updates = an_update(tiny_lm, 0), an_update(tiny_lm, 1)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-4, 5e-3))
                while True:
                    unedited_for_a_while(tiny_lm, *updates)
            except KeyboardInterrupt:
                hits += 1
            while tiny_lm.applied_updates:
                tiny_lm.applied_updates[-1].undo(tiny_lm)
            assert_same_bits(tiny_lm, before)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert hits == 500
