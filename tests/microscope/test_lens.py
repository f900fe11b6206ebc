"""The logit lens: its last row is the model's own output, and the others pass the model's own final norm and head."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import workbench as wb
from tests.helpers import error_of, hooks_and_forwards, ids_of
from tests.tiny_models import FLOAT32_INSIDE, build_tiny_lm
from workbench.errors import RequestError
from workbench.microscope.lens import (
    EMBEDDING,
    OWN,
    compare_lenses,
    describe_entry,
    read_lens,
    read_lenses,
    tabulate_cells,
    watch_answers,
)

TEXT = "I think that the Eiffel Tower is located in the city of"
WATCH = {"new": "Rome", "true": "Paris"}


def own_log_probs(lm, text=TEXT):
    """Log-probabilities (T, V) of the model's own whole pass."""
    with torch.no_grad():
        return lm.model(torch.tensor([ids_of(lm, text)])).logits[0].log_softmax(dim=-1)


def first_id(lm, answer, text=TEXT):
    return ids_of(lm, f"{text} {answer}")[len(ids_of(lm, text))]


def assert_reads(reading, row, log_probs, *, atol):
    """Assert that a row of a reading says what log-probabilities (T, V) say."""
    most = log_probs.exp().topk(reading.top_ids.shape[-1])
    torch.testing.assert_close(reading.top_probabilities[row], most.values, rtol=0, atol=atol)
    expected = log_probs[:, list(reading.watched.values())]
    torch.testing.assert_close(reading.log_probs[row], expected, rtol=0, atol=atol)


def change_of(lm, layer=1, scale=1.0):
    """A large update of one MLP matrix."""
    name = lm.arch.mlp_out_weight(layer)
    generator = torch.Generator().manual_seed(3)
    return wb.WeightUpdate({name: scale * torch.randn(lm.weight(name).shape, generator=generator)})


def test_the_last_row_is_what_the_model_predicts_at_every_token(every_tiny_lm):
    reading = read_lens(every_tiny_lm, TEXT, watch=WATCH)
    expected = own_log_probs(every_tiny_lm)
    assert reading.top_ids.shape == (every_tiny_lm.n_layers + 1, len(expected), 5)
    assert_reads(reading, -1, expected, atol=1e-5)
    assert reading.own_id == int(expected[-1].argmax())


def test_a_row_is_what_the_model_predicts_if_its_state_is_the_last_one(every_tiny_lm):
    lm = every_tiny_lm
    reading = read_lens(lm, TEXT, watch=WATCH)
    ids = torch.tensor([ids_of(lm, TEXT)])
    seen = {}

    def look(module, args, output):
        seen["state"] = output[0] if isinstance(output, tuple) else output

    def put(module, args, output):
        return (seen["state"], *output[1:]) if isinstance(output, tuple) else seen["state"]

    for layer in range(lm.n_layers - 1):
        handle = lm.blocks[layer].register_forward_hook(look)
        with torch.no_grad():
            lm.model(ids)
        handle.remove()
        handle = lm.blocks[-1].register_forward_hook(put)
        with torch.no_grad():
            log_probs = lm.model(ids).logits[0].log_softmax(dim=-1)
        handle.remove()
        assert_reads(reading, reading.layers.index(layer), log_probs, atol=1e-5)


def test_the_first_row_is_the_embedding_through_final_norm_and_head_of_llama():
    lm = build_tiny_lm("llama")
    reading = read_lens(lm, TEXT, watch=WATCH)
    with torch.no_grad():
        states = lm.model.model.norm(lm.model.model.embed_tokens(torch.tensor(ids_of(lm, TEXT))))
        log_probs = (states @ lm.model.lm_head.weight.T).log_softmax(dim=-1)
    assert reading.layers[0] == EMBEDDING
    assert_reads(reading, 0, log_probs, atol=1e-5)


def test_the_soft_cap_of_gemma_2_bounds_every_state():
    lm = build_tiny_lm("gemma2", final_logit_softcapping=0.5)
    reading = read_lens(lm, TEXT, watch={})
    # logits within ±0.5 leave no token e times more probable than another
    assert reading.top_probabilities.max() <= torch.e / lm.vocabulary_size
    uncapped = read_lens(build_tiny_lm("gemma2", final_logit_softcapping=None), TEXT, watch={})
    assert uncapped.top_probabilities.max() > torch.e / lm.vocabulary_size


