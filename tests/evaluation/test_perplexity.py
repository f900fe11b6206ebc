"""Perplexity, compared with one whole forward pass per window."""

import math

import pytest
import torch

import workbench as wb
from tests.tiny_models import SENTENCES, build_tiny_lm
from workbench.editing.passes.hooks import hooked
from workbench.evaluation.perplexity import perplexity, read_bundled_text
from workbench.update import WeightUpdate

TEXT = " ".join(SENTENCES)


@pytest.fixture
def text_file(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


@torch.no_grad()
def by_hand(lm, rows):
    """Return exp of the mean NLL of all tokens but the first of each row, from one whole pass each, in float64."""
    nll, count = 0.0, 0
    for row in map(list, rows):
        log_probs = lm.model(torch.tensor([row])).logits[0, :-1].double().log_softmax(-1)
        nll -= float(log_probs.gather(1, torch.tensor(row)[1:, None]).sum())
        count += len(row) - 1
    return math.exp(nll / count)


@pytest.mark.parametrize("window", [2, 7, 64, 500])
def test_perplexity_is_the_exponential_of_the_mean_nll_of_whole_passes(text_file, window):
    lm = build_tiny_lm("gpt2")
    ids = lm.tokenizer(TEXT)["input_ids"]
    rows = [ids[i : i + window] for i in range(0, len(ids), window) if len(ids) - i > 1]
    [row] = perplexity(lm, text_file, window=window).to_dict("records")
    assert row["value"] == pytest.approx(by_hand(lm, rows), rel=1e-5)
    assert row["n"] == len(rows)
    lengths = [len(each) for each in rows]
    few = "" if len(set(lengths)) == 1 else f"{min(lengths)} to "
    assert (row["source"], row["protocol"]) == ("text.txt", f"windows of {few}{max(lengths)} tokens")


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
@pytest.mark.parametrize("window", [2, 7, 500])
def test_every_window_opens_with_the_token_that_opens_any_text(model_type, text_file, window):
    lm = build_tiny_lm(model_type)
    bos, *ids = lm.tokenizer(TEXT)["input_ids"]
    assert bos == lm.tokenizer.bos_token_id
    rows = [[bos, *ids[i : i + window - 1]] for i in range(0, len(ids), window - 1)]
    [row] = perplexity(lm, text_file, window=window).to_dict("records")
    assert row["value"] == pytest.approx(by_hand(lm, rows), rel=1e-5)
    assert row["n"] == len(rows)


def test_a_large_vocabulary_has_fewer_windows_per_pass_and_the_same_perplexity(text_file, monkeypatch):
    lm, sizes = build_tiny_lm("gemma3_text"), []
    together = perplexity(lm, text_file, window=16)["value"][0]
    lm.memo.clear()
    monkeypatch.setattr("workbench.evaluation.perplexity._LOGITS_AT_ONCE", 40 * lm.model.config.vocab_size)
    with hooked(lm.model.get_output_embeddings(), lambda module, args, output: sizes.append(output.numel())):
        assert perplexity(lm, text_file, window=16)["value"][0] == pytest.approx(together, rel=1e-6)
    assert len(sizes) > 1
    assert max(sizes) <= 40 * lm.model.config.vocab_size


def test_a_uniform_model_has_the_size_of_the_vocabulary_as_perplexity(tiny_lm, text_file):
    head = tiny_lm.model.get_output_embeddings().weight
    with torch.no_grad():
        head.zero_()
    assert perplexity(tiny_lm, text_file)["value"][0] == pytest.approx(head.shape[0], rel=1e-4)


def test_the_interval_holds_the_value_and_the_same_seed_gives_the_same_one(tiny_lm, text_file):
    first = perplexity(tiny_lm, text_file, window=8, seed=3)
    assert first["low"][0] < first["value"][0] < first["high"][0]
    assert first.equals(perplexity(tiny_lm, text_file, window=8, seed=3))


def test_an_edit_changes_perplexity_and_undo_restores_it(tiny_lm, text_file):
    before = perplexity(tiny_lm, text_file)
    name = tiny_lm.arch.mlp_out_weight(1)
    change = torch.randn(tiny_lm.weight(name).shape, generator=torch.Generator().manual_seed(0))
    with WeightUpdate({name: change}).applied(tiny_lm):
        assert perplexity(tiny_lm, text_file)["value"][0] != before["value"][0]
    assert perplexity(tiny_lm, text_file).equals(before)


def test_the_bundled_paragraphs_are_scored_one_by_one(tiny_lm):
    table = perplexity(tiny_lm, limit=3)
    paragraphs = read_bundled_text("bundled").decode().splitlines()[:3]
    lengths = [len(tiny_lm.tokenizer(paragraph)["input_ids"]) for paragraph in paragraphs]
    assert max(lengths) < 512  # so that each is one window
    assert table["protocol"][0] == f"windows of {min(lengths)} to {max(lengths)} tokens"
    assert (table["source"][0], table["n"][0]) == ("bundled paragraphs", 3)


def test_articles_are_cut_into_full_windows_that_stay_within_one_article(tiny_lm):
    articles = [tiny_lm.tokenizer(line)["input_ids"] for line in read_bundled_text("articles").decode().splitlines()]
    opens = articles[0][:1] if articles[0][0] == tiny_lm.tokenizer.bos_token_id else []
    n = 100 - len(opens)
    windows = [opens + ids[len(opens) :][i : i + n] for ids in articles for i in range(0, len(ids) - 99, n)]
    [row] = perplexity(tiny_lm, "articles", window=100, limit=7).to_dict("records")
    assert (row["source"], row["split"], row["protocol"]) == ("bundled articles", "bundled", "windows of 100 tokens")
    assert row["n"] == 7
    assert row["value"] == pytest.approx(by_hand(tiny_lm, windows[:7]), rel=1e-5)


def test_each_article_fills_a_window_of_512_tokens_of_the_embedded_model(smollm2):
    articles = read_bundled_text("articles").decode().splitlines()
    assert len(articles) >= 30
    assert len(set(articles)) == len(articles)
    assert min(len(smollm2.tokenizer(article)["input_ids"]) for article in articles) >= 512


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"window": 1}, "window must lie in 2 to 512, what {name} takes; got 1."),
        ({"window": 513}, "window must lie in 2 to 512, what {name} takes; got 513."),
        ({"limit": 0}, "limit must be a whole number of at least 1; got 0."),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_range(tiny_lm, text_file, given, sentence):
    with pytest.raises(wb.WorkbenchError) as caught:
        perplexity(tiny_lm, text_file, **given)
    assert str(caught.value) == sentence.format(name=tiny_lm.name)


def test_a_text_of_one_token_is_refused(tiny_lm, tmp_path):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    with pytest.raises(wb.WorkbenchError) as caught:
        perplexity(tiny_lm, tmp_path / "empty.txt")
    assert str(caught.value) == f"{tmp_path / 'empty.txt'} has fewer than two tokens; give a longer text."


def test_a_missing_file_is_named(tiny_lm, tmp_path):
    with pytest.raises(wb.WorkbenchError) as caught:
        perplexity(tiny_lm, tmp_path / "none.txt")
    assert str(caught.value) == (
        f"{tmp_path / 'none.txt'} cannot be read (No such file or directory); give a file of text, 'bundled' or "
        "'articles'."
    )
