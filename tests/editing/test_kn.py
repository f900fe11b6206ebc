"""KN against the plain algorithm, on every family."""

import copy
import json
from dataclasses import asdict, replace

import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, ids_of, target_nll, weights_of
from tests.references.plain_easyedit_kn import greedy_tokens, plain_easyedit, scores_of_layer
from tests.references.plain_kn import coarse_neurons, plain_kn, predicted_token
from tests.tiny_models import D_MODEL, N_LAYERS, ModelOutline, build_tiny_lm, dropping_tokenizer
from workbench.editing.kn import KN
from workbench.editing.kn_easyedit import SETTINGS, encode_alone, place_answer
from workbench.editing.passes.attribution import IntegralForm, attribute_predictions
from workbench.errors import EditError, RequestError
from workbench.experiment.spec import ExperimentSpec

CONTEXTS = ("{}", "The river. {}", "I think that it is old, and in the north of the country. {}")
REQUEST = wb.EditRequest(
    subject="The Eiffel Tower", prompt="{} is located in the city of", target_new="Rome, Italy", target_true="Paris"
)
NO_TRUTH = replace(REQUEST, target_true=None)
AT_THE_END = wb.EditRequest(subject="Edith Piaf", prompt="Tell me the mother tongue of {}", target_new="English")
SECOND = wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English")
FEW = KN(steps=3, contexts=CONTEXTS)
BARE = KN(steps=3, contexts=("{}",))
VARIANTS = {
    "default": FEW,
    "old answer": replace(FEW, attributed="old"),
    "raw embeddings": replace(FEW, scale="embedding", lambda_new=2.0),
    "input embeddings": replace(FEW, embeddings="input"),
    "unsigned": replace(FEW, signed=False),
    "one prompt": BARE,
    "no old answer": replace(FEW, lambda_old=0.0),
    "every prompt": replace(FEW, p=0.95),
    "any prompt": replace(FEW, p=0.0),
}

EASY_EDIT = """\
alg_name: "KN"
model_name: "./hugging_cache/gpt2-xl"
device: 0
model_parallel: false

lr_scale: 1.0
n_toks: 10
refine: false
batch_size: 20
steps: 20
adaptive_threshold: 0.2
p: 0.4
"""


def paper_orientation(lm, matrix):
    """(d_out, d_in), so that output = W @ key."""
    return matrix.T if lm.arch.conv1d else matrix


def changes_of(lm, update):
    """ΔW (d_model, d_ff) by layer."""
    layers = {lm.arch.mlp_out_weight(layer): layer for layer in range(lm.n_layers)}
    return {layers[name]: paper_orientation(lm, update.delta(name)) for name in update}


def neurons_of(update):
    return {tuple(neuron) for neuron in update.records[0].diagnostics["neurons"]}


def same_bits(update, other):
    return list(update) == list(other) and all(torch.equal(update.delta(name), other.delta(name)) for name in update)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_update_is_that_of_the_plain_algorithm(every_tiny_lm, variant):
    lm, kn = every_tiny_lm, VARIANTS[variant]
    expected = plain_kn(lm, kn, REQUEST)
    changes = changes_of(lm, kn.compute_update(lm, [REQUEST]))
    assert changes.keys() == expected.keys()
    for layer, dW in changes.items():
        assert (dW.double() - expected[layer]).norm() < 1e-5 * expected[layer].norm()


def test_without_a_true_answer_the_old_one_is_the_predicted_token(every_tiny_lm):
    lm = every_tiny_lm
    update, expected = FEW.compute_update(lm, [NO_TRUTH]), plain_kn(lm, FEW, NO_TRUTH)
    for layer, dW in changes_of(lm, update).items():
        assert (dW.double() - expected[layer]).norm() < 1e-5 * expected[layer].norm()
    token = predicted_token(lm, ids_of(lm, REQUEST.filled_prompt))
    diagnostics = update.records[0].diagnostics
    assert diagnostics["old_answer"] == diagnostics["attributed_answer"] == lm.tokenizer.decode(token)
    assert same_bits(replace(FEW, attributed="old").compute_update(lm, [NO_TRUTH]), update)


