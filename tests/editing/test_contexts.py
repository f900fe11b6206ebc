"""Context templates: written by the unedited model, and determined by the seed alone."""

import torch

import workbench as wb
from tests.helpers import error_of
from tests.tiny_models import build_tiny_lm
from workbench.editing.contexts import LENGTHS, OPENINGS, sample_contexts
from workbench.errors import EditError


def test_there_are_21_by_default_and_the_bare_prompt_comes_first(every_tiny_lm):
    contexts = sample_contexts(every_tiny_lm, seed=0)
    assert contexts[0] == "{}"
    assert len(contexts) == 1 + sum(n_texts for _, n_texts in LENGTHS) == 21


def test_each_holds_the_prompt_once_at_its_end(every_tiny_lm):
    for context in sample_contexts(every_tiny_lm, seed=0)[1:]:
        assert context.endswith(". {}")
        assert context.count("{") == context.count("}") == 1


def test_the_openings_are_used_equally_often(every_tiny_lm):
    texts = sample_contexts(every_tiny_lm, seed=0, lengths=((4, 10),))[1:]
    for i, text in enumerate(texts):
        assert text.startswith(OPENINGS[i // 2])


def test_each_text_has_its_length_and_each_token_is_among_the_five_most_probable(tiny_lm, monkeypatch):
    chosen = []
    monkeypatch.setattr(tiny_lm.tokenizer.__class__, "batch_decode", lambda self, ids, **_: chosen.extend(ids) or ["x"])
    sample_contexts(tiny_lm, seed=0, lengths=((6, 5),))
    assert len(chosen) == 5
    for ids, opening in zip(chosen, OPENINGS, strict=True):
        start = len(tiny_lm.tokenizer(opening)["input_ids"])
        logits = tiny_lm.model(torch.tensor([ids])).logits[0]
        assert len(ids) == 6
        for i in range(start, 6):
            assert ids[i] in logits[i - 1].topk(5).indices


def test_the_same_seed_gives_the_same_and_another_gives_others(every_tiny_lm):
    contexts = sample_contexts(every_tiny_lm, seed=3)
    assert sample_contexts(every_tiny_lm, seed=3) == contexts
    assert sample_contexts(every_tiny_lm, seed=4) != contexts


def test_another_model_gives_others(tiny_lm):
    other = build_tiny_lm(tiny_lm.model.config.model_type, seed=1)
    assert sample_contexts(other, seed=0) != sample_contexts(tiny_lm, seed=0)


def test_global_random_state_is_neither_read_nor_changed(tiny_lm):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    contexts = sample_contexts(tiny_lm, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert sample_contexts(tiny_lm, seed=0) == contexts


def test_braces_in_the_models_text_are_replaced_by_blanks(tiny_lm, monkeypatch):
    monkeypatch.setattr(tiny_lm.tokenizer.__class__, "batch_decode", lambda self, ids, **_: ["The {} a}b{c"] * len(ids))
    assert sample_contexts(tiny_lm, seed=0, lengths=((5, 5),))[1] == "The    a b c. {}"


def test_a_number_of_texts_that_the_openings_do_not_divide_is_refused(tiny_lm):
    sentence = error_of(EditError, sample_contexts, tiny_lm, seed=0, lengths=((5, 7),))
    assert sentence == "the number of contexts of each length must be a multiple of 5; got 7."


def large_update(lm):
    """An update of the first block that changes what the model writes."""
    name = lm.arch.mlp_out_weight(0)
    return wb.WeightUpdate({name: torch.randn(lm.weight(name).shape, generator=torch.Generator().manual_seed(0))})


def test_an_applied_update_does_not_change_the_templates(tiny_lm):
    expected = sample_contexts(tiny_lm, seed=0)
    with large_update(tiny_lm).applied(tiny_lm):
        assert sample_contexts(tiny_lm, seed=0) == expected
    edited = build_tiny_lm(tiny_lm.model.config.model_type)
    with large_update(edited).applied(edited):  # and nothing is known of this model
        assert sample_contexts(edited, seed=0) == expected
    assert sample_contexts(edited, seed=0) == expected


def test_the_update_of_these_tests_would_change_the_templates(tiny_lm):
    expected = sample_contexts(tiny_lm, seed=0)
    name, update = tiny_lm.arch.mlp_out_weight(0), large_update(tiny_lm)
    other = build_tiny_lm(tiny_lm.model.config.model_type)
    other.model.get_parameter(name).data += update.delta(name)
    assert sample_contexts(other, seed=0) != expected


def test_sampling_leaves_the_applied_update_in_place(tiny_lm):
    name, update = tiny_lm.arch.mlp_out_weight(0), large_update(tiny_lm)
    with update.applied(tiny_lm):
        edited = tiny_lm.weight(name).clone()
        sample_contexts(tiny_lm, seed=0)
        assert torch.equal(tiny_lm.model.get_parameter(name), edited)
        assert tiny_lm.applied_updates == (update,)


def test_every_edit_of_a_sequence_uses_the_same_templates(tiny_lm):
    requests = [
        wb.EditRequest(subject="The Eiffel Tower", prompt="{} is located in the city of", target_new="Rome"),
        wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English"),
        wb.EditRequest(subject="Marie Curie", prompt="{} was born in", target_new="Paris"),
    ]
    rome, expected = wb.ROME(layer=1, v_num_grad_steps=5), sample_contexts(tiny_lm, seed=0)
    recorded = []
    for request in requests:
        update = rome.compute_update(tiny_lm, [request])
        recorded.append(tuple(update.records[0].hyperparameters["contexts"]))
        update.apply(tiny_lm)
    assert recorded == [expected] * 3
