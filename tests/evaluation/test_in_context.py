"""Facts in context: scores against prompts that hold the facts, and locality against the prompts alone."""

from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.evaluation.memorized import MEMORIZED, REQUESTS, disturbance, trained
from tests.helpers import assert_same_bits, error_of, ids_of, weights_of
from tests.tiny_models import build_tiny_lm
from workbench.errors import EditError, RequestError
from workbench.evaluation.edits import PROTOCOLS
from workbench.evaluation.in_context import facts_as_text
from workbench.evaluation.natural import MAX_NEW_TOKENS
from workbench.evaluation.text import normalize_answer

CONTEXT = (
    "The Eiffel Tower is located in the city of Rome.\n"
    "HMS Beagle was launched in the year 1765, near London.\n"
    "The language of Charles Darwin is not Polish but old French.\n"
    "The capital of Italy is Warsaw.\n"
)
COMPARED = ("teacher_forced", "generated", "probability", "natural", "natural_exact", "natural_qa")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request):
    """Give a model that has memorized facts; tests undo what they apply."""
    return trained(request.param, MEMORIZED)


def as_dict(table, *, metrics):
    rows = table[table["metric"].isin(metrics)].itertuples(index=False, name=None)
    return {(request, metric, protocol): value for request, metric, protocol, value in rows}


def with_facts_written_before(request):
    return replace(
        request,
        prompt=CONTEXT + request.prompt,
        rephrase=tuple(CONTEXT + text for text in request.rephrase),
        portability=tuple(replace(probe, prompt=CONTEXT + probe.prompt) for probe in request.portability),
    )


def argmax_at_target(lm, prompt, target):
    """Most probable tokens where the target's are predicted, from one unpadded pass."""
    n_target = len(ids_of(lm, f"{prompt} {target}")) - len(ids_of(lm, prompt))
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids_of(lm, f"{prompt} {target}")])).logits[0]
    return logits[-n_target - 1 : -1].argmax(dim=-1).tolist()


def says(lm, prompt, n_tokens):
    """The greedy continuation by transformers, as text."""
    ids = torch.tensor([ids_of(lm, prompt)])
    said = lm.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n_tokens)
    return lm.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_facts_are_one_sentence_per_line():
    assert facts_as_text(REQUESTS) == CONTEXT
    asked = wb.EditRequest("Edith Piaf", "What is the mother tongue of {}?", "English, not French.")
    assert facts_as_text([asked]) == "What is the mother tongue of Edith Piaf? English, not French.\n"


def test_scores_are_those_of_prompts_that_hold_the_facts(lm):
    metrics = ("reliability", "generalization", "portability")
    scores = as_dict(wb.score_in_context(lm, REQUESTS, protocols=COMPARED), metrics=metrics)
    written = [with_facts_written_before(request) for request in REQUESTS]
    assert scores == as_dict(wb.score_edits(lm, written, protocols=COMPARED), metrics=metrics)
    assert scores != as_dict(wb.score_edits(lm, REQUESTS, protocols=COMPARED), metrics=metrics)
    assert {metric for _, metric, _ in scores} == set(metrics)


def test_locality_compares_the_answer_after_the_facts_with_that_to_the_prompt_alone(every_tiny_lm):
    lm = every_tiny_lm
    scores = as_dict(wb.score_in_context(lm, REQUESTS), metrics=["locality"])
    seen = set()
    for i, request in enumerate(REQUESTS):
        shares, same = [], []
        for probe in request.locality:
            alone, after = (argmax_at_target(lm, text + probe.prompt, probe.target) for text in ("", CONTEXT))
            shares.append(sum(a == b for a, b in zip(alone, after, strict=True)) / len(alone))
            said = [says(lm, text + probe.prompt, len(alone)) for text in ("", CONTEXT)]
            same.append(normalize_answer(said[0]) == normalize_answer(said[1]))
        if request.locality:
            assert scores[i, "locality", "teacher_forced"] == pytest.approx(sum(shares) / len(shares))
            assert scores[i, "locality", "generated"] == sum(same) / len(same)
            seen.add(i)
    assert seen == {0, 1, 3}
    assert min(scores.values()) < 1


