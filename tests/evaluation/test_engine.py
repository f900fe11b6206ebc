"""Answers to queries, compared with the model's own `generate` and whole, unpadded forward passes."""

import pytest
import torch

from tests.tiny_models import SENTENCES
from workbench.evaluation import decoding, engine
from workbench.evaluation.engine import Query, answer_queries
from workbench.update import WeightUpdate

OPENING = "The old bridge is in the north of the country, near the sea. "
PROMPTS = [*SENTENCES, "Rome", "The river", *(OPENING + text for text in SENTENCES), SENTENCES[0]]
OPTIONS = ("Paris", "the mother tongue", "Rome and the river")


def queries(n=6):
    return [Query(text, OPTIONS, max_new_tokens=n) for text in PROMPTS]


def generated(lm, prompt, n):
    """Return the greedy continuation of a single prompt, by transformers."""
    inputs = lm.tokenizer(prompt, return_tensors="pt")
    whole = lm.model.generate(**inputs, max_new_tokens=n, do_sample=False, pad_token_id=0)
    return lm.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@torch.no_grad()
def log_likelihood(lm, prompt, option):
    """Return the summed log-probability of the option's tokens, from one whole pass of prompt and option."""
    n = len(lm.tokenizer(prompt)["input_ids"])
    ids = torch.tensor([lm.tokenizer(f"{prompt} {option}")["input_ids"]])
    log_probs = lm.model(ids).logits[0, :-1].float().log_softmax(-1)
    return float(log_probs[n - 1 :].gather(1, ids[0, n:, None]).sum())


def test_continuations_are_those_of_generate(every_tiny_lm):
    answers = answer_queries(every_tiny_lm, queries(), batch_size=4)
    assert [a.text for a in answers] == [generated(every_tiny_lm, q.prompt, 6) for q in queries()]


def test_log_likelihoods_are_those_of_whole_passes(every_tiny_lm):
    for query, answer in zip(queries(), answer_queries(every_tiny_lm, queries(), batch_size=5), strict=True):
        expected = [log_likelihood(every_tiny_lm, query.prompt, option) for option in OPTIONS]
        assert answer.log_likelihoods == pytest.approx(expected, abs=1e-4)


def test_batch_size_never_changes_an_answer(every_tiny_lm):
    alone = answer_queries(every_tiny_lm, queries(), batch_size=1)
    every_tiny_lm.memo.clear()
    together = answer_queries(every_tiny_lm, queries(), batch_size=32)
    every_tiny_lm.memo.clear()
    assert [a.text for a in alone] == [a.text for a in together]
    for a, b in zip(alone, together, strict=True):
        assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-4)


def test_a_reference_is_scored_like_an_option_by_batches_of_any_size(every_tiny_lm):
    reference = "the river and the sea"
    asked = [Query(text, OPTIONS[:2], reference=reference) for text in PROMPTS]
    for batch_size in (1, 5):
        every_tiny_lm.memo.clear()
        for query, answer in zip(asked, answer_queries(every_tiny_lm, asked, batch_size=batch_size), strict=True):
            n_tokens = len(every_tiny_lm.tokenizer(f"{query.prompt} {reference}")["input_ids"])
            n_tokens -= len(every_tiny_lm.tokenizer(query.prompt)["input_ids"])
            assert answer.reference.n_tokens == n_tokens
            expected = log_likelihood(every_tiny_lm, query.prompt, reference)
            assert answer.reference.log_likelihood == pytest.approx(expected, abs=1e-4)
            assert len(answer.log_likelihoods) == 2
    every_tiny_lm.memo.clear()


def test_a_reference_among_the_options_is_not_run_twice(tiny_lm):
    seen, [answer] = shapes_run(tiny_lm, [Query(SENTENCES[0], OPTIONS, reference=OPTIONS[1])])
    assert answer.reference.log_likelihood == answer.log_likelihoods[1]
    assert [n_rows for n_rows, _ in seen] == [1, sum(len(ids) > 1 for ids in option_ids(tiny_lm, SENTENCES[0]))]


