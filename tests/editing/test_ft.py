"""Fine-tuning against plain training of a copied model, on every family."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import workbench as wb
from tests.helpers import error_of
from tests.tiny_models import ModelOutline, build_tiny_lm
from workbench.editing.ft import FT
from workbench.errors import EditError
from workbench.registry import make_editor

REQUESTS = [
    wb.EditRequest(subject="The Eiffel Tower", prompt="{} is located in the city of", target_new="Rome, Italy"),
    wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English"),
    wb.EditRequest(subject="HMS Beagle", prompt="{} was launched in", target_new="1821"),
]
FREE = FT(layers=(2,), num_steps=4, lr=1e-3, norm_constraint=None)
BOUND = replace(FREE, norm_constraint=2e-3)
BREADTH = replace(FREE, end_of_text=True, order_seed=3)


def plain_training(lm, ft, requests):
    """ΔW of each layer: autograd on the parameters of a copied model, whole unpadded passes, one text after another."""
    model = copy.deepcopy(lm.model)
    parameters = [model.get_parameter(lm.arch.mlp_out_weight(layer)).requires_grad_() for layer in ft.layers]
    start = [parameter.detach().clone() for parameter in parameters]
    adam = torch.optim.Adam(parameters, lr=ft.lr, weight_decay=ft.weight_decay)

    generator = None if ft.order_seed is None else torch.Generator().manual_seed(ft.order_seed)
    end = [lm.tokenizer.eos_token_id] if ft.end_of_text else []

    def nll(request):
        n_prompt = len(lm.tokenizer(request.filled_prompt)["input_ids"])
        ids = torch.tensor([lm.tokenizer(f"{request.filled_prompt} {request.target_new}")["input_ids"] + end])
        return cross_entropy(model(ids).logits[0, n_prompt - 1 : -1], ids[0, n_prompt:])

    order = range(len(requests))
    for _ in range(ft.num_steps):
        if generator is not None and len(requests) > ft.batch_size:
            order = torch.randperm(len(requests), generator=generator).tolist()
        for i in range(0, len(requests), ft.batch_size):
            adam.zero_grad()
            torch.stack([nll(requests[j]) for j in order[i : i + ft.batch_size]]).mean().backward()
            adam.step()
            if ft.norm_constraint is not None:
                with torch.no_grad():
                    for parameter, before in zip(parameters, start, strict=True):
                        parameter.copy_(parameter.clamp(before - ft.norm_constraint, before + ft.norm_constraint))
    return [(p - before).detach() for p, before in zip(parameters, start, strict=True)]


def close(actual, expected, lr):
    """Adam's first steps are lr in size whatever the gradient: rounding of a gradient near 0 turns single entries."""
    return ((actual - expected).abs() < 0.02 * lr).float().mean() > 0.99


@pytest.mark.parametrize("ft", [FREE, BOUND, BREADTH], ids=["FT", "FT-L", "LocFT-BF"])
@pytest.mark.parametrize("batch_size", [32, 2])
def test_the_update_is_that_of_plain_training(every_tiny_lm, ft, batch_size):
    ft = replace(ft, batch_size=batch_size)
    update = ft.compute_update(every_tiny_lm, REQUESTS)
    [expected] = plain_training(every_tiny_lm, ft, REQUESTS)
    [name] = update
    assert update.delta(name).abs().max() > 1e-3
    assert close(update.delta(name), expected, ft.lr)


@pytest.mark.parametrize(("model_type", "width"), [("gpt2", "n_inner"), ("llama", "intermediate_size")])
def test_a_square_matrix_is_not_turned_round(model_type, width):
    lm = build_tiny_lm(model_type, **{width: 32})
    [change] = FREE.compute_update(lm, REQUESTS).values()
    assert change.shape == (32, 32)
    [expected] = plain_training(lm, FREE, REQUESTS)
    assert close(change.matrix, expected, FREE.lr)


def test_several_layers_are_trained_together(tiny_lm):
    ft = replace(FREE, layers=(3, 1))
    update = ft.compute_update(tiny_lm, REQUESTS[:1])
    assert list(update) == [tiny_lm.arch.mlp_out_weight(layer) for layer in (1, 3)]
    for name, expected in zip(update, plain_training(tiny_lm, ft, REQUESTS[:1]), strict=True):
        assert close(update.delta(name), expected, ft.lr)


def test_weight_decay_is_adams_on_the_whole_weight(tiny_lm):
    ft = replace(FREE, weight_decay=0.5)
    [delta] = [ft.compute_update(tiny_lm, REQUESTS).delta(name) for name in [tiny_lm.arch.mlp_out_weight(2)]]
    assert close(delta, plain_training(tiny_lm, ft, REQUESTS)[0], ft.lr)
    assert not close(delta, plain_training(tiny_lm, FREE, REQUESTS)[0], ft.lr)


