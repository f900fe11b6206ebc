"""Predictions from one padded pass, in which prefixes are shared, equal those from one pass per text."""

import pytest
import torch

import workbench as wb
from tests.explorer.conftest import FACT, SECOND
from workbench.evaluation.edits import probes_of
from workbench.evaluation.predictions import N_TOP, predict_probes


@torch.no_grad()
def logits(lm, ids):
    return lm.model(torch.tensor([ids])).logits[0].float()


def naive(lm, prompt, answer):
    """Return an answer's probability, its first token's distribution, and the argmax at its tokens."""
    whole = lm.tokenizer(f"{prompt} {answer}")["input_ids"]
    n_prompt = len(lm.tokenizer(prompt)["input_ids"])
    rows = logits(lm, whole)[n_prompt - 1 : -1].log_softmax(-1)
    probability = rows.gather(1, torch.tensor(whole[n_prompt:])[:, None]).sum().exp()
    return float(probability), rows[0].exp(), rows.argmax(-1).tolist()


def test_every_number_is_that_of_a_pass_over_the_text_alone(every_tiny_lm):
    lm = every_tiny_lm
    probes = probes_of([FACT, SECOND])
    predictions = predict_probes(lm, probes)
    assert len(predictions) == 6
    for probe, prediction in zip(probes, predictions, strict=True):
        probability, first, argmax = naive(lm, probe.prompt, probe.target)
        top = first.topk(N_TOP)
        assert prediction.probabilities[probe.target] == pytest.approx(probability, rel=1e-3)
        assert prediction.argmax == tuple(argmax)
        assert [t.id for t in prediction.next_tokens] == top.indices.tolist()
        assert [t.text for t in prediction.next_tokens] == [lm.tokenizer.decode([i]) for i in top.indices]
        assert [t.probability for t in prediction.next_tokens] == pytest.approx(top.values.tolist(), rel=1e-3)
        assert prediction.continuation == ""
        if probe.rival is not None:
            rival = prediction.probabilities[probe.rival]
            assert rival == pytest.approx(naive(lm, probe.prompt, probe.rival)[0], rel=1e-3)


def test_probabilities_are_products_over_the_tokens_and_continuations_greedy(tiny_lm):
    request = wb.EditRequest(
        "The Eiffel Tower", "{} is in", "the old bridge", "Rome", locality=(wb.LocalityProbe("The Louvre", "is old"),)
    )
    predictions = predict_probes(tiny_lm, probes_of([request]), n_top=3, n_continued=12)
    assert len(predictions) == 2
    for prompt, prediction in zip(("The Eiffel Tower is in", "The Louvre"), predictions, strict=True):
        ids = tiny_lm.tokenizer(prompt)["input_ids"]
        for answer, probability in prediction.probabilities.items():
            whole = tiny_lm.tokenizer(f"{prompt} {answer}")["input_ids"]
            log_probs = logits(tiny_lm, whole).double().log_softmax(-1)
            expected = sum(log_probs[i - 1, whole[i]] for i in range(len(ids), len(whole))).exp()
            assert probability == pytest.approx(float(expected), rel=1e-4)
        top = logits(tiny_lm, ids)[-1].double().softmax(-1).topk(3)
        assert [t.text for t in prediction.next_tokens] == [tiny_lm.tokenizer.decode([i]) for i in top.indices]
        assert [t.probability for t in prediction.next_tokens] == pytest.approx(top.values.tolist(), rel=1e-4)
        written = []
        for _ in range(12):
            written.append(int(logits(tiny_lm, ids + written)[-1].argmax()))
            if written[-1] == tiny_lm.tokenizer.eos_token_id:
                break
        assert prediction.continuation == tiny_lm.tokenizer.decode(written, skip_special_tokens=True)
    assert list(predictions[0].probabilities) == ["the old bridge", "Rome"]
    assert list(predictions[1].probabilities) == ["is old", "the old bridge"]


def test_all_texts_take_one_pass_and_prefixes_of_other_texts_are_not_run(tiny_lm):
    seen = []
    handle = tiny_lm.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    one_token = wb.EditRequest(subject="Edith", prompt="The mother tongue of {} is", target_new="a", target_true="b")
    predict_probes(tiny_lm, probes_of([one_token, one_token]))
    handle.remove()
    assert seen == [1]


def test_no_probes_have_no_predictions(tiny_lm):
    assert predict_probes(tiny_lm, []) == []
