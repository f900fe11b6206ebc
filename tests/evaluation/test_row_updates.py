"""Updates of which each row of a batch is run with one: a row answers as the model with its update applied does."""

import pytest
import torch

from tests.helpers import assert_same_bits, error_of, hooks_and_forwards, ids_of, weights_of
from tests.tiny_models import build_tiny_lm
from tests.updates import random_update
from workbench.errors import UpdateError
from workbench.evaluation.decoding import Prefilled, continue_greedily
from workbench.evaluation.natural import answer_naturally, answer_side_by_side
from workbench.evaluation.row_updates import RowUpdates

PROMPTS = ("The Eiffel Tower is located in the city of", "The Colosseum", "Marie Curie was born in")
OPTIONS = (" Paris, and the Louvre", " Rome")


@pytest.fixture
def updates(every_tiny_lm):
    """Give one update of each kind, of different layers."""
    lm = every_tiny_lm
    one, two, three = (random_update(k, lm, seed=i, layer=i) for i, k in enumerate(("LowRank", "Sparse", "Dense")))
    return [one, two + three, three]


def order_of(n_updates):
    """Return updates and prompts of rows, mixed."""
    pairs = [(u, p) for p in range(len(PROMPTS)) for u in range(n_updates)]
    return pairs[1:] + pairs[:1]


def test_each_row_has_the_logits_of_its_update_applied(every_tiny_lm, updates):
    lm, pairs = every_tiny_lm, order_of(len(updates))
    weights, hooks = weights_of(lm), hooks_and_forwards(lm)
    rows = [ids_of(lm, PROMPTS[p]) for _, p in pairs]
    together = Prefilled.empty_with(RowUpdates.of(lm, updates, [u for u, _ in pairs])).extend(rows)
    assert hooks_and_forwards(lm) == hooks
    assert_same_bits(lm, weights)
    for (u, _), row, logits in zip(pairs, rows, together.logits, strict=True):
        with updates[u].applied(lm):
            [alone] = Prefilled.empty(lm, 1).extend([row]).logits
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together.logits[0], together.logits[1], atol=0.1)  # the updates do differ


def test_each_row_scores_options_and_continues_as_with_its_update_applied(every_tiny_lm, updates):
    lm, pairs = every_tiny_lm, order_of(len(updates))
    rows, options = [ids_of(lm, PROMPTS[p]) for _, p in pairs], [ids_of(lm, option) for option in OPTIONS]
    of_rows = RowUpdates.of(lm, updates, [u for u, _ in pairs])
    likelihoods = Prefilled.empty_with(of_rows).extend(rows).log_likelihoods([options] * len(rows))
    lengths = [3 + i % 4 for i in range(len(rows))]  # rows leave the batch at different times
    written = continue_greedily(lm, rows, [()] * len(rows), lengths, batch_size=4, updates=of_rows)
    for i, (u, _) in enumerate(pairs):
        with updates[u].applied(lm):
            [expected] = Prefilled.empty(lm, 1).extend([rows[i]]).log_likelihoods([options])
            assert likelihoods[i] == pytest.approx(expected, rel=1e-4)
            assert [written[i]] == continue_greedily(lm, [rows[i]], [()], [lengths[i]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("applied", [False, True])
def test_answers_side_by_side_are_those_one_after_another(dtype, applied):
    lm = build_tiny_lm("llama", dtype=dtype)
    earlier, *updates = (random_update("LowRank", lm, seed=seed, layer=1) for seed in range(4))
    with lm.restored_after():
        if applied:
            earlier.apply(lm)
        together = answer_side_by_side(lm, updates, PROMPTS)
        for update, answers in zip(updates, together, strict=True):
            with update.applied(lm):
                assert answers == answer_naturally(lm, PROMPTS)
    assert len({tuple(answers) for answers in together}) > 1


def test_an_update_of_another_model_is_refused(tiny_lm):
    other = random_update("Dense", tiny_lm, model="other", fingerprint="0" * 16)
    sentence = error_of(UpdateError, RowUpdates.of, tiny_lm, [other], [0])
    assert sentence.startswith("the update was computed on other ")