def test_only_the_refined_neurons_value_vectors_change_and_all_along_one_direction(every_tiny_lm):
    lm = every_tiny_lm
    update = FEW.compute_update(lm, [REQUEST])
    changed = {
        (layer, i) for layer, dW in changes_of(lm, update).items() for i in dW.any(dim=0).nonzero().flatten().tolist()
    }
    assert changed == neurons_of(update) != set()
    for name in update:
        assert update[name].rows.shape[1] == update[name].cols.shape[1] == 1
        assert update.delta(name).shape == lm.weight(name).shape
    columns = torch.cat([dW[:, dW.any(dim=0)] for dW in changes_of(lm, update).values()], dim=1).double()
    singular = torch.linalg.svdvals(columns)
    assert len(singular) == 1 or singular[1] < 1e-6 * singular[0]


@pytest.mark.parametrize("request_", [REQUEST, NO_TRUTH, AT_THE_END], ids=["truth", "no truth", "subject last"])
def test_the_edit_makes_the_target_more_probable(every_tiny_lm, request_):
    lm, kn = every_tiny_lm, KN(contexts=("{}",))
    before = target_nll(lm, request_)
    with kn.compute_update(lm, [request_]).applied(lm):
        assert target_nll(lm, request_) < before - 0.1


def test_undo_restores_every_bit_of_weights_and_logits(every_tiny_lm):
    lm, text = every_tiny_lm, torch.tensor([ids_of(every_tiny_lm, REQUEST.filled_prompt)])
    weights, logits = weights_of(lm), lm.model(text).logits
    update = FEW.compute_update(lm, [REQUEST])
    update.apply(lm)
    assert not torch.equal(lm.model(text).logits, logits)
    update.undo(lm)
    assert torch.equal(lm.model(text).logits, logits)
    assert_same_bits(lm, weights)


def test_a_share_that_no_neuron_reaches_is_lowered_until_one_does(every_tiny_lm):
    lm = every_tiny_lm
    contexts = (*CONTEXTS, "You may ask where it is. {}", "Marie Curie worked in France. {}")
    for request in (REQUEST, SECOND):
        bare = ids_of(lm, request.filled_prompt)
        answer, sets = (predicted_token(lm, bare),), []
        for context in contexts:
            sets.append(coarse_neurons(lm, FEW, ids_of(lm, context.replace("{}", request.filled_prompt)), answer))
        highest = max(sum(neuron in each for each in sets) for neuron in set.union(*sets))
        update = replace(FEW, contexts=contexts, p=0.95).compute_update(lm, [request])
        [record] = update.records
        share = record.diagnostics["share"]
        assert share == (0.95 if highest == 5 else pytest.approx(highest / 5 - 0.05))
        assert neurons_of(update) == {
            neuron for neuron in set.union(*sets) if sum(neuron in each for each in sets) > 5 * share + 1e-9
        }
        assert record.diagnostics["n_coarse"] == [len(each) for each in sets]
        assert record.hyperparameters["p"] == 0.95


def test_a_neuron_with_negative_activation_is_turned_round(every_tiny_lm):
    lm = every_tiny_lm
    signed, unsigned = (replace(FEW, signed=signed).compute_update(lm, [REQUEST]) for signed in (True, False))
    one, other = changes_of(lm, signed), changes_of(lm, unsigned)
    turned = [(layer, i) for layer, i in neurons_of(signed) if torch.equal(one[layer][:, i], -other[layer][:, i])]
    for update in (signed, unsigned):
        assert update.records[0].diagnostics["n_negative"] == len(turned)
    if lm.arch.name in ("GPT-2", "GPT-J", "GPT-NeoX/Pythia", "OPT", "Phi"):  # not gated: GELU and ReLU
        assert not turned


def test_rephrasings_are_not_read(tiny_lm):
    told = replace(
        REQUEST, rephrase=("Where is {}? In the city of",), locality=(wb.LocalityProbe("The sea is", "old"),)
    )
    assert same_bits(FEW.compute_update(tiny_lm, [told]), FEW.compute_update(tiny_lm, [REQUEST]))


IN_CONTEXT = tuple(context.replace("{}", REQUEST.filled_prompt) for context in CONTEXTS)


@pytest.mark.parametrize(
    ("negative", "max_negative_share"), [(IN_CONTEXT[1:], 0.1), (IN_CONTEXT, 0.5)], ids=["in any", "in half"]
)
def test_neurons_of_negative_prompts_are_dropped(tiny_lm, negative, max_negative_share):
    lm, kn = tiny_lm, replace(BARE, negative_prompts=negative, max_negative_share=max_negative_share)
    found = neurons_of(BARE.compute_update(lm, [REQUEST]))
    prompts = [ids_of(lm, text) for text in negative]
    sets = [coarse_neurons(lm, kn, prompt, (predicted_token(lm, prompt),)) for prompt in prompts]
    others = {n for n in set.union(*sets) if sum(n in each for each in sets) > max_negative_share * len(negative)}
    assert found & others  # or nothing is dropped
    assert neurons_of(kn.compute_update(lm, [REQUEST])) == found - others


