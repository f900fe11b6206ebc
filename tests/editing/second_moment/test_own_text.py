"""Text that a model writes itself: sampled from its distribution, determined by the seed, written block by block."""

import logging

import numpy as np
import pytest
import torch

from tests.tiny_models import build_tiny_lm
from workbench.editing.contexts import OPENINGS
from workbench.editing.second_moment import own_text as module
from workbench.editing.second_moment.own_text import sample_own_text

LENGTH = 24


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Write two texts at once."""
    monkeypatch.setattr(module, "BLOCK", 2)


@pytest.fixture
def write(tmp_path):
    """Give a function that writes texts into a folder of that name."""

    def write(lm, n_chunks=4, *, seed=0, folder="texts", length=LENGTH):
        return sample_own_text(lm, n_chunks=n_chunks, length=length, seed=seed, folder=tmp_path / folder)

    return write


def count_passes(lm):
    passes = []
    lm.model.register_forward_pre_hook(lambda module, args: passes.append(args[0].shape))
    return passes


def test_texts_are_sampled_from_the_models_distribution(every_tiny_lm, write, monkeypatch):
    # the mean surprise of a text sampled from a distribution is the mean entropy
    monkeypatch.setattr(module, "BLOCK", 16)
    ids = write(every_tiny_lm, 16, length=128)
    assert ids.shape == (16, 128)
    with torch.no_grad():
        log_probs = every_tiny_lm.model(ids).logits.double().log_softmax(dim=-1)[:, 16:-1]
    surprise = -log_probs.gather(2, ids[:, 17:, None])[..., 0]
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    assert (surprise - entropy).mean().abs() < 4 * surprise.std() / surprise.numel() ** 0.5
    assert entropy.mean() < np.log(len(every_tiny_lm.tokenizer)) - 0.2  # or any text would pass


def test_texts_begin_as_the_openings_do(every_tiny_lm, write, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 10)
    openings = [every_tiny_lm.tokenizer(opening)["input_ids"] for opening in OPENINGS]
    width = min(map(len, openings))
    for i, row in enumerate(write(every_tiny_lm, 10).tolist()):
        assert row[:width] == openings[i % 5][:width]


def test_the_seed_determines_the_text_and_global_random_state_stays(tiny_lm, write):
    before = torch.random.get_rng_state()
    first, again, other = write(tiny_lm), write(tiny_lm, folder="again"), write(tiny_lm, seed=1, folder="other")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_blocks_differ_and_one_seeds_blocks_are_not_another_seeds(tiny_lm, write):
    zero, one = write(tiny_lm, 4), write(tiny_lm, 4, seed=1, folder="one")
    blocks = [tuple(block.flatten().tolist()) for ids in (zero, one) for block in ids.split(2)]
    assert len(set(blocks)) == 4


def test_more_text_begins_with_the_same_text_and_writes_only_the_rest(tiny_lm, write):
    short = write(tiny_lm, 3)
    passes = count_passes(tiny_lm)
    longer = write(tiny_lm, 6)
    assert torch.equal(longer[:3], short)
    assert len({tuple(row) for row in longer.tolist()}) == 6
    width = len(tiny_lm.tokenizer("The")["input_ids"])
    assert len(passes) == LENGTH - width  # of the third block alone


def test_an_interrupted_run_resumes_with_the_block_that_it_had_reached(tiny_lm, write):
    whole = write(tiny_lm, 6, folder="whole")
    lm = build_tiny_lm(tiny_lm.model.config.model_type)
    passes = count_passes(lm)
    per_block = LENGTH - len(lm.tokenizer("The")["input_ids"])

    def kill(module, args):
        if len(passes) == per_block + 5:
            raise KeyboardInterrupt

    handle = lm.model.register_forward_pre_hook(kill)
    with pytest.raises(KeyboardInterrupt):
        write(lm, 6)
    handle.remove()
    passes.clear()
    assert torch.equal(write(lm, 6), whole)
    assert len(passes) == 2 * per_block


def test_a_damaged_block_is_written_again(tiny_lm, write, tmp_path, caplog):
    first = write(tiny_lm)
    path = tmp_path / "texts" / "00001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with caplog.at_level(logging.WARNING, logger="workbench.storage.checked"):
        assert torch.equal(write(tiny_lm), first)
    assert caplog.messages == [
        f"the cached file {path} is damaged (its checksum is not that of its content); it is rebuilt."
    ]
    assert path.read_bytes() == content