def test_no_entry_leaves_the_ball_and_some_reach_its_wall(every_tiny_lm):
    [change] = BOUND.compute_update(every_tiny_lm, REQUESTS).values()
    assert change.matrix.abs().max() == torch.tensor(2e-3)  # exactly, in float32
    [free] = FREE.compute_update(every_tiny_lm, REQUESTS).values()
    assert free.matrix.abs().max() > 2.5e-3


def test_padding_never_changes_an_update(tiny_lm):
    """A short fact makes the same steps beside a long one as alone, where the long one's loss has no weight."""
    long = replace(REQUESTS[1], prompt="We know for sure that the mother tongue of the very old and famous {} is not")
    both = replace(FREE, num_steps=1, batch_size=2).compute_update(tiny_lm, [REQUESTS[2], long])
    swapped = replace(FREE, num_steps=1, batch_size=2).compute_update(tiny_lm, [long, REQUESTS[2]])
    [name] = both
    assert close(both.delta(name), swapped.delta(name), FREE.lr)
    assert close(both.delta(name), plain_training(tiny_lm, replace(FREE, num_steps=1), [REQUESTS[2], long])[0], FREE.lr)


def test_training_ends_when_the_loss_is_below_the_threshold(tiny_lm):
    update = replace(FREE, loss_threshold=1e9).compute_update(tiny_lm, REQUESTS)
    assert update.records[0].steps == (1,)
    assert all(not update.delta(name).any() for name in update)


def test_the_loss_falls_and_the_record_has_it_for_each_pass(every_tiny_lm):
    update = replace(FREE, num_steps=10).compute_update(every_tiny_lm, REQUESTS)
    [losses] = update.records[0].losses
    assert len(losses) == 10
    assert losses[-1] < losses[0]


def test_half_precision_models_are_trained_in_float32():
    lm = build_tiny_lm("llama", dtype=torch.bfloat16)
    [change] = replace(FREE, num_steps=8).compute_update(lm, REQUESTS).values()
    assert change.matrix.dtype == torch.float32
    assert change.matrix.isfinite().all()


def test_an_edit_may_be_computed_where_gradients_are_off(tiny_lm):
    [expected] = FREE.compute_update(tiny_lm, REQUESTS).values()
    with torch.no_grad():
        [change] = FREE.compute_update(tiny_lm, REQUESTS).values()
    assert torch.equal(change.matrix, expected.matrix)


def test_the_model_is_not_written_to_and_undo_restores_every_bit(every_tiny_lm):
    lm = every_tiny_lm
    versions = {name: (p._version, p.clone()) for name, p in lm.model.named_parameters()}
    update = replace(FREE, layers=(1, 3)).compute_update(lm, REQUESTS)
    assert all(p._version == versions[name][0] and p.grad is None for name, p in lm.model.named_parameters())
    with update.applied(lm):
        assert all(not torch.equal(lm.weight(name), versions[name][1]) for name in update)
    assert all(torch.equal(p, versions[name][1]) for name, p in lm.model.named_parameters())


def test_the_labels_tell_the_methods_apart():
    assert (FREE.label, BOUND.label, BREADTH.label) == ("FT", "FT-L", "LocFT-BF")


@pytest.mark.parametrize(("name", "n_layers", "layer"), [("qwen2.5-7b", 28, 6), ("smollm2-135m", 30, 20)])
def test_locft_bf_trains_one_matrix_in_minibatches_of_100_up_to_the_end_of_the_text(name, n_layers, layer):
    ft = make_editor("locft-bf", ModelOutline(name, n_layers))
    assert ft == FT((layer,), norm_constraint=None, batch_size=100, end_of_text=True, order_seed=0)


def test_a_tokenizer_without_an_end_of_text_is_refused(tiny_lm):
    tiny_lm.tokenizer.eos_token = None
    sentence = f"the tokenizer of {tiny_lm.name} has no end of text; set end_of_text to false."
    assert error_of(EditError, BREADTH.compute_update, tiny_lm, REQUESTS) == sentence


def test_the_order_of_each_pass_is_drawn_and_depends_on_the_seed_alone(tiny_lm):
    small = replace(BREADTH, batch_size=2)
    one, again, other = (replace(small, order_seed=seed).compute_update(tiny_lm, REQUESTS) for seed in (3, 3, 4))
    [name] = one
    assert torch.equal(one.delta(name), again.delta(name))
    assert not torch.equal(one.delta(name), other.delta(name))