def test_negative_prompts_are_read_on_the_unedited_model(tiny_lm):
    kn = replace(BARE, negative_prompts=("The capital of Italy is",))
    fresh = build_tiny_lm(tiny_lm.arch.model_types[0])
    fresh_update = kn.compute_update(fresh, [REQUEST])
    first = BARE.compute_update(tiny_lm, [SECOND])
    first.apply(tiny_lm)
    kn.compute_update(tiny_lm, [REQUEST])
    first.undo(tiny_lm)
    assert same_bits(kn.compute_update(tiny_lm, [REQUEST]), fresh_update)
    [(key, neurons)] = tiny_lm.memo.section("KN neurons").items()
    assert torch.equal(neurons, fresh.memo.section("KN neurons")[key])


def test_a_special_token_is_never_the_predicted_one():
    lm = build_tiny_lm("phi")
    lm.model.get_output_embeddings().bias.data[lm.tokenizer.eos_token_id] = 100.0
    answer = BARE.compute_update(lm, [NO_TRUTH]).records[0].diagnostics["attributed_answer"]
    assert answer
    assert lm.tokenizer(answer)["input_ids"] != [lm.tokenizer.eos_token_id]


def test_the_second_edit_of_a_sequence_is_computed_on_the_edited_model(every_tiny_lm):
    lm = every_tiny_lm
    alone = plain_kn(lm, BARE, SECOND)
    with BARE.compute_update(lm, [AT_THE_END]).applied(lm):
        after, expected = changes_of(lm, BARE.compute_update(lm, [SECOND])), plain_kn(lm, BARE, SECOND)
    assert after.keys() == expected.keys()
    for layer, dW in after.items():
        assert (dW.double() - expected[layer]).norm() < 1e-5 * expected[layer].norm()
    assert alone.keys() != expected.keys() or any((alone[layer] != expected[layer]).any() for layer in alone)


def test_the_padding_side_of_the_tokenizer_does_not_matter(every_tiny_lm):
    updates = []
    for side in ("left", "right"):
        tokenizer = copy.deepcopy(every_tiny_lm.tokenizer)
        tokenizer.padding_side = side
        updates.append(FEW.compute_update(replace(every_tiny_lm, tokenizer=tokenizer), [REQUEST]))
    assert same_bits(*updates)


@pytest.mark.parametrize("model_type", ["gpt2", "mistral"])
def test_the_same_seed_gives_the_same_bits(model_type):
    kn, updates = KN(steps=2, seed=5), []
    for global_seed in (1, 2):
        lm = build_tiny_lm(model_type)
        torch.manual_seed(global_seed)
        updates.append(kn.compute_update(lm, [REQUEST]))
    assert same_bits(*updates)
    assert updates[0].records[0].as_dict() == updates[1].records[0].as_dict()
    assert replace(kn, seed=6).prepared(lm).contexts != kn.prepared(lm).contexts


def test_an_update_can_be_replayed_from_its_own_record(tiny_lm):
    kn = KN(steps=2, negative_prompts=("The capital of Italy is",))
    update = kn.compute_update(tiny_lm, [REQUEST])
    record = json.loads(json.dumps(update.records[0].as_dict()))  # as from a file
    assert same_bits(KN(**record["hyperparameters"]).compute_update(tiny_lm, [REQUEST]), update)


def test_computing_changes_no_weight_and_no_global_random_state(every_tiny_lm):
    lm = every_tiny_lm
    weights, state = weights_of(lm), torch.random.get_rng_state()
    KN(steps=1).compute_update(lm, [REQUEST])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert lm.applied_updates == ()
    assert_same_bits(lm, weights)
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


def test_the_record_says_how_the_update_was_made(tiny_lm):
    update = replace(FEW, attributed="old").compute_update(tiny_lm, [REQUEST])
    (record,) = update.records
    assert record.method == "KN"
    assert record.requests == (REQUEST,)
    expected = asdict(replace(FEW, attributed="old"))
    assert record.hyperparameters == expected | {"contexts": list(CONTEXTS), "negative_prompts": []}
    assert record.diagnostics["old_answer"].strip() == record.diagnostics["attributed_answer"].strip() == "Paris"
    assert (update.model, update.fingerprint) == (tiny_lm.name, tiny_lm.fingerprint)