def option_ids(lm, prompt):
    n = len(lm.tokenizer(prompt)["input_ids"])
    return [lm.tokenizer(f"{prompt} {option}")["input_ids"][n:] for option in OPTIONS]


def test_a_large_vocabulary_makes_smaller_passes_and_changes_no_log_likelihood(tiny_lm, monkeypatch):
    asked = [Query(text, OPTIONS) for text in PROMPTS]
    whole = answer_queries(tiny_lm, asked)
    tiny_lm.memo.clear()
    monkeypatch.setattr(decoding, "_LOGITS_AT_ONCE", 15 * tiny_lm.model.get_output_embeddings().weight.shape[0])
    rows, kept = [], tiny_lm.model.forward

    def forward(*args, **given):
        found = kept(*args, **given)
        rows.append(found.logits.reshape(-1, found.logits.shape[-1]).shape[0])
        return found

    monkeypatch.setattr(tiny_lm.model, "forward", forward)
    parted = answer_queries(tiny_lm, asked)
    assert max(rows) <= 15
    assert len(rows) > 5
    for a, b in zip(parted, whole, strict=True):
        assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-4)


def test_queries_without_texts_to_score_are_not_run_where_nothing_is_written(tiny_lm):
    asked = [*queries(6), *(Query("Where is it? " + text, max_new_tokens=6) for text in SENTENCES)]
    whole = answer_queries(tiny_lm, asked, batch_size=4)
    tiny_lm.memo.clear()
    shapes, answers = shapes_run(tiny_lm, asked, batch_size=4, written=False)
    assert len(shapes) > 0
    assert [a.log_likelihoods for a in answers] == [a.log_likelihoods for a in whole]
    assert {a.text for a in answers} == {""}
    tiny_lm.memo.clear()
    assert shapes_run(tiny_lm, asked[len(PROMPTS) :], written=False)[0] == []


def shapes_run(lm, queries, **given):
    """Return rows and columns of each forward pass, and the answers."""
    seen = []
    embedding = lm.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, output: seen.append(tuple(args[0].shape)))
    try:
        return seen, answer_queries(lm, queries, **given)
    finally:
        hook.remove()


def test_the_limit_of_tokens_per_pass_is_kept_and_changes_no_answer(tiny_lm, monkeypatch):
    whole = answer_queries(tiny_lm, queries())
    tiny_lm.memo.clear()
    monkeypatch.setattr(engine, "_TOKENS_AT_ONCE", 60)
    monkeypatch.setattr(decoding, "_OPTIONS_AT_ONCE", 4)
    seen, parted = shapes_run(tiny_lm, queries())
    assert len(seen) > len(PROMPTS) / 2
    assert all(n_rows == 1 or n_rows * n_tokens <= 60 for n_rows, n_tokens in seen)
    assert [a.text for a in parted] == [a.text for a in whole]
    for a, b in zip(parted, whole, strict=True):
        assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-4)


def test_a_prefix_that_all_prompts_share_is_run_once_and_changes_no_answer(every_tiny_lm):
    shared = [Query(OPENING + text, OPTIONS, max_new_tokens=4) for text in SENTENCES]
    rows = [every_tiny_lm.tokenizer(q.prompt)["input_ids"] for q in shared]
    opening = next(i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1)
    assert opening >= 8
    seen, together = shapes_run(every_tiny_lm, shared)
    assert seen[:2] == [(1, opening), (len(rows), max(map(len, rows)) - opening)]
    every_tiny_lm.memo.clear()
    alone = [answer_queries(every_tiny_lm, [query])[0] for query in shared]
    assert [a.text for a in together] == [a.text for a in alone]