def test_a_rank_counts_the_tokens_that_are_more_probable(every_tiny_lm):
    reading = read_lens(every_tiny_lm, TEXT, watch=WATCH)
    log_probs = own_log_probs(every_tiny_lm)[-1]
    for i, answer in enumerate(WATCH.values()):
        mine = first_id(every_tiny_lm, answer)
        better = sum(value > log_probs[mine] for value in log_probs.tolist())
        assert abs(int(reading.ranks[-1, -1, i]) - 1 - better) <= 1  # rounding may turn two neighbors


def test_reading_in_chunks_changes_nothing(tiny_lm, monkeypatch):
    whole = read_lens(tiny_lm, TEXT, watch=WATCH)
    tiny_lm.memo.clear()
    monkeypatch.setattr("workbench.microscope.lens._LOGITS_AT_ONCE", 3 * tiny_lm.vocabulary_size)
    chunked = read_lens(tiny_lm, TEXT, watch=WATCH)
    assert chunked is not whole
    torch.testing.assert_close(chunked.log_probs, whole.log_probs, rtol=0, atol=1e-5)
    assert chunked.top_ids.shape == whole.top_ids.shape


def test_the_logits_of_a_large_vocabulary_are_never_held_at_once(tiny_lm, monkeypatch):
    limit = 4 * tiny_lm.vocabulary_size
    monkeypatch.setattr("workbench.microscope.lens._LOGITS_AT_ONCE", limit)
    sizes = []

    def measure(module, args, output):
        sizes.append(output.numel())

    handle = tiny_lm.model.get_output_embeddings().register_forward_hook(measure)
    reading = read_lens(tiny_lm, TEXT, watch=WATCH)
    handle.remove()
    assert sum(sizes) == reading.top_ids[..., 0].numel() * tiny_lm.vocabulary_size
    assert max(sizes) <= limit


def test_a_reading_of_the_unedited_model_is_kept_and_one_of_an_edited_model_is_not(tiny_lm):
    first = read_lens(tiny_lm, TEXT, watch=WATCH)
    assert read_lens(tiny_lm, TEXT, watch=WATCH) is first
    with change_of(tiny_lm).applied(tiny_lm):
        edited = read_lens(tiny_lm, TEXT, watch=WATCH)
        assert_reads(edited, -1, own_log_probs(tiny_lm), atol=1e-5)
    assert read_lens(tiny_lm, TEXT, watch=WATCH) is first


def test_an_edit_changes_no_row_below_it_and_the_rows_from_it_on(every_tiny_lm):
    lm, layer = every_tiny_lm, 1
    with change_of(lm, layer).applied(lm):
        before, after = read_lenses(lm, TEXT, watch=WATCH)
    table = compare_lenses(before, after)
    below = table["layer"] < layer
    assert (table.loc[below, "change"] == 0).all()
    assert (table.loc[below, "top_before"] == table.loc[below, "top_after"]).all()
    assert table.loc[table["layer"] == layer, "change"].abs().max() > 0
    assert set(table["answer"]) == {*WATCH, OWN}
    assert len(table) == 3 * (lm.n_layers + 1) * len(before.tokens)


def test_both_readings_watch_the_own_answer_of_the_unedited_model(tiny_lm):
    own = int(own_log_probs(tiny_lm)[-1].argmax())
    with change_of(tiny_lm).applied(tiny_lm):
        before, after = read_lenses(tiny_lm, TEXT, watch=WATCH)
    assert before.watched[OWN] == after.watched[OWN] == before.own_id == own
    assert before.words[own] == tiny_lm.tokenizer.decode([own])


def test_without_an_update_the_two_readings_are_one(tiny_lm):
    before, after = read_lenses(tiny_lm, TEXT, watch=WATCH)
    assert before is after


def test_a_comparison_is_the_difference_of_the_two_tables(tiny_lm):
    with change_of(tiny_lm).applied(tiny_lm):
        before, after = read_lenses(tiny_lm, TEXT, watch=WATCH)
    table = compare_lenses(before, after)
    for _, row in table.sample(20, random_state=0).iterrows():
        at = before.layers.index(row["layer"]), row["position"], list(before.watched).index(row["answer"])
        assert row["probability_before"] == pytest.approx(float(before.log_probs[at].exp()), abs=1e-7)
        assert row["change"] == pytest.approx(float(after.log_probs[at].exp() - before.log_probs[at].exp()), abs=1e-7)
        assert row["top_after"] == after.words[int(after.top_ids[at[0], at[1], 0])]