def test_contexts_are_sampled_once_and_those_that_are_given_stay(tiny_lm):
    kn = KN(steps=1, seed=2).prepared(tiny_lm)
    assert len(kn.contexts) == 6
    assert kn.prepared(tiny_lm) is kn
    [record] = KN(steps=1, seed=2).compute_update(tiny_lm, [REQUEST]).records
    assert KN(**record.hyperparameters) == kn


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_the_update_is_at_least_float32(dtype, expected):
    lm = build_tiny_lm("llama", dtype=dtype)
    before, update = target_nll(lm, AT_THE_END), KN(contexts=("{}",)).compute_update(lm, [AT_THE_END])
    assert {update.delta(name).dtype for name in update} == {expected}
    with update.applied(lm):
        assert target_nll(lm, AT_THE_END) < before - 0.1


@pytest.mark.parametrize("requests", [(), (REQUEST, SECOND)])
def test_anything_but_one_request_is_refused(tiny_lm, requests):
    assert error_of(EditError, FEW.compute_update, tiny_lm, requests) == (
        f"KN edits one fact per operation; got {len(requests)} requests, apply them in sequence."
    )
    assert KN.supports_batch is False


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1000000; got 0."),
        ({"adaptive_threshold": 1.0}, "adaptive_threshold must lie in (0, 1); got 1.0."),
        ({"adaptive_threshold": 0.0}, "adaptive_threshold must lie in (0, 1); got 0.0."),
        ({"p": 1.0}, "p must lie in [0, 1); got 1.0."),
        ({"max_negative_share": -0.1}, "max_negative_share must lie in [0, 1); got -0.1."),
        ({"lambda_old": -1.0}, "lambda_old must be a nonnegative number; got -1.0."),
        ({"lambda_new": float("nan")}, "lambda_new must be a nonnegative number; got nan."),
        ({"attributed": "new"}, "attributed must be 'predicted' or 'old'; got 'new'."),
        ({"scale": "raw"}, "scale must be 'value' or 'embedding'; got 'raw'."),
        ({"embeddings": "word"}, "embeddings must be 'output' or 'input'; got 'word'."),
        ({"contexts": ("The river. {}",)}, "contexts must begin with '{}', the bare prompt, and hold it once each."),
        ({"contexts": ("{}", "a")}, "contexts must begin with '{}', the bare prompt, and hold it once each."),
        ({"contexts": ()}, "contexts must begin with '{}', the bare prompt, and hold it once each."),
        (
            {"negative_prompts": "The sea is"},
            "negative_prompts must be a list in which each entry is a text; got 'The sea is'.",
        ),
        ({"negative_prompts": ("The sea is", " ")}, "negative_prompts must not hold an empty text."),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(fields, sentence):
    with pytest.raises(EditError) as caught:
        KN(**fields)
    assert str(caught.value) == sentence


def test_a_model_whose_neurons_are_all_silent_is_refused():
    lm = build_tiny_lm("opt")  # its ReLU can silence whole layers
    for layer in range(N_LAYERS):
        lm.model.get_parameter(f"{lm.arch.block(layer)}.fc1.bias").data.fill_(-1e6)
    assert error_of(EditError, BARE.compute_update, lm, [REQUEST]) == (
        "no neuron expresses the answer to 'The Eiffel Tower is located in the city of': no attribution score is "
        "positive."
    )


def test_negative_prompts_that_leave_no_neuron_are_refused(tiny_lm):
    kn = replace(BARE, negative_prompts=(REQUEST.filled_prompt,))
    assert error_of(EditError, kn.compute_update, tiny_lm, [REQUEST]) == (
        "every neuron found for 'The Eiffel Tower is located in the city of' is also found for the negative "
        "prompts; raise max_negative_share."
    )


def test_embeddings_of_another_width_are_refused():
    lm = build_tiny_lm("opt", word_embed_proj_dim=16)
    assert error_of(EditError, BARE.compute_update, lm, [REQUEST]) == (
        f"the output embeddings of tiny-opt have 16 entries, its value vectors {D_MODEL}; KN adds one to the "
        "other, so use another method."
    )