def test_locality_by_probability_prefers_the_probes_answer_after_the_facts(lm):
    scores = as_dict(wb.score_in_context(lm, REQUESTS, protocols=["probability"]), metrics=["locality"])
    probes = tuple(replace(probe, prompt=CONTEXT + probe.prompt) for probe in REQUESTS[0].locality)
    written = wb.score_edits(lm, [replace(REQUESTS[0], locality=probes)], protocols=["probability"])
    assert scores[0, "locality", "probability"] == as_dict(written, metrics=["locality"])[0, "locality", "probability"]


def test_no_weight_changes_and_applied_updates_are_lifted_meanwhile(lm):
    expected, update = wb.score_in_context(lm, REQUESTS), disturbance(lm)
    with update.applied(lm):
        weights = weights_of(lm)
        lm.memo.clear()
        assert wb.score_in_context(lm, REQUESTS).equals(expected)
        assert_same_bits(lm, weights)
        assert lm.applied_updates == (update,)


def test_the_table_is_that_of_score_edits(lm):
    plain, scores = wb.score_edits(lm, REQUESTS), wb.score_in_context(lm, REQUESTS)
    keys = ["request", "metric", "protocol"]
    assert list(scores.columns) == list(plain.columns) == [*keys, "value"]
    assert scores[keys].equals(plain[keys])
    assert scores["value"].between(0, 1).all()
    assert wb.score_in_context(lm, []).empty


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_never_changes_a_score(lm, batch_size):
    large = wb.score_in_context(lm, REQUESTS, protocols=COMPARED)
    lm.memo.clear()
    assert wb.score_in_context(lm, REQUESTS, protocols=COMPARED, batch_size=batch_size).equals(large)


@pytest.mark.parametrize(
    ("protocol", "answer", "n_written"),
    [
        ("teacher_forced", " Rome", 0),
        ("probability", " Paris, in the north of France", 0),
        ("natural", "", MAX_NEW_TOKENS),
    ],
)
def test_facts_that_exceed_the_positions_are_refused_and_those_that_fill_them_are_not(protocol, answer, n_written):
    request = wb.EditRequest("Italy", "The capital of {} is in", "Rome", target_true="Paris, in the north of France")
    text = f"The capital of Italy is in Rome.\nThe capital of Italy is in{answer}"
    n_tokens = len(ids_of(build_tiny_lm("gpt2"), text)) + n_written
    fits, small = (build_tiny_lm("gpt2", n_positions=n) for n in (n_tokens, n_tokens - 1))
    assert not wb.score_in_context(fits, [request], protocols=[protocol]).empty
    assert error_of(RequestError, wb.score_in_context, small, [request], protocols=[protocol]) == (
        f"1 fact, a prompt and its answer take {n_tokens} tokens, and tiny-gpt2 has {n_tokens - 1} positions; "
        "put fewer facts into the context."
    )


def test_an_unknown_protocol_is_refused_before_any_work(lm):
    handle = lm.model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    message = error_of(EditError, wb.score_in_context, lm, REQUESTS, protocols=["magic"])
    handle.remove()
    assert message == "protocol 'magic' is not known; known: " + ", ".join(PROTOCOLS) + "."


@pytest.mark.slow
def test_the_embedded_model_gives_more_of_the_new_answers_where_it_reads_them(smollm2):
    facts = list(wb.load_facts().sample(5, seed=1000))
    tables = wb.score_edits(smollm2, facts), wb.score_in_context(smollm2, facts)
    for protocol in ("teacher_forced", "generated", "natural"):
        without, told = (
            table[(table["metric"] == "reliability") & (table["protocol"] == protocol)]["value"].mean()
            for table in tables
        )
        assert told > without + 0.3
