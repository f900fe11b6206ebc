"""C = E[k kᵀ] against the naive sum, of the unedited model, from a cache that knows what it holds."""

import logging

import numpy as np
import pytest
import torch

import workbench as wb
from tests.tiny_models import D_FF, SENTENCES, build_tiny_lm
from workbench.editing import second_moment as module
from workbench.editing.second_moment import SecondMoment, solve
from workbench.errors import EditError

LENGTH = 256


@pytest.fixture(autouse=True)
def own_cache_always(own_cache):
    """Give each test here an empty cache."""


@pytest.fixture
def text(tmp_path):
    """Give a text file of more than three texts of 256 tokens, in any of the tokenizers."""
    generator = torch.Generator().manual_seed(0)
    order = [torch.randperm(len(SENTENCES), generator=generator).tolist() for _ in range(12)]
    path = tmp_path / "text.txt"
    path.write_text(" ".join(SENTENCES[i] for permutation in order for i in permutation), encoding="utf-8")
    return path


def naive(lm, layer, ids):
    """E[k kᵀ] by a hook, one text and one token at a time, in float64."""
    total, count = torch.zeros(D_FF, D_FF, dtype=torch.float64), 0
    for start in range(0, len(ids) - LENGTH + 1, LENGTH):
        seen = []
        handle = lm.mlp_out(layer).register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            lm.model(torch.tensor([ids[start : start + LENGTH]]))
        handle.remove()
        for key in seen[0].reshape(-1, D_FF).double():
            total += torch.outer(key, key)
            count += 1
    return total / count


def ids_of(lm, text, n_tokens):
    return lm.tokenizer(text.read_text(encoding="utf-8"))["input_ids"][:n_tokens]


def assert_moment(actual, expected):
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual / expected.norm(), expected / expected.norm(), rtol=0, atol=1e-7)


def forbid_passes(lm):
    """Make any forward pass of this model fail."""

    def refuse(module, args, kwargs):
        raise AssertionError("the model ran")

    lm.model.register_forward_pre_hook(refuse, with_kwargs=True)


def cached_files(own_cache):
    return sorted(path.name for path in (own_cache / "second-moments").iterdir())


def change(lm, name):
    """Move one entry of a weight, as another checkpoint would have it; the model then has another name, too."""
    lm.model.get_parameter(name).data.reshape(-1)[3] += 1.0


def test_it_is_the_naive_mean_over_whole_texts_of_the_file(every_tiny_lm, text):
    every_tiny_lm.memo.clear()
    source = SecondMoment(source=str(text), n_tokens=700)  # two whole texts
    moments = source.of(every_tiny_lm, [0, 2])
    every_tiny_lm.memo.clear()
    ids = ids_of(every_tiny_lm, text, 700)
    assert len(ids) == 700
    for layer, C in moments.items():
        assert_moment(C, naive(every_tiny_lm, layer, ids))
    assert list(moments) == [0, 2]


def test_it_is_symmetric_and_positive_semidefinite(tiny_lm, text):
    C = SecondMoment(source=str(text), n_tokens=512).of(tiny_lm, [1])[1]
    torch.testing.assert_close(C, C.T, rtol=0, atol=0)
    assert torch.linalg.eigvalsh(C).min() > -1e-12 * C.norm()


def test_it_is_that_of_the_unedited_model_while_an_update_is_applied(tiny_lm, text):
    source = SecondMoment(source=str(text), n_tokens=512)
    expected = naive(tiny_lm, 2, ids_of(tiny_lm, text, 512))
    name = tiny_lm.arch.mlp_out_weight(0)
    update = wb.WeightUpdate({name: torch.ones_like(tiny_lm.weight(name))})
    with update.applied(tiny_lm):
        edited = tiny_lm.weight(name).clone()
        assert_moment(source.of(tiny_lm, [2])[2], expected)
        assert torch.equal(tiny_lm.model.get_parameter(name), edited)