def test_a_target_without_tokens_is_refused():
    lm = replace(build_tiny_lm("gpt2"), tokenizer=dropping_tokenizer())
    sentence = error_of(RequestError, BARE.compute_update, lm, [replace(REQUEST, target_new="\u200b")])
    assert sentence == (
        r"target '\u200b' tokenizes to nothing after 'The Eiffel Tower is located in the city of'; "
        "give a target with text in it."
    )


def yaml_error(path):
    with pytest.raises(EditError) as caught:
        KN.from_yaml(path)
    return str(caught.value)


@pytest.fixture
def hparams(tmp_path):
    """Give a function that writes EasyEdit's file with a line replaced, and returns its path."""

    def write(old: str = "", new: str = ""):
        assert old in EASY_EDIT
        path = tmp_path / "hparams.yaml"
        path.write_text(EASY_EDIT.replace(old, new) if old else EASY_EDIT)
        return path

    return write


def test_easyedits_file_gives_what_easyedit_does(hparams):
    kn = KN.from_yaml(hparams())
    assert kn == KN.for_model(ModelOutline("openai-community/gpt2-xl"))
    assert (kn.steps, kn.adaptive_threshold, kn.p, kn.contexts) == (20, 0.2, 0.4, ("{}",))
    assert (kn.attributed, kn.scale, kn.embeddings, kn.signed) == ("old", "embedding", "input", False)
    assert (kn.lambda_old, kn.lambda_new) == (1, 1)


def test_easyedits_file_with_refinement_has_prompts_sampled(hparams):
    assert KN.from_yaml(hparams("refine: false", "refine: true")).contexts is None


def test_easyedits_file_with_an_unknown_field_is_refused(hparams):
    path = hparams("n_toks: 10", "n_tokens: 10")
    assert yaml_error(path) == (
        f"{path}: field 'n_tokens' is not known for KN; known: adaptive_threshold, p, refine, steps."
    )


def test_easyedits_file_with_a_value_of_another_kind_is_refused(hparams):
    path = hparams("steps: 20", "steps: many")
    assert yaml_error(path) == f"{path}: steps must be a whole number from 1 to 1000000; got 'many'."


def test_easyedits_file_of_another_method_is_refused(hparams):
    path = hparams('alg_name: "KN"', 'alg_name: "ROME"')
    assert yaml_error(path) == f"{path} is not an EasyEdit hparams file for KN; its alg_name must be KN."


@pytest.mark.parametrize(
    ("name", "steps", "adaptive_threshold"),
    [
        ("gpt2-xl", 20, 0.2),
        ("EleutherAI/gpt-j-6B", 20, 0.1),
        ("llama-7b", 1, 0.2),
        ("meta-llama/Llama-2-7b-hf", 1, 0.2),
    ],
)
def test_published_settings_are_found_by_name(name, steps, adaptive_threshold):
    kn = KN.for_model(ModelOutline(name))
    assert (kn.steps, kn.adaptive_threshold, kn.p) == (steps, adaptive_threshold, 0.4)
    assert kn.contexts == ("{}",)


def test_any_other_model_is_edited_as_the_embedded_one_is():
    other, embedded = (KN.for_model(ModelOutline(name)) for name in ("a/model", "smollm2-135m"))
    assert replace(other, steps=embedded.steps) == embedded
    assert other.contexts is None
    assert (other.lambda_old, other.lambda_new) == (0.5, 0.5)


@pytest.mark.slow
def test_the_embedded_model_says_rome_after_the_edit(smollm2):
    request = replace(REQUEST, target_new="Rome")
    update = KN.for_model(smollm2).compute_update(smollm2, [request])
    with update.applied(smollm2):
        last = smollm2.model(torch.tensor([ids_of(smollm2, request.filled_prompt)])).logits[0, -1]
    assert smollm2.tokenizer.decode(last.argmax()) == " Rome"
    assert len(neurons_of(update)) < 100


PUBLISHED = KN(**{**SETTINGS["easyedit-gpt2-xl"], "steps": 3})
ONE_TOKEN = replace(REQUEST, target_new="R")


def assert_changes(lm, update, expected):
    changes = changes_of(lm, update)
    assert changes.keys() == expected.keys() != set()
    for layer, dW in changes.items():
        assert (dW.double() - expected[layer]).norm() < 1e-5 * expected[layer].norm()


