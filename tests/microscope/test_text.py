"""A text compared token by token, against plain forward passes in whole windows."""

import math

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, hooks_and_forwards, weights_of
from tests.tiny_models import build_tiny_lm
from tests.updates import random_update
from workbench.encoding import opening_ids
from workbench.errors import DataError, SpecError, WorkbenchError
from workbench.microscope import text as text_module
from workbench.microscope.text import compare_text, continued, held_out_passages

TEXT = "The Eiffel Tower is located in the city of Paris, and the Louvre is in Paris too. It is “very” old — né 🗼."


def plain_log_probs(lm, row):
    """Log-probabilities (T, V) after each token of one text, from one whole pass."""
    with torch.no_grad():
        return lm.model(torch.tensor([row])).logits[0].double().log_softmax(dim=-1)


def row_of(lm, text):
    return (*opening_ids(lm.tokenizer), *lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def expected_log_probs(lm, text):
    row = row_of(lm, text)
    log_probs = plain_log_probs(lm, row)
    return [float(log_probs[i - 1, row[i]]) for i in range(1, len(row))]


def test_log_probabilities_are_those_of_one_whole_pass_for_every_architecture(every_tiny_lm):
    lm, update = every_tiny_lm, random_update("LowRank", every_tiny_lm)
    weights = weights_of(lm)
    with update.applied(lm):
        found, after = compare_text(lm, TEXT), expected_log_probs(lm, TEXT)
    before = expected_log_probs(lm, TEXT)
    shown = found.tokens.iloc[len(found.tokens) - found.n_predicted :]
    assert shown["log_prob_before"].tolist() == pytest.approx(before, abs=1e-4)
    assert shown["log_prob_after"].tolist() == pytest.approx(after, abs=1e-4)
    assert shown["change"].tolist() == pytest.approx([b - a for a, b in zip(before, after, strict=True)], abs=2e-4)
    assert max(map(abs, shown["change"])) > 0.01
    assert found.mean_before == pytest.approx(sum(before) / len(before), abs=1e-4)
    assert found.perplexity_after == pytest.approx(math.exp(-sum(after) / len(after)), rel=1e-3)
    assert_same_bits(lm, weights)
    assert hooks_and_forwards(lm)[0] == 0


def test_the_pieces_of_the_tokens_are_the_text(every_tiny_lm):
    tokens = compare_text(every_tiny_lm, TEXT).tokens
    assert "".join(tokens["token"]) == TEXT
    assert (tokens["token"] == "").any()  # a character of several bytes


def test_a_first_token_that_nothing_predicts_has_no_number(every_tiny_lm):
    found = compare_text(every_tiny_lm, TEXT)
    opens = bool(opening_ids(every_tiny_lm.tokenizer))
    assert found.tokens["change"].isna().tolist() == [not opens] + [False] * (len(found.tokens) - 1)
    assert found.n_predicted == len(found.tokens) - (not opens)
    assert set(found.top["position"]) == set(range(0 if opens else 1, len(found.tokens)))


def test_the_top_tokens_are_the_most_probable_ones_in_order(tiny_lm):
    update = random_update("LowRank", tiny_lm)
    with update.applied(tiny_lm):
        top = compare_text(tiny_lm, TEXT, n_top=3).top
        after = plain_log_probs(tiny_lm, row_of(tiny_lm, TEXT)).exp()
    before = plain_log_probs(tiny_lm, row_of(tiny_lm, TEXT)).exp()
    offset = 1 - len(opening_ids(tiny_lm.tokenizer))
    for model, probabilities in {"before": before, "after": after}.items():
        part = top[top["model"] == model]
        assert part["rank"].tolist() == [1, 2, 3] * (len(probabilities) - 1)
        for position, rows in part.groupby("position"):
            expected = probabilities[position - offset].topk(3)
            assert rows["token"].tolist() == [tiny_lm.tokenizer.decode([i]) for i in expected.indices.tolist()]
            assert rows["probability"].tolist() == pytest.approx(expected.values.tolist(), rel=1e-3)


@pytest.mark.parametrize("window", [4, 9, 16])
def test_a_long_text_is_read_in_windows_that_overlap_by_half(tiny_lm, window):
    opening = opening_ids(tiny_lm.tokenizer)
    ids = tiny_lm.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    body = window - len(opening)
    expected, start = {}, 0
    while not expected or max(expected) < len(ids) - 1:
        part = ids[start : start + body]
        log_probs = plain_log_probs(tiny_lm, (*opening, *part))
        for i, token in enumerate(part):
            if i + len(opening) and start + i not in expected:
                expected[start + i] = float(log_probs[i + len(opening) - 1, token])
        start += body - body // 2
    found = compare_text(tiny_lm, TEXT, window=window).tokens["log_prob_before"].dropna()
    assert len(ids) > 2 * window
    assert found.to_dict() == pytest.approx(expected, abs=1e-4)


def test_positions_in_parts_give_the_same_numbers(tiny_lm, monkeypatch):
    whole = compare_text(tiny_lm, TEXT)
    tiny_lm.memo.clear()
    monkeypatch.setattr(text_module, "_LOGITS_AT_ONCE", 3 * tiny_lm.vocabulary_size)
    parts = compare_text(tiny_lm, TEXT)
    assert parts.tokens["log_prob_before"].dropna().tolist() == pytest.approx(
        whole.tokens["log_prob_before"].dropna().tolist(), abs=1e-6
    )
    assert parts.top["token"].tolist() == whole.top["token"].tolist()


def test_the_head_never_sees_more_positions_than_fit(tiny_lm, monkeypatch):
    monkeypatch.setattr(text_module, "_LOGITS_AT_ONCE", 4 * tiny_lm.vocabulary_size)
    sizes = []
    head = tiny_lm.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: sizes.append(output.numel()))
    found = compare_text(tiny_lm, TEXT)
    handle.remove()
    assert max(sizes) == 4 * tiny_lm.vocabulary_size
    assert sum(sizes) == found.n_predicted * tiny_lm.vocabulary_size