def test_a_second_call_reads_the_file_and_gives_the_same_bits(tiny_lm, text):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.of(tiny_lm, [1, 2])
    again = build_tiny_lm(tiny_lm.model.config.model_type)
    forbid_passes(again)
    second = source.of(again, [1, 2])
    assert all(torch.equal(second[layer], first[layer]) for layer in (1, 2))


def test_the_same_model_object_does_not_even_read_the_file(tiny_lm, text):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.of(tiny_lm, [1])[1]
    forbid_passes(tiny_lm)
    text.unlink()
    assert source.of(tiny_lm, [1])[1] is first


def test_a_cache_file_cut_short_is_computed_again(tiny_lm, text, own_cache):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.of(tiny_lm, [1])[1]
    (name,) = cached_files(own_cache)
    path = own_cache / "second-moments" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert torch.equal(source.of(build_tiny_lm(tiny_lm.model.config.model_type), [1])[1], first)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "of_arch",
    [
        lambda arch: "model.embed_tokens.weight" if arch.name == "Llama" else "transformer.wte.weight",
        lambda arch: arch.mlp_out_weight(0),
        lambda arch: f"{arch.block(1)}.{arch.mlp_in[0]}.weight",
    ],
    ids=["embedding", "a block below", "the layer's own input projection"],
)
def test_a_weight_that_the_keys_depend_on_gives_another_key(tiny_lm, text, own_cache, of_arch):
    source = SecondMoment(source=str(text), n_tokens=512)
    source.of(tiny_lm, [1])
    other = build_tiny_lm(tiny_lm.model.config.model_type)
    change(other, of_arch(other.arch))
    assert_moment(source.of(other, [1])[1], naive(other, 1, ids_of(other, text, 512)))
    assert len(cached_files(own_cache)) == 2


@pytest.mark.parametrize(
    "of_arch", [lambda arch: arch.mlp_out_weight(1), lambda arch: arch.mlp_out_weight(2)], ids=["the edited", "above"]
)
def test_a_weight_that_the_keys_do_not_depend_on_gives_the_same_key(tiny_lm, text, own_cache, of_arch):
    source = SecondMoment(source=str(text), n_tokens=512)
    first = source.of(tiny_lm, [1])[1]
    other = build_tiny_lm(tiny_lm.model.config.model_type)
    change(other, of_arch(other.arch))
    forbid_passes(other)
    assert torch.equal(source.of(other, [1])[1], first)
    assert len(cached_files(own_cache)) == 1


def test_another_text_budget_or_layer_gives_another_key(tiny_lm, text, own_cache):
    SecondMoment(source=str(text), n_tokens=512).of(tiny_lm, [1])
    SecondMoment(source=str(text), n_tokens=256).of(tiny_lm, [1])
    SecondMoment(source=str(text), n_tokens=512).of(tiny_lm, [2])
    other = text.with_name("other.txt")
    other.write_text(text.read_text().replace("Rome", "Bern"))
    SecondMoment(source=str(other), n_tokens=512).of(tiny_lm, [1])
    assert len(cached_files(own_cache)) == 4


def test_the_same_text_at_another_path_gives_the_same_key(tiny_lm, text):
    first = SecondMoment(source=str(text), n_tokens=512).of(tiny_lm, [1])[1]
    moved = text.rename(text.with_name("moved.txt"))
    again = build_tiny_lm(tiny_lm.model.config.model_type)
    forbid_passes(again)
    assert torch.equal(SecondMoment(source=str(moved), n_tokens=512).of(again, [1])[1], first)


def test_without_a_file_the_seed_settles_the_models_own_text(tiny_lm, own_cache, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 2)
    before = torch.random.get_rng_state()
    first = SecondMoment(n_tokens=512).of(tiny_lm, [1])[1]
    assert torch.equal(torch.random.get_rng_state(), before)
    other_seed = SecondMoment(n_tokens=512, seed=1).of(tiny_lm, [1])[1]
    assert not torch.allclose(other_seed, first)
    for path in (own_cache / "second-moments").iterdir():
        path.unlink()
    assert torch.equal(SecondMoment(n_tokens=512).of(build_tiny_lm(tiny_lm.model.config.model_type), [1])[1], first)