@pytest.mark.parametrize("request_", [REQUEST, ONE_TOKEN], ids=["several tokens", "one token"])
@pytest.mark.parametrize(
    ("model_type", "steps"), [("gpt2", 3), ("gptj", 2), ("llama", 1), ("llama", 3), ("qwen2", 2)], ids=str
)
def test_the_published_form_is_easyedits_algorithm(model_type, steps, request_):
    lm = build_tiny_lm(model_type)
    update = replace(PUBLISHED, steps=steps).compute_update(lm, [request_])
    assert_changes(lm, update, plain_easyedit(lm, request_, steps=steps, threshold=0.2))


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_the_published_attributions_are_easyedits(model_type):
    lm = build_tiny_lm(model_type)
    prompt, answer = REQUEST.filled_prompt, encode_alone(lm, "Paris")
    placed = place_answer(lm, prompt, answer)
    [found] = attribute_predictions(lm, [placed], steps=3, form=IntegralForm("gate", "ends"))
    for layer in range(N_LAYERS):
        expected = scores_of_layer(lm, layer, prompt, "Paris", steps=3)
        assert (found.scores[layer] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_new_answer_of_one_token_subtracts_the_old_one_twice():
    lm = build_tiny_lm("gpt2")
    assert len(encode_alone(lm, "R")) == 1
    update = PUBLISHED.compute_update(lm, [ONE_TOKEN])
    embeddings = lm.model.get_input_embeddings().weight
    [new], [old] = encode_alone(lm, "R"), greedy_tokens(lm, ONE_TOKEN.filled_prompt, 1)[1]
    layer, i = min(neurons_of(update))
    torch.testing.assert_close(changes_of(lm, update)[layer][:, i], embeddings[new] - 2 * embeddings[old])


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_twice_is_the_edit_and_then_the_edit_of_the_edited_model(model_type):
    lm = build_tiny_lm(model_type)
    first = PUBLISHED.compute_update(lm, [REQUEST])
    with first.applied(lm):
        second = plain_easyedit(lm, REQUEST, steps=3, threshold=0.2)
    expected = changes_of(lm, first)
    for layer, dW in second.items():
        expected[layer] = expected.get(layer, 0) + dW
    twice = replace(PUBLISHED, times=2).compute_update(lm, [REQUEST])
    assert_changes(lm, twice, expected)
    assert lm.applied_updates == ()
    [record] = twice.records
    assert len(record.diagnostics["again"]) == 1
    assert record.hyperparameters["times"] == 2


def test_an_experiment_takes_a_named_setting_and_applies_it_twice(tiny_lm):
    spec = ExperimentSpec(
        method="kn", n_operations=1, hyperparameters={**SETTINGS["easyedit-llama"], "times": 2}, tasks=None
    )
    assert spec.make_editor(tiny_lm) == KN(**SETTINGS["easyedit-llama"], times=2)


def test_the_published_setting_is_that_of_the_models_family():
    for model_type, name in (("gpt2", "gpt2-xl"), ("gptj", "gpt-j-6b"), ("qwen2", "llama"), ("phi3", "llama")):
        assert KN.as_published(build_tiny_lm(model_type)) == KN(**SETTINGS[f"easyedit-{name}"])


def test_dais_setting_subtracts_the_predicted_token(tiny_lm):
    kn = replace(KN.dai(tiny_lm), steps=2, contexts=CONTEXTS)
    assert (kn.lambda_old, kn.lambda_new, kn.signed, kn.points) == (1, 8, False, "left")
    diagnostics = kn.compute_update(tiny_lm, [REQUEST]).records[0].diagnostics
    token = predicted_token(tiny_lm, ids_of(tiny_lm, REQUEST.filled_prompt))
    assert diagnostics["old_answer"] == tiny_lm.tokenizer.decode(token)
    assert diagnostics["attributed_answer"].strip() == "Paris"


def test_signs_are_refused_where_neurons_are_read_before_the_activation():
    assert error_of(EditError, KN, neurons="gate") == (
        "signed must be false where neurons is 'gate', whose sign is not that of the activation."
    )


@pytest.mark.parametrize(
    ("points", "steps", "alphas"),
    [("midpoint", 2, [0.25, 0.75]), ("left", 2, [0, 0.5]), ("ends", 3, [0, 0.5, 1]), ("ends", 1, [0])],
)
def test_the_points_of_the_integral(points, steps, alphas):
    assert IntegralForm(points=points).alphas(steps).tolist() == alphas