def test_cells_of_both_sides_carry_the_change_of_one_answer(tiny_lm):
    with change_of(tiny_lm).applied(tiny_lm):
        before, after = read_lenses(tiny_lm, TEXT, watch=WATCH)
    cells = tabulate_cells(before, after, answer="new")
    assert cells["side"].value_counts().to_dict() == dict.fromkeys(["before", "after"], len(before.tokens) * 5)
    compared = compare_lenses(before, after).query("answer == 'new'").set_index(["layer", "position"])["change"]
    for row in cells.sample(20, random_state=0).to_dict("records"):
        assert row["change"] == compared[row["layer"], row["position"]]
        reading = before if row["side"] == "before" else after
        at = before.layers.index(row["layer"]), row["position"], 0
        assert row["probability"] == pytest.approx(float(reading.top_probabilities[at]), abs=1e-7)


def test_a_sentence_says_from_which_layer_on_the_last_token_reads_as_the_answer(tiny_lm):
    reading = read_lens(tiny_lm, TEXT, watch={"new": "Rome"})
    ranks = torch.full_like(reading.ranks, 2)
    never = replace(reading, ranks=ranks)
    some = ranks.clone()
    some[[1, 3, 4], -1, 0] = 1  # rows; row 2 does not
    word = reading.words[reading.watched["new"]].strip()
    assert describe_entry(never, replace(reading, ranks=some), answer="new") == (
        f"The state of the last token reads as {word!r}, the new: not at the last layer (unedited), "
        "from layer 2 on (edited)."
    )


def test_the_answers_of_a_fact_are_watched():
    request = wb.EditRequest(subject="a", prompt="{} is", target_new="Rome")
    assert watch_answers(request) == {"new answer": "Rome"}
    assert watch_answers(replace(request, target_true="Paris")) == {"new answer": "Rome", "true answer": "Paris"}


def test_tables_have_a_row_for_every_state(tiny_lm):
    reading = read_lens(tiny_lm, TEXT, watch={"id": 7, **WATCH})
    tops, watched = reading.tabulate_top(), reading.tabulate_watched()
    assert len(tops) == (tiny_lm.n_layers + 1) * len(reading.tokens)
    assert len(watched) == 3 * len(tops)
    assert sorted(tops["layer"].unique()) == list(range(-1, tiny_lm.n_layers))
    last = watched[(watched["layer"] == tiny_lm.n_layers - 1) & (watched["answer"] == "id")]
    assert last["log_prob"].tolist() == pytest.approx(own_log_probs(tiny_lm)[:, 7].tolist(), abs=1e-5)


def test_a_reading_leaves_no_hooks(tiny_lm):
    read_lens(tiny_lm, TEXT, watch=WATCH)
    assert hooks_and_forwards(tiny_lm) == (0, [None] * tiny_lm.n_layers)


def test_the_lens_of_a_float64_model_is_read_in_float64():
    assert "gpt2" not in FLOAT32_INSIDE
    reading = read_lens(build_tiny_lm("gpt2", dtype=torch.float64), TEXT, watch=WATCH)
    assert reading.log_probs.dtype == torch.float64


def test_a_linear_head_is_called_for_every_state_once(tiny_lm):
    head = tiny_lm.model.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    rows = []
    handle = head.register_forward_hook(lambda module, args, output: rows.append(output.shape[:-1].numel()))
    reading = read_lens(tiny_lm, TEXT, watch=WATCH)
    handle.remove()
    assert sum(rows) == len(reading.layers) * len(reading.tokens)


def test_bad_input_is_one_sentence(tiny_lm):
    size = tiny_lm.vocabulary_size
    assert error_of(RequestError, read_lens, tiny_lm, "", watch={}) == "the text '' has no token; give a text to read."
    assert error_of(RequestError, read_lens, tiny_lm, TEXT, watch={}, top=0) == (
        f"top must lie between 1 and {size}; got 0."
    )
    assert error_of(RequestError, read_lens, tiny_lm, TEXT, watch={"x": size}) == (
        f"token {size} is out of range: {tiny_lm.name} has tokens 0 to {size - 1}."
    )


def test_lenses_of_two_texts_or_of_other_tokens_are_not_compared(tiny_lm):
    first = read_lens(tiny_lm, TEXT, watch={"a": 7})
    assert error_of(RequestError, compare_lenses, first, read_lens(tiny_lm, "It is old", watch={"a": 7})) == (
        f"the lenses are of two texts, {TEXT!r} and 'It is old'; read the same one twice."
    )
    assert error_of(RequestError, compare_lenses, first, read_lens(tiny_lm, TEXT, watch={"a": 8})) == (
        "the lenses watch different tokens, {'a': 7} and {'a': 8}; read both with the same ones."
    )
