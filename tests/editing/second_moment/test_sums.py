"""An interrupted run resumes where it stopped, and ends with the same bits."""

import logging

import pytest
import torch

from tests.editing.second_moment.moments import (
    LENGTH,
    assert_moment,
    count_passes,
    files_of,
    naive,
    same_as,
    write_text,
)
from workbench.editing.second_moment import sums as key_sums
from workbench.editing.second_moment.estimate import SecondMoment


@pytest.fixture(autouse=True)
def own_cache_always(own_cache):
    """Give each test here an empty cache."""


@pytest.fixture
def long_text(tmp_path):
    """Give a text file of more than eight chunks."""
    return write_text(tmp_path / "long.txt", 150)


@pytest.fixture
def saved_often(monkeypatch):
    """Save after every pass of two chunks."""
    monkeypatch.setattr(key_sums, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(key_sums, "TOKENS_PER_PASS", 2 * LENGTH)
    monkeypatch.setattr(key_sums.time, "monotonic", lambda: 0.0)  # so that saving is always due again


def kill_at_pass(lm, number):
    """Interrupt the model's pass of that number as Ctrl-C would."""
    passes = []

    def kill(module, args):
        passes.append(0)
        if len(passes) == number:
            raise KeyboardInterrupt

    return lm.model.register_forward_pre_hook(kill)


def test_an_interrupted_run_resumes_where_it_stopped_and_ends_with_the_same_bits(
    tiny_lm, long_text, own_cache, monkeypatch, tmp_path, saved_often
):
    moment = SecondMoment(source=str(long_text), n_tokens=8 * LENGTH)
    with monkeypatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path / "elsewhere"))
        whole = moment.compute(same_as(tiny_lm), [0, 2])
    handle = kill_at_pass(tiny_lm, 3)
    with pytest.raises(KeyboardInterrupt):
        moment.compute(tiny_lm, [0, 2])
    handle.remove()
    assert len(files_of(own_cache, ".partial")) == 2
    again = same_as(tiny_lm)
    passes = count_passes(again)
    resumed = moment.compute(again, [0, 2])
    assert passes == [2, 2]  # of four
    assert all(torch.equal(resumed[layer], whole[layer]) for layer in (0, 2))
    assert not files_of(own_cache, ".partial")
    assert len(files_of(own_cache)) == 2


def test_a_run_interrupted_between_saving_two_layers_counts_no_chunk_twice(
    tiny_lm, long_text, own_cache, monkeypatch, saved_often
):
    moment = SecondMoment(source=str(long_text), n_tokens=8 * LENGTH)
    writes, write_checked = [], key_sums.write_checked

    def killed_at_the_sixth(path, tensor, record):
        writes.append(record["n_chunks"])
        if len(writes) == 6:
            raise KeyboardInterrupt
        write_checked(path, tensor, record)

    with monkeypatch.context() as patch:
        patch.setattr(key_sums, "write_checked", killed_at_the_sixth)
        with pytest.raises(KeyboardInterrupt):
            moment.compute(tiny_lm, [0, 2])
    assert writes == [2, 2, 4, 4, 6, 6]  # layer 0 has six chunks in its file, layer 2 four
    again = same_as(tiny_lm)
    passes = count_passes(again)
    moments = moment.compute(again, [0, 2])
    assert passes == [2, 2]
    for layer, C in moments.items():
        assert_moment(C, naive(tiny_lm, layer, long_text, 8 * LENGTH))


def test_a_damaged_partial_sum_is_computed_again(tiny_lm, long_text, own_cache, caplog, saved_often):
    moment = SecondMoment(source=str(long_text), n_tokens=8 * LENGTH)
    handle = kill_at_pass(tiny_lm, 3)
    with pytest.raises(KeyboardInterrupt):
        moment.compute(tiny_lm, [1])
    handle.remove()
    (path,) = (own_cache / "second-moments").glob("*.partial")
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    passes = count_passes(tiny_lm)
    with caplog.at_level(logging.WARNING):
        C = moment.compute(tiny_lm, [1])[1]
    assert passes == [2, 2, 2, 2]
    assert caplog.messages == [
        f"the cached file {path} is damaged (its checksum is not that of its content); it is rebuilt."
    ]
    assert_moment(C, naive(tiny_lm, 1, long_text, 8 * LENGTH))


def test_partial_sums_are_not_saved_more_often_than_every_half_minute(tiny_lm, long_text, monkeypatch):
    writes = []
    monkeypatch.setattr(key_sums, "TOKENS_PER_PASS", LENGTH)
    monkeypatch.setattr(key_sums, "write_checked", lambda *given: writes.append(given))
    clock = iter(range(0, 10_000, 12))  # each look at the clock is 12 s after the last
    monkeypatch.setattr(key_sums.time, "monotonic", lambda: next(clock))
    SecondMoment(source=str(long_text), n_tokens=8 * LENGTH).compute(tiny_lm, [1])
    # due at 30 s: after the third pass (36 s), which takes 12 s to save; the next is due ten times that later
    assert len(writes) == 1