def test_without_a_file_any_weight_gives_another_key(tiny_lm, own_cache, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 1)
    SecondMoment(n_tokens=256).of(tiny_lm, [1])
    other = build_tiny_lm(tiny_lm.model.config.model_type)
    change(other, other.arch.mlp_out_weight(3))
    SecondMoment(n_tokens=256).of(other, [1])
    assert len(cached_files(own_cache)) == 2


def test_the_models_own_text_is_sampled_from_its_distribution(every_tiny_lm, monkeypatch):
    # of a text drawn from a distribution, the mean surprise is the mean entropy
    monkeypatch.setattr(module, "_ROWS", 8)
    ids = module._write_own(every_tiny_lm, 8 * LENGTH, 0)
    assert ids.shape == (8, LENGTH)
    with torch.no_grad():
        log_probs = every_tiny_lm.model(ids).logits.double().log_softmax(dim=-1)[:, 16:-1]
    surprise = -log_probs.gather(2, ids[:, 17:, None])[..., 0]
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    assert (surprise - entropy).mean().abs() < 4 * surprise.std() / surprise.numel() ** 0.5
    assert entropy.mean() < np.log(len(every_tiny_lm.tokenizer)) - 0.2  # else anything would do


def test_a_layer_out_of_range_is_refused(tiny_lm, text):
    with pytest.raises(EditError) as caught:
        SecondMoment(source=str(text)).of(tiny_lm, [4])
    assert str(caught.value) == f"layer 4 is out of range: {tiny_lm.name} has layers 0 to 3."


def test_a_text_that_is_too_short_is_refused(tiny_lm, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("Rome")
    n = len(tiny_lm.tokenizer("Rome")["input_ids"])
    with pytest.raises(EditError) as caught:
        SecondMoment(source=str(path)).of(tiny_lm, [1])
    assert str(caught.value) == f"{path} holds {n} tokens; at least 256 are needed."


def test_a_missing_file_is_refused(tiny_lm, tmp_path):
    path = tmp_path / "nowhere.txt"
    with pytest.raises(EditError) as caught:
        SecondMoment(source=str(path)).of(tiny_lm, [1])
    assert str(caught.value) == f"{path} cannot be read (No such file or directory); give a UTF-8 text file."


def test_a_file_that_is_not_utf8_is_refused(tiny_lm, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Süden ".encode("latin-1") * 1000)
    with pytest.raises(EditError) as caught:
        SecondMoment(source=str(path)).of(tiny_lm, [1])
    assert str(caught.value).startswith(f"{path} cannot be read ('utf-8' codec can't decode byte 0xfc in position 1")
    assert str(caught.value).endswith("); give a UTF-8 text file.")


@pytest.mark.parametrize("n_tokens", [0, 255])
def test_a_budget_below_one_text_is_refused(n_tokens):
    with pytest.raises(EditError) as caught:
        SecondMoment(n_tokens=n_tokens)
    assert str(caught.value) == f"n_tokens must be at least 256; got {n_tokens}."


def a_moment(n_keys, d=20):
    keys = torch.randn(n_keys, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return keys.T @ keys / n_keys


def test_solve_is_numpys_in_float64(caplog):
    C, key = a_moment(100), torch.randn(20, generator=torch.Generator().manual_seed(1))
    with caplog.at_level(logging.INFO, logger="workbench.editing.second_moment"):
        solved = solve(C, key)
    np.testing.assert_allclose(solved.numpy(), np.linalg.solve(C.numpy(), key.double().numpy()), rtol=1e-10)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("second moment: condition number about ")


@pytest.mark.parametrize("n_keys", [5, 15])
def test_a_singular_moment_is_refused(n_keys):
    with pytest.raises(EditError) as caught:
        solve(a_moment(n_keys), torch.ones(20))
    assert str(caught.value) == ("the second moment of 20 dimensions is singular; estimate it from more tokens.")