@pytest.mark.parametrize(
    ("name", "n_layers", "layer", "constraint"),
    [
        ("gpt2-xl", 48, 0, 5e-4),
        ("EleutherAI/gpt-j-6B", 28, 0, 5e-5),
        ("meta-llama/Llama-2-7b-hf", 32, 21, 5e-4),
        ("smollm2-135m", 30, 20, 5e-3),
        ("gemma3-270m", 18, 12, 5e-4),
        ("another", 30, 20, 5e-4),
    ],
)
def test_presets_are_found_by_name_and_any_other_model_is_trained_two_thirds_up(name, n_layers, layer, constraint):
    ft = FT.for_model(ModelOutline(name, n_layers))
    assert (ft.layers, ft.num_steps, ft.lr, ft.norm_constraint) == ((layer,), 25, 5e-4, constraint)


@pytest.mark.parametrize(
    ("name", "n_layers", "layer"),
    [("gpt2-xl", 48, 1), ("gpt-j-6b", 28, 21), ("gpt-j-6b", 4, 0), ("llama-7b", 32, 21), ("smollm2-135m", 30, 20)],
)
def test_plain_ft_has_its_own_layers_where_they_were_published(name, n_layers, layer):
    lm = ModelOutline(name, n_layers)
    assert make_editor("ft", lm) == FT.unconstrained_for_model(lm) == FT(layers=(layer,), norm_constraint=None)
    assert make_editor("ft-l", lm) == FT.for_model(lm)


EASY_EDIT = """\
alg_name: "FT"
model_name: "./hugging_cache/gpt2-xl"
device: 4
layers: [0]
num_steps: 25
batch_size: 3
max_length: 40
lr: 5e-4
weight_decay: 0
kl_factor: 0
norm_constraint: 5e-4
objective_optimization: "target_new"
rewrite_module_tmp: "transformer.h.{}.mlp.c_proj"
model_parallel: false
"""


def test_easy_edits_file_is_read(tmp_path):
    path = tmp_path / "ft.yaml"
    path.write_text(EASY_EDIT, encoding="utf-8")
    assert FT.from_yaml(path) == FT(layers=(0,), batch_size=3, norm_constraint=5e-4)
    path.write_text(EASY_EDIT.replace("5e-4\nobjective", "false\nobjective"), encoding="utf-8")
    assert FT.from_yaml(path).norm_constraint is None
    path.write_text(EASY_EDIT.replace("5e-4\nobjective", "true\nobjective"), encoding="utf-8")
    assert (
        error_of(EditError, lambda: FT.from_yaml(path))
        == f"{path}: norm_constraint must be a positive number or None; got True."
    )
    path.write_text("alg_name: FT\nlr: 1e-3\n", encoding="utf-8")
    assert error_of(EditError, lambda: FT.from_yaml(path)) == f"{path}: layers is missing; FT has no default for it."


def test_easy_edits_other_loss_is_refused(tmp_path):
    path = tmp_path / "ft.yaml"
    path.write_text(EASY_EDIT.replace('"target_new"', '"prompt_last"'), encoding="utf-8")
    assert error_of(EditError, FT.from_yaml, path) == (
        f"{path}: objective_optimization is 'prompt_last', a loss that FT does not have; "
        "only 'target_new' is supported."
    )


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("layers", (), "layers must hold at least one block; got none."),
        ("num_steps", 0, "num_steps must be a whole number from 1 to 1000000; got 0."),
        ("batch_size", 0, "batch_size must be a whole number from 1 to 1000000; got 0."),
        ("lr", 0.0, "lr must be a positive number; got 0.0."),
        ("norm_constraint", -1.0, "norm_constraint must be a positive number or None; got -1.0."),
        ("weight_decay", -0.1, "weight_decay must be a nonnegative number; got -0.1."),
        ("loss_threshold", float("nan"), "loss_threshold must be a nonnegative number; got nan."),
    ],
)
def test_a_hyperparameter_outside_its_range_is_refused(field, value, sentence):
    assert error_of(EditError, lambda: replace(FREE, **{field: value})) == sentence


def test_what_cannot_be_trained_is_refused(tiny_lm):
    assert (
        error_of(EditError, lambda: BOUND.compute_update(tiny_lm, [])) == "FT-L needs at least one request; got none."
    )
    message = error_of(EditError, lambda: replace(FREE, layers=(4,)).compute_update(tiny_lm, REQUESTS))
    assert message == f"layer 4 is out of range: {tiny_lm.name} has layers 0 to 3."
    with torch.no_grad():
        next(tiny_lm.blocks[3].parameters()).fill_(float("nan"))
    assert (
        error_of(EditError, lambda: FREE.compute_update(tiny_lm, REQUESTS))
        == "the loss of FT became nan; a lower lr may help."
    )
