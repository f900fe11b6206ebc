"""MEND's losses, against models that are really edited, and the draws that they are computed on."""

import random
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from tests.editing.mend.networks import FACTS, logits_before_target
from tests.tiny_models import build_tiny_lm
from workbench.editing.mend.corpus import Corpus
from workbench.editing.mend.editor import MEND
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.losses import Draw, draw_edits, losses_after, sizes_that_fit
from workbench.editing.mend.network import MendNetwork, save_network


def corpus_and_network(lm, *, edit_lr=0.01, dtype=torch.float32):
    """A network away from its neutral start, and facts."""
    names, generator = weights_to_edit(lm), torch.Generator().manual_seed(3)
    network = MendNetwork.untrained(lm, names, rank=4, edit_lr=edit_lr)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            if name.endswith((".U", ".V")):
                parameter.copy_(parameter.half().float())
    return Corpus(lm, FACTS, names), network.to(dtype)


# the losses


def test_the_losses_are_those_of_a_model_that_is_really_edited(every_tiny_lm, tmp_path):
    lm = every_tiny_lm
    corpus, network = corpus_and_network(lm)
    mend = MEND(network=str(save_network(network, tmp_path / "mend.safetensors", lm)))
    pair, other, silent = [FACTS[1], FACTS[8]], FACTS[4], FACTS[6]
    draws = [[Draw(i, (corpus.facts[i].edit, corpus.facts[i].rephrased[0]), corpus.facts[i].unrelated) for i in (1, 8)]]
    draws[0][1] = replace(draws[0][1], unrelated=(corpus.facts[4].before,))
    draws[0].append(Draw(6, (), ()))  # takes part in the edit only
    losses = losses_after(corpus, network, draws)
    elsewhere = [(pair[0].locality[0].prompt, pair[0].locality[0].target), (other.filled_prompt, other.target_true)]
    before = [logits_before_target(lm, *text)[0] for text in elsewhere]
    with mend.compute_update(lm, [*pair, silent]).applied(lm):
        nll = [
            cross_entropy(*logits_before_target(lm, prompt, r.target_new))
            for r in pair
            for prompt in (r.filled_prompt, r.filled_rephrase[0])
        ]
        after = [logits_before_target(lm, *text)[0] for text in elsewhere]
    lm.memo.clear()
    before, after = torch.cat(before).log_softmax(-1), torch.cat(after).log_softmax(-1)
    kl = kl_div(after, before, log_target=True, reduction="batchmean")
    assert losses.edit.item() == pytest.approx(float(torch.stack(nll).mean()), rel=1e-4)
    assert losses.locality.item() == pytest.approx(float(kl), rel=1e-3)
    assert losses.locality_agreement == float((before.argmax(-1) == after.argmax(-1)).double().mean())


def test_edits_made_side_by_side_do_not_see_each_other(tiny_lm):
    corpus, network = corpus_and_network(tiny_lm)
    rng = random.Random(0)
    draws = [[Draw(i, (corpus.facts[i].edit,), (corpus.facts[rng.randrange(12)].before,))] for i in (1, 2, 6)]
    together = losses_after(corpus, network, draws)
    alone = [losses_after(corpus, network, [draw]) for draw in draws]
    assert together.edit.item() == pytest.approx(sum(each.edit.item() for each in alone) / 3, rel=1e-5)


def test_the_gradient_of_the_losses_is_a_finite_difference():
    lm = build_tiny_lm("gpt2", dtype=torch.float64)  # the norms of a Llama compute in float32 whatever its weights are
    corpus, network = corpus_and_network(lm, dtype=torch.float64)
    draws = draw_edits(corpus, 4, (2,), seed="0")

    def loss():
        found = losses_after(corpus, network, draws)
        return found.edit + found.locality

    parameters = dict(network.named_parameters())
    grads = dict(zip(parameters, torch.autograd.grad(loss(), list(parameters.values())), strict=True))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in parameters.items():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter += sign * 1e-6 * direction
                values.append(float(loss()))
                parameter -= sign * 1e-6 * direction
        expected = (values[0] - values[1]) / 2e-6
        assert float((grads[name] * direction).sum()) == pytest.approx(expected, rel=1e-3, abs=1e-8), name


def test_the_normalization_is_mean_and_deviation_of_the_training_factors(tiny_lm):
    names = weights_to_edit(tiny_lm)
    corpus = Corpus(tiny_lm, FACTS, names)
    network = MendNetwork.untrained(tiny_lm, names, rank=4)
    network.normalize_by(corpus.factors)
    index = dict.fromkeys(network.shapes.values(), 0)
    for name, shape in network.shapes.items():
        transform = network.transforms[f"{shape[0]}x{shape[1]}"]
        z = torch.cat([torch.cat(factors[name], dim=1) for factors in corpus.factors]).double().numpy()
        i = index[shape]
        assert transform.mean[i].numpy() == pytest.approx(z.mean(axis=0), rel=1e-4, abs=1e-7)
        assert transform.std[i].numpy() == pytest.approx(z.std(axis=0, ddof=1), rel=1e-4)
        index[shape] += 1
    assert sum(index.values()) == len(names)


# what is drawn


def test_a_step_draws_different_facts_and_always_the_same(tiny_lm):
    corpus = Corpus(tiny_lm, FACTS, weights_to_edit(tiny_lm))
    seen = set()
    for step in range(30):
        edits = draw_edits(corpus, 4, (1, 2, 4), seed=f"0 {step}")
        assert edits == draw_edits(corpus, 4, (1, 2, 4), seed=f"0 {step}")
        drawn = [draw.fact for edit in edits for draw in edit]
        assert len(set(drawn)) == 4
        assert len({len(edit) for edit in edits}) == 1
        for edit in edits:
            for draw in edit:  # what this step writes is not asked to stay
                assert not {corpus.facts[i].before for i in drawn} & set(draw.unrelated)
        seen.add(len(edits))
    assert seen == {1, 2, 4}


def test_an_edit_of_more_facts_than_a_step_has_losses_for_asks_for_as_many_as_it_can(tiny_lm):
    corpus = Corpus(tiny_lm, FACTS, weights_to_edit(tiny_lm))
    for step in range(20):
        [edit] = draw_edits(corpus, 4, (7,), seed=f"0 {step}")
        assert len({draw.fact for draw in edit}) == 7
        assert [bool(draw.edited and draw.unrelated) for draw in edit] == [True] * 4 + [False] * 3
        for draw in edit:
            assert not {corpus.facts[d.fact].before for d in edit} & set(draw.unrelated)


@pytest.mark.parametrize(
    ("n_facts", "n_known", "sizes"),
    [
        (10, 1000, (1, 2, 10, 30)),
        (10, 30, (1, 2, 10)),  # one fact must be left out
        (10, 6, (1,)),  # losses for five facts: two do not divide them
        (7, 31, (1, 10, 30)),
    ],
)
def test_the_sizes_that_fit_divide_the_facts_of_a_step_or_exceed_them(n_facts, n_known, sizes):
    assert sizes_that_fit((1, 2, 10, 30), n_facts=n_facts, n_known=n_known) == sizes


def test_where_no_size_fits_facts_are_edited_one_by_one():
    assert sizes_that_fit((30,), n_facts=10, n_known=12) == (1,)