def test_a_prefix_that_some_prompts_share_is_run_once_and_changes_no_answer(every_tiny_lm):
    endings = (" Paris.", " It is old.", " 1820.")
    several = [Query(text + end, OPTIONS, max_new_tokens=4) for text in SENTENCES[:3] for end in endings]
    seen, together = shapes_run(every_tiny_lm, several)
    beginnings, endings_run = seen[:2]
    longest = max(len(every_tiny_lm.tokenizer(query.prompt)["input_ids"]) for query in several)
    assert (beginnings[0], endings_run[0]) == (3, 9)
    assert beginnings[1] + endings_run[1] <= longest + 2  # the longest ending need not follow the longest beginning
    every_tiny_lm.memo.clear()
    for query, answer in zip(several, together, strict=True):
        [alone] = answer_queries(every_tiny_lm, [query])
        assert alone.text == answer.text
        assert answer.log_likelihoods == pytest.approx(alone.log_likelihoods, abs=1e-4)
    every_tiny_lm.memo.clear()


def test_a_continuation_stops_at_the_end_of_text_and_at_a_stop(tiny_lm):
    [free] = answer_queries(tiny_lm, [Query(SENTENCES[0], max_new_tokens=12)])
    stop = free.text[3:6]
    [stopped] = answer_queries(tiny_lm, [Query(SENTENCES[0], max_new_tokens=12, stop=("no such text", stop))])
    assert stopped.text == free.text[: free.text.index(stop)]


def test_an_ended_text_is_not_continued(tiny_lm):
    prompt = SENTENCES[1]
    ids = tiny_lm.model.generate(**tiny_lm.tokenizer(prompt, return_tensors="pt"), max_new_tokens=6, do_sample=False)
    third = int(ids[0, -4])
    before = tiny_lm.model.generation_config.eos_token_id
    try:
        tiny_lm.model.generation_config.eos_token_id = third
        assert answer_queries(tiny_lm, [Query(prompt, max_new_tokens=6)])[0].text == generated(tiny_lm, prompt, 6)
    finally:
        tiny_lm.model.generation_config.eos_token_id = before


def test_the_unedited_models_answers_are_computed_once(tiny_lm):
    first = answer_queries(tiny_lm, queries(2))
    tiny_lm.model.register_forward_pre_hook(lambda *_: pytest.fail("computed again"))
    try:
        assert answer_queries(tiny_lm, queries(2)) == first
    finally:
        tiny_lm.model._forward_pre_hooks.clear()


def test_an_edited_models_answers_are_neither_kept_nor_taken_from_the_unedited(tiny_lm):
    before = answer_queries(tiny_lm, queries(2))
    name = tiny_lm.arch.mlp_out_weight(2)
    change = torch.randn(tiny_lm.weight(name).shape, generator=torch.Generator().manual_seed(0))
    with WeightUpdate({name: change}).applied(tiny_lm):
        edited = answer_queries(tiny_lm, queries(2))
    assert [a.log_likelihoods for a in edited] != [a.log_likelihoods for a in before]
    assert answer_queries(tiny_lm, queries(2)) == before


def test_a_query_without_options_or_continuation_is_answered_without_them(tiny_lm):
    [answer] = answer_queries(tiny_lm, [Query("Rome", OPTIONS)])
    assert answer.text == ""
    assert len(answer.log_likelihoods) == 3
    [answer] = answer_queries(tiny_lm, [Query("Rome", max_new_tokens=1)])
    assert answer.log_likelihoods == ()


def test_a_message_is_formatted_by_the_chat_template_and_its_special_tokens_are_not_doubled(tiny_lm, monkeypatch):
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} [assistant] "
    monkeypatch.setattr(tiny_lm.tokenizer, "chat_template", template)
    [chat] = answer_queries(tiny_lm, [Query(SENTENCES[0], OPTIONS, max_new_tokens=4, chat=True, lead="It is")])
    text = f"[user] {SENTENCES[0]} [assistant] It is"
    ids = tiny_lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    written = tiny_lm.model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert chat.text == tiny_lm.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True)


def test_without_a_chat_template_the_lead_is_on_a_separate_line(tiny_lm):
    assert tiny_lm.tokenizer.chat_template is None
    chat, plain = answer_queries(
        tiny_lm,
        [
            Query(SENTENCES[0], OPTIONS, max_new_tokens=4, chat=True, lead="It is"),
            Query(SENTENCES[0] + "\nIt is", OPTIONS, max_new_tokens=4),
        ],
    )
    assert chat == plain