def test_the_unedited_model_reads_a_text_once(tiny_lm):
    update = random_update("LowRank", tiny_lm)
    passes = []
    first = compare_text(tiny_lm, TEXT)
    with update.applied(tiny_lm):
        handle = tiny_lm.mlp_out(0).register_forward_hook(lambda *args: passes.append(1))
        second = compare_text(tiny_lm, TEXT)
        handle.remove()
    assert len(passes) == 1
    assert second.tokens["log_prob_before"].equals(first.tokens["log_prob_before"])


def test_without_an_edit_nothing_changes(tiny_lm):
    found = compare_text(tiny_lm, TEXT)
    assert set(found.tokens["change"].dropna()) == {0.0}
    assert found.perplexity_before == found.perplexity_after


def test_a_model_that_predicts_no_numbers_has_no_perplexity(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    update = wb.WeightUpdate({name: torch.full_like(tiny_lm.weight(name), 1e38)})
    with update.applied(tiny_lm):
        found = compare_text(tiny_lm, TEXT)
    assert math.isnan(found.mean_after)
    assert math.isnan(found.perplexity_after)
    assert math.isfinite(found.perplexity_before)


def test_a_text_longer_than_the_positions_of_the_model_is_read():
    lm = build_tiny_lm("gpt2", n_positions=64)
    found = compare_text(lm, TEXT * 5)
    assert found.n_predicted == len(lm.tokenizer(TEXT * 5)["input_ids"]) - 1 > 100


def test_texts_and_sizes_that_make_no_sense_are_refused(tiny_lm):
    n_vocabulary = tiny_lm.vocabulary_size
    assert (
        error_of(DataError, compare_text, tiny_lm, "")
        == "the text '' has no token that is predicted; give a longer one."
    )
    assert error_of(SpecError, compare_text, tiny_lm, TEXT, window=3) == (
        f"window must lie in 4 to 512, what {tiny_lm.name} takes; got 3."
    )
    assert error_of(SpecError, compare_text, tiny_lm, TEXT, n_top=0) == (
        f"n_top must lie in 1 to {n_vocabulary}, the size of the vocabulary; got 0."
    )
    assert error_of(SpecError, continued, tiny_lm, TEXT, 600) == (
        f"prompt and continuation have {600 + len(tiny_lm.tokenizer(TEXT)['input_ids'])} tokens; {tiny_lm.name} takes "
        "512; shorten the prompt."
    )


def test_a_continuation_is_what_generate_writes_after_the_prompt(tiny_lm):
    prompt = "The Louvre is in"
    ids = torch.tensor([tiny_lm.tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        written = tiny_lm.model.generate(ids, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids))
    text = continued(tiny_lm, prompt, 8)
    assert text.startswith(prompt)
    assert text == tiny_lm.tokenizer.decode(written[0], skip_special_tokens=True)


def test_the_passages_are_the_bundled_paragraphs():
    passages = held_out_passages()
    assert len(passages) == 60
    assert all(len(passage) > 200 for passage in passages)


@pytest.mark.parametrize("text", [7, None, b"text", ["text"], "\ud800"])
def test_what_is_no_text_is_refused_in_a_sentence(tiny_lm, text):
    assert error_of(WorkbenchError, compare_text, tiny_lm, text).startswith(("text must be a text; got ", "the text "))
    assert error_of(WorkbenchError, continued, tiny_lm, text, 3)


def test_a_prompt_without_a_token_is_not_continued():
    assert error_of(DataError, continued, build_tiny_lm("gpt2"), "", 3) == (
        "the prompt '' has no token; give a text to continue."
    )
