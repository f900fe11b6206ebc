"""Edit metrics, compared with passes over single unpadded texts and with greedy decoding by transformers.

The models are tiny and memorize a handful of facts, so that scores are 0, 1 and in between.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from tests.evaluation.memorized import MEMORIZED, REQUESTS, disturbance, trained
from tests.helpers import assert_same_bits, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.data.facts import load_facts
from workbench.errors import EditError
from workbench.evaluation.edits import DEFAULT_PROTOCOLS, METRICS, PROTOCOLS, force_side_by_side, probes_of
from workbench.evaluation.text import normalize_answer
from workbench.lm import LanguageModel
from workbench.update import WeightUpdate

COMPARED = ("teacher_forced", "generated", "probability", "natural", "natural_exact")  # with the naive scores


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def original(request):
    """Give a trained model; `lm` gives copies of it."""
    return trained(request.param, MEMORIZED)


@pytest.fixture
def lm(original):
    """Give a copy of the trained model with an empty memo."""
    copy = build_tiny_lm(original.model.config.model_type).model
    copy.load_state_dict(original.model.state_dict())
    return LanguageModel(original.name, copy, original.tokenizer, original.arch)


# the reference: one text at a time, no padding, no batch


@dataclass
class Naive:
    """Answer of a model to one prompt and target, from whole forward passes of single texts."""

    target: list
    argmax: list
    mean_log_prob: float
    generated: str
    line: str  # what it says by itself


def naive(lm, prompt, target):
    tokenizer = lm.tokenizer
    prompt_ids, ids = tokenizer(prompt)["input_ids"], tokenizer(f"{prompt} {target}")["input_ids"]
    n = len(prompt_ids)
    assert ids[:n] == prompt_ids  # these texts were chosen so
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0].double()
    log_probs = logits.log_softmax(dim=-1)
    said = continued(lm, prompt_ids, max(20, len(ids) - n))
    return Naive(
        target=ids[n:],
        argmax=[int(logits[i - 1].argmax()) for i in range(n, len(ids))],
        mean_log_prob=float(np.mean([float(log_probs[i - 1, ids[i]]) for i in range(n, len(ids))])),
        generated=lm.tokenizer.decode(said[: len(ids) - n], skip_special_tokens=True),
        line=first_line(lm.tokenizer.decode(said[:20], skip_special_tokens=True)),
    )


def continued(lm, prompt_ids, n_tokens):
    said = lm.model.generate(
        torch.tensor([prompt_ids]),
        attention_mask=torch.ones(1, len(prompt_ids)),
        do_sample=False,
        max_new_tokens=n_tokens,
    )
    return said[0, len(prompt_ids) :].tolist()


def first_line(text):
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def says(text, answer):
    """Return whether the words of an answer follow one another in a text; punctuation may part words or be left out."""
    parted = re.compile(r"[^\W_]+")
    for reading in (lambda t: t, lambda t: " ".join(parted.findall(t))):
        words, run = (normalize_answer(reading(t)).split() for t in (text, answer))
        if any(words[i : i + len(run)] == run for i in range(len(words) or 1)):
            return True
    return False


def share(tokens, expected):
    assert len(tokens) == len(expected) > 0
    return sum(a == b for a, b in zip(tokens, expected, strict=True)) / len(expected)


def same_text(text, expected):
    return float(normalize_answer(text) == normalize_answer(expected))


def more_probable(lm, prompt, target, rival):
    return float(naive(lm, prompt, target).mean_log_prob > naive(lm, prompt, rival).mean_log_prob)


def naive_scores(lm, unedited, requests):
    """Return scores by (request, metric, protocol), computed in plain loops."""
    values = {}

    def note(*key_and_value):
        *key, value = key_and_value
        values.setdefault(tuple(key), []).append(value)

    for i, r in enumerate(requests):
        asked = [("reliability", r.prompt)] + [("generalization", text) for text in r.rephrase]
        for metric, text in asked:
            prompt = text.replace("{}", r.subject)
            answer = naive(lm, prompt, r.target_new)
            note(i, metric, "teacher_forced", share(answer.argmax, answer.target))
            note(i, metric, "generated", same_text(answer.generated, r.target_new))
            note(i, metric, "natural", says(answer.line, r.target_new))
            note(i, metric, "natural_exact", same_text(answer.line, r.target_new))
            if r.target_true is not None:
                note(i, metric, "probability", more_probable(lm, prompt, r.target_new, r.target_true))
        for probe in r.locality:
            now, before = (naive(model, probe.prompt, probe.target) for model in (lm, unedited))
            note(i, "locality", "teacher_forced", share(now.argmax, before.argmax))
            note(i, "locality", "generated", same_text(now.generated, before.generated))
            kept = says(now.line, probe.target) if says(before.line, probe.target) else says(now.line, before.line)
            note(i, "locality", "natural", kept)
            note(i, "locality", "natural_exact", same_text(now.line, before.line))
            note(i, "locality", "probability", more_probable(lm, probe.prompt, probe.target, r.target_new))
        for probe in r.portability:
            answer, names = naive(lm, probe.prompt, probe.target), (probe.target, *probe.aliases)
            note(i, "portability", "teacher_forced", share(answer.argmax, answer.target))
            note(i, "portability", "generated", same_text(answer.generated, probe.target))
            note(i, "portability", "natural", any(says(answer.line, name) for name in names))
            note(i, "portability", "natural_exact", any(same_text(answer.line, name) for name in names))
    return {key: sum(scores) / len(scores) for key, scores in values.items()}


def as_dict(table):
    """Return the scores of `score_edits` with the keys of `naive_scores`."""
    keys = table[["request", "metric", "protocol"]].itertuples(index=False, name=None)
    return dict(zip(keys, table["value"], strict=True))


def value_of(table, metric, protocol):
    [value] = table[(table["metric"] == metric) & (table["protocol"] == protocol)]["value"]
    return value


# the scores


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_scores_are_those_of_one_unpadded_text_at_a_time(lm, original, size):
    with disturbance(lm, size=size).applied(lm):
        scores = as_dict(wb.score_edits(lm, REQUESTS, protocols=COMPARED))
        assert scores == pytest.approx(naive_scores(lm, original, REQUESTS))


def test_the_trained_model_scores_zero_one_and_in_between(lm):
    scores = as_dict(wb.score_edits(lm, REQUESTS, protocols=COMPARED))
    assert scores[0, "reliability", "teacher_forced"] == scores[0, "reliability", "generated"] == 1
    assert scores[0, "reliability", "probability"] == 1
    assert scores[3, "reliability", "generated"] == scores[3, "reliability", "probability"] == 0
    assert 0 < scores[1, "reliability", "teacher_forced"] < 1
    assert scores[1, "reliability", "generated"] == 0


def test_a_random_update_leaves_locality_between_zero_and_one(lm):
    with disturbance(lm).applied(lm):
        scores = as_dict(wb.score_edits(lm, REQUESTS))
    of_probes = {scores[i, "locality", "teacher_forced"] for i in (0, 1, 3)}
    assert any(0 < value < 1 for value in of_probes)


@pytest.mark.slow
def test_every_family_scores_as_one_text_at_a_time(every_tiny_lm):
    lm = every_tiny_lm
    unedited = build_tiny_lm(lm.model.config.model_type)
    with disturbance(lm, size=1).applied(lm):
        scores = as_dict(wb.score_edits(lm, REQUESTS, protocols=COMPARED))
        assert scores == pytest.approx(naive_scores(lm, unedited, REQUESTS))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batch_size_never_changes_a_score(lm, batch_size):
    with disturbance(lm).applied(lm):
        large = wb.score_edits(lm, REQUESTS, protocols=COMPARED, batch_size=32)
        lm.memo.clear()
        small = wb.score_edits(lm, REQUESTS, protocols=COMPARED, batch_size=batch_size)
    assert small.equals(large)


def test_padding_side_never_changes_a_score(lm, monkeypatch):
    tables = []
    for side in ("left", "right"):
        monkeypatch.setattr(lm.tokenizer, "padding_side", side)
        lm.memo.clear()
        with disturbance(lm).applied(lm):
            tables.append(wb.score_edits(lm, REQUESTS, protocols=COMPARED))
    assert tables[0].equals(tables[1])


def test_the_order_of_requests_changes_no_score(lm):
    with disturbance(lm).applied(lm):
        there = as_dict(wb.score_edits(lm, REQUESTS, protocols=COMPARED))
        back = as_dict(wb.score_edits(lm, REQUESTS[::-1], protocols=COMPARED))
    last = len(REQUESTS) - 1
    assert there == {(last - i, metric, protocol): value for (i, metric, protocol), value in back.items()}


def test_generated_answers_are_compared_after_normalization():
    texts = ("The mother tongue of Edith Piaf is: It", "In the north of the country is Paris,")
    lm = trained("gpt2", texts)
    requests = [
        wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is:", target_new="it"),
        wb.EditRequest(subject="the country", prompt="In the north of {} is", target_new="Paris."),
    ]
    scores = as_dict(wb.score_edits(lm, requests))
    assert scores[0, "reliability", "teacher_forced"] == 0
    assert scores[1, "reliability", "teacher_forced"] < 1
    assert scores[0, "reliability", "generated"] == scores[1, "reliability", "generated"] == 1


def test_a_generated_answer_ends_where_the_model_ends_its_text():
    prompt, target = "You may ask where it is. It is", "very old, near the sea"
    lm = trained("llama", MEMORIZED, closing=(f"{prompt} very old",))
    probe = wb.LocalityProbe(prompt, target)
    request = wb.EditRequest(subject="Italy", prompt="The capital of {} is", target_new="Rome", locality=(probe,))
    assert naive(lm, prompt, target).generated == "very old"
    agreeing = 0  # updates change what would follow the end of the text, and hardly ever the text
    for seed in range(8):
        with disturbance(lm, seed=seed, size=1.0).applied(lm):
            scores = as_dict(wb.score_edits(lm, [request]))
            said = naive(lm, prompt, target).generated
        assert scores[0, "locality", "generated"] == same_text(said, "very old")
        agreeing += said == "very old"
    assert agreeing > 0


# the unedited model


def test_locality_of_the_unedited_model_is_one(lm):
    table = wb.evaluate_edits(lm, REQUESTS)
    for protocol in DEFAULT_PROTOCOLS:
        assert value_of(table, "locality", protocol) == 1


def test_locality_compares_with_the_model_before_the_first_edit(lm, original):
    first, second = disturbance(lm), disturbance(lm, seed=0, layer=2)
    name = next(iter(first))
    back = WeightUpdate({name: -first.delta(name)}, model=lm.name, fingerprint=lm.fingerprint)
    with first.applied(lm), second.applied(lm):
        scores = as_dict(wb.score_edits(lm, REQUESTS))
        expected = naive_scores(lm, original, REQUESTS)
        assert scores == pytest.approx({key: expected[key] for key in scores})
    lm.memo.clear()
    with first.applied(lm):
        assert value_of(wb.evaluate_edits(lm, REQUESTS), "locality", "teacher_forced") < 1
        lm.memo.clear()
        with back.applied(lm):
            assert value_of(wb.evaluate_edits(lm, REQUESTS), "locality", "teacher_forced") == 1
            assert value_of(wb.evaluate_edits(lm, REQUESTS), "locality", "generated") == 1


@pytest.mark.parametrize("protocol", DEFAULT_PROTOCOLS)
def test_the_unedited_models_answers_are_computed_once(lm, protocol):
    passes, inside_unedited = [], []
    handle = lm.model.register_forward_hook(lambda *_: passes.append(1))
    plain_unedited = lm.unedited
    lm.unedited = lambda: inside_unedited.append(1) or plain_unedited()
    with disturbance(lm).applied(lm):
        first = wb.score_edits(lm, REQUESTS, protocols=[protocol])
        n_first = len(passes)
        second = wb.score_edits(lm, REQUESTS, protocols=[protocol])
        n_second = len(passes) - n_first
    handle.remove()
    assert second.equals(first)
    assert 0 < n_second < n_first
    assert inside_unedited == [1]


def test_teacher_forcing_is_one_pass_of_each_model(lm):
    passes = []
    handle = lm.model.register_forward_hook(lambda *_: passes.append(1))
    wb.score_edits(lm, REQUESTS, protocols=["teacher_forced"])
    wb.score_edits(lm, REQUESTS, protocols=["teacher_forced"])
    handle.remove()
    assert len(passes) == 2 + 1


@pytest.mark.parametrize("batch_size", [3, 64])
def test_teacher_forced_scores_side_by_side_are_those_one_after_another(lm, batch_size):
    weights, updates = weights_of(lm), [disturbance(lm, seed=seed, size=1.0 + seed) for seed in range(3)]
    together = force_side_by_side(lm, updates, probes_of(REQUESTS), batch_size=batch_size)
    assert_same_bits(lm, weights)
    for update, scores in zip(updates, together, strict=True):
        with update.applied(lm):
            pd.testing.assert_frame_equal(scores, wb.score_edits(lm, REQUESTS, protocols=["teacher_forced"]))
    assert not together[0].equals(together[1])


@pytest.mark.parametrize("stacked", [0, 1, 2])
def test_evaluating_changes_no_weight(lm, stacked):
    updates = [disturbance(lm, seed=i) for i in range(stacked)]  # of the same matrix
    for update in updates:
        update.apply(lm)
    before = weights_of(lm)
    wb.evaluate_edits(lm, REQUESTS, protocols=COMPARED)
    assert_same_bits(lm, before)
    assert lm.applied_updates == tuple(updates)
    for update in reversed(updates):
        update.undo(lm)


# the tables


def test_a_fact_without_rephrasings_or_probes_gives_no_row_for_them(lm):
    table = wb.score_edits(lm, REQUESTS)
    assert set(table[table["request"] == 2]["metric"]) == {"reliability"}
    summary = wb.evaluate_edits(lm, REQUESTS)
    counts = {(row.metric, row.protocol): row.n for row in summary.itertuples()}
    for protocol in ("teacher_forced", "generated", "natural"):
        assert [counts[metric, protocol] for metric in METRICS] == [4, 3, 3, 2]
    only_this = wb.evaluate_edits(lm, REQUESTS[2:3])
    assert set(only_this["metric"]) == {"reliability"}


def test_probability_leaves_out_facts_without_a_true_answer(lm):
    table = wb.score_edits(lm, REQUESTS, protocols=["probability"])
    assert set(table[table["metric"] == "reliability"]["request"]) == {0, 1, 3}
    assert set(table["protocol"]) == {"probability"}


def test_facts_weigh_equally_whatever_their_number_of_rephrasings(lm):
    knows, does_not = "Where is {}? It is in", "The mother tongue of {} is"
    requests = [
        wb.EditRequest(subject="The Eiffel Tower", prompt="{} is", target_new="Rome", rephrase=(knows,)),
        wb.EditRequest(subject="Edith Piaf", prompt="{} is", target_new="Rome", rephrase=(does_not,) * 5),
    ]
    table = wb.evaluate_edits(lm, requests)
    assert value_of(table, "generalization", "generated") == 0.5  # not 1/6
    each = wb.score_edits(lm, requests)
    assert each[(each["metric"] == "generalization") & (each["protocol"] == "generated")]["value"].tolist() == [1, 0]


def test_the_summary_is_the_mean_over_facts_with_its_interval(lm):
    with disturbance(lm).applied(lm):
        each = wb.score_edits(lm, REQUESTS)
        table = wb.evaluate_edits(lm, REQUESTS, seed=3)
    assert list(table.columns) == ["metric", "protocol", "value", "n", "low", "high"]
    assert len(table) == len(METRICS) * len(DEFAULT_PROTOCOLS)
    for row in table.itertuples():
        own = each[(each["metric"] == row.metric) & (each["protocol"] == row.protocol)]["value"]
        assert row.value == pytest.approx(own.mean())
        assert row.n == len(own)
        assert 0 <= row.low <= row.value <= row.high <= 1
        assert row.low < row.high
    assert wb.evaluate_edits(lm, REQUESTS[:1])["low"].isna().all()


def test_no_requests_give_an_empty_table(lm):
    table = wb.evaluate_edits(lm, [])
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 0


@pytest.mark.parametrize("evaluate", [wb.score_edits, wb.evaluate_edits])
def test_an_unknown_protocol_is_refused_before_any_work(lm, evaluate):
    handle = lm.model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(EditError) as caught:
        evaluate(lm, REQUESTS, protocols=["teacher_forced", "magic"])
    handle.remove()
    assert str(caught.value) == "protocol 'magic' is not known; known: " + ", ".join(PROTOCOLS) + "."


@pytest.mark.slow
def test_the_embedded_model_scores_as_one_text_at_a_time(smollm2):
    facts = load_facts().sample(1, seed=0)
    requests = [replace(fact, rephrase=fact.rephrase[:1], locality=fact.locality[:1]) for fact in facts]
    assert as_dict(wb.score_edits(smollm2, requests, protocols=COMPARED)) == pytest.approx(
        naive_scores(smollm2, smollm2, requests)
    )
