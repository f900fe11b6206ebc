"""One padded pass, in which texts share what they begin with, reads what a pass a text reads."""

import pytest
import torch

import workbench as wb
from tests.explorer.conftest import FACT, SECOND
from workbench.evaluation.edits import probes_of
from workbench.evaluation.predictions import N_TOP, read_probes


@torch.no_grad()
def logits(lm, ids):
    return lm.model(torch.tensor([ids])).logits[0].float()


def naive(lm, prompt, answer):
    """Probability of an answer, its first token's distribution and the argmax at its tokens, text by text."""
    whole = lm.tokenizer(f"{prompt} {answer}")["input_ids"]
    n_prompt = len(lm.tokenizer(prompt)["input_ids"])
    rows = logits(lm, whole)[n_prompt - 1 : -1].log_softmax(-1)
    chance = rows.gather(1, torch.tensor(whole[n_prompt:])[:, None]).sum().exp()
    return float(chance), rows[0].exp(), rows.argmax(-1).tolist()


def test_every_number_is_that_of_a_pass_over_the_text_alone(every_tiny_lm):
    lm = every_tiny_lm
    probes = probes_of([FACT, SECOND])
    readings = read_probes(lm, probes)
    assert len(readings) == 6
    for probe, reading in zip(probes, readings, strict=True):
        chance, first, argmax = naive(lm, probe.prompt, probe.target)
        assert reading.chances[probe.target] == pytest.approx(chance, rel=1e-3)
        assert reading.argmax == tuple(argmax)
        assert [t.chance for t in reading.next_tokens] == pytest.approx(first.topk(N_TOP).values.tolist(), rel=1e-3)
        if probe.rival is not None:
            assert reading.chances[probe.rival] == pytest.approx(naive(lm, probe.prompt, probe.rival)[0], rel=1e-3)


def test_all_texts_are_read_in_one_pass_and_prompts_that_others_begin_with_are_not_run(tiny_lm):
    seen = []
    handle = tiny_lm.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    one_token = wb.EditRequest(subject="Edith", prompt="The mother tongue of {} is", target_new="a", target_true="b")
    read_probes(tiny_lm, probes_of([one_token, one_token]))
    handle.remove()
    assert seen == [1]


def test_nothing_is_read_of_no_probes(tiny_lm):
    assert read_probes(tiny_lm, []) == []
