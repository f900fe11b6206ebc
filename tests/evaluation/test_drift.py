"""Drift, compared with whole softmaxes of both models in float64."""

import math

import pandas as pd
import pytest
import torch

import workbench as wb
from tests.tiny_models import SENTENCES
from workbench.evaluation import drift as module
from workbench.evaluation.drift import drift, drift_tokens
from workbench.update import WeightUpdate

TEXT = " ".join(SENTENCES)
TOKEN_COLUMNS = ["text", "position", "token", "kl", "log_prob_before", "log_prob_after"]


@pytest.fixture
def text_file(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


@pytest.fixture
def edit(tiny_lm):
    """Give an update of one layer that changes every prediction."""
    name = tiny_lm.arch.mlp_out_weight(1)
    noise = torch.randn(tiny_lm.weight(name).shape, generator=torch.Generator().manual_seed(0))
    return WeightUpdate({name: 2 * tiny_lm.weight(name).std() * noise})


@torch.no_grad()
def softmaxes(lm, ids):
    """Return the probabilities after each token but the last, from one whole pass, in float64."""
    return lm.model(torch.tensor([ids])).logits[0, :-1].double().softmax(-1)


def divergences(before, after):
    """Return KL(before ‖ after) of each row, token by token of the vocabulary."""
    return [
        sum(float(p) * math.log(float(p) / float(q)) for p, q in zip(of_before, of_after, strict=True))
        for of_before, of_after in zip(before, after, strict=True)
    ]


@pytest.mark.parametrize("window", [2, 7, 64])
def test_drift_is_the_mean_kl_of_whole_softmaxes(tiny_lm, edit, text_file, window):
    ids = tiny_lm.tokenizer(TEXT)["input_ids"]
    opening = ids[:1] if ids[0] == tiny_lm.tokenizer.bos_token_id else []
    body, n = ids[len(opening) :], window - len(opening)
    windows = [row for row in (opening + body[i : i + n] for i in range(0, len(body), n)) if len(row) > 1]
    before = [softmaxes(tiny_lm, row) for row in windows]
    with edit.applied(tiny_lm):
        expected = [divergences(p, softmaxes(tiny_lm, row)) for p, row in zip(before, windows, strict=True)]
        [row] = drift(tiny_lm, text_file, window=window).to_dict("records")
    flat = [kl for of_window in expected for kl in of_window]
    assert min(flat) > 1e-4
    assert row["value"] == pytest.approx(sum(flat) / len(flat), rel=1e-4)
    assert (row["task"], row["metric"], row["n"]) == ("drift", "kl", len(windows))
    lengths = sorted({len(each) for each in windows})
    described = f"windows of {' to '.join(map(str, dict.fromkeys([lengths[0], lengths[-1]])))} tokens"
    assert (row["protocol"], row["source"], row["split"]) == (described, "text.txt", "unknown")


def test_each_token_has_its_divergence_and_its_log_probabilities(tiny_lm, edit):
    rows = [tiny_lm.tokenizer(text)["input_ids"] for text in SENTENCES[:3]]
    before = [softmaxes(tiny_lm, row) for row in rows]
    with edit.applied(tiny_lm):
        after = [softmaxes(tiny_lm, row) for row in rows]
        table = drift_tokens(tiny_lm, SENTENCES[:3])
    assert list(table.columns) == TOKEN_COLUMNS
    assert len(table) == sum(len(row) - 1 for row in rows)
    for i, (ids, p, q) in enumerate(zip(rows, before, after, strict=True)):
        part = table[table["text"] == i].reset_index(drop=True)
        assert part["position"].tolist() == list(range(1, len(ids)))
        assert part["token"].tolist() == [tiny_lm.tokenizer.decode([token]) for token in ids[1:]]
        assert part["kl"].tolist() == pytest.approx(divergences(p, q), rel=1e-4, abs=1e-6)
        for column, probabilities in (("log_prob_before", p), ("log_prob_after", q)):
            expected = [math.log(float(row[token])) for row, token in zip(probabilities, ids[1:], strict=True)]
            assert part[column].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_mean_over_tokens_is_the_drift_of_the_text(tiny_lm, edit, tmp_path):
    path = tmp_path / "one.txt"
    path.write_text(SENTENCES[0], encoding="utf-8")
    with edit.applied(tiny_lm):
        assert drift(tiny_lm, path)["value"].item() == pytest.approx(drift_tokens(tiny_lm, SENTENCES[0])["kl"].mean())


def test_without_an_edit_the_drift_is_zero(tiny_lm, edit, text_file):
    assert drift(tiny_lm, text_file, window=16)["value"].item() == 0
    with edit.applied(tiny_lm):
        edited = drift(tiny_lm, text_file, window=16)["value"].item()
    assert edited > 0
    assert drift(tiny_lm, text_file, window=16)[["value", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_no_token_has_a_negative_divergence(tiny_lm, edit):
    small = WeightUpdate({name: 1e-6 * edit.delta(name) for name in edit})
    with small.applied(tiny_lm):
        table = drift_tokens(tiny_lm, TEXT)
    assert len(table) > 50
    assert (table["kl"] >= 0).all()
    assert table["kl"].max() < 1e-5


def test_the_edited_weights_stay_applied_bit_for_bit(tiny_lm, edit, text_file):
    with edit.applied(tiny_lm):
        [name] = edit
        edited = tiny_lm.weight(name).clone()
        drift(tiny_lm, text_file, window=16)
        assert torch.equal(tiny_lm.weight(name), edited)
        assert tiny_lm.applied_updates == (edit,)


def test_parts_of_any_size_give_the_same_numbers(tiny_lm, edit, monkeypatch):
    with edit.applied(tiny_lm):
        whole = drift_tokens(tiny_lm, SENTENCES)
        size = tiny_lm.model.get_output_embeddings().weight.shape[0]
        monkeypatch.setattr(module, "_LOGITS_AT_ONCE", 5 * size)  # five positions per pass, across texts
        monkeypatch.setattr(module, "_PROBABILITIES_AT_ONCE", 2 * size)
        seen = []
        compute = module.compute_logits
        monkeypatch.setattr(
            module, "compute_logits", lambda *given: seen.append(sum(map(len, given[2]))) or compute(*given)
        )
        parts = drift_tokens(tiny_lm, SENTENCES)
    assert max(seen) == 5
    assert sum(seen) == 2 * len(whole)  # of both models
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-4, atol=1e-6)


def test_the_interval_holds_the_value_and_follows_the_seed(tiny_lm, edit, text_file):
    with edit.applied(tiny_lm):
        first = drift(tiny_lm, text_file, window=8, seed=3)
        assert first["low"][0] < first["value"][0] < first["high"][0]
        assert first.equals(drift(tiny_lm, text_file, window=8, seed=3))


def test_the_bundled_paragraphs_are_the_default(tiny_lm):
    table = wb.drift(tiny_lm, limit=2)
    assert list(table.columns) == ["task", "metric", "protocol", "source", "split", "value", "n", "low", "high"]
    assert (table["source"][0], table["n"][0]) == ("bundled paragraphs", 2)


def test_a_window_out_of_range_is_named_with_its_range(tiny_lm, text_file):
    with pytest.raises(wb.WorkbenchError) as caught:
        drift(tiny_lm, text_file, window=513)
    assert str(caught.value) == f"window must lie in 2 to 512, what {tiny_lm.name} takes; got 513."


@pytest.mark.parametrize("text", ["", "x" * 600])
def test_a_text_that_is_too_short_or_too_long_is_named_by_its_number(tiny_lm, text):
    n_tokens = len(tiny_lm.tokenizer(text)["input_ids"])
    with pytest.raises(wb.WorkbenchError) as caught:
        drift_tokens(tiny_lm, [SENTENCES[0], text])
    assert str(caught.value) == f"text 1 must have 2 to 512 tokens; it has {n_tokens}."
