"""Published hyperparameters by name, a rule for any other model, and EasyEdit's files."""

import pytest

import workbench as wb
from tests.helpers import error_of
from tests.tiny_models import ModelOutline
from workbench.errors import EditError

EASY_EDIT = """\
alg_name: "ROME"
model_name: "./hugging_cache/gpt2-xl"
stats_dir: "./data/stats"
device: 0
layers: [17]
fact_token: "subject_last"
v_num_grad_steps: 20
v_lr: 5e-1
v_loss_layer: 47
v_weight_decay: 0.5
clamp_norm_factor: 4
kl_factor: 0.0625
mom2_adjustment: false
context_template_length_params: [[5, 10], [10, 10]]
rewrite_module_tmp: "transformer.h.{}.mlp.c_proj"
layer_module_tmp: "transformer.h.{}"
mlp_module_tmp: "transformer.h.{}.mlp"
attn_module_tmp: "transformer.h.{}.attn"
ln_f_module: "transformer.ln_f"
lm_head_module: "transformer.wte"
mom2_dataset: "wikipedia"
mom2_n_samples: 100000
mom2_dtype: "float32"
"""


def fields_of(name, n_layers):
    """The four fields in which the presets differ, for a model of this name and depth."""
    rome = wb.ROME.for_model(ModelOutline(name, n_layers))
    return rome.layer, rome.v_num_grad_steps, rome.v_lr, rome.v_weight_decay


@pytest.fixture
def hparams(tmp_path):
    """Give a function that writes EasyEdit's file with a line replaced, and returns its path."""

    def write(old: str = "", new: str = ""):
        assert old in EASY_EDIT
        path = tmp_path / "hparams.yaml"
        path.write_text(EASY_EDIT.replace(old, new) if old else EASY_EDIT)
        return path

    return write


@pytest.mark.parametrize("name", ["gpt2-xl", "openai-community/gpt2-xl", "./hugging_cache/gpt2-xl/"])
def test_gpt2_xl_is_as_published(name):
    assert fields_of(name, 48) == (17, 20, 0.5, 0.5)


@pytest.mark.parametrize("name", ["gpt-j-6b", "EleutherAI/gpt-j-6b", "EleutherAI/gpt-j-6B"])
def test_gpt_j_is_as_published(name):
    assert fields_of(name, 28) == (5, 20, 0.5, 0.5)


@pytest.mark.parametrize("name", ["llama-7b", "huggyllama/llama-7b", "yahma/llama-7b-hf"])
def test_llama_1_is_as_published(name):
    assert fields_of(name, 32) == (5, 20, 0.1, 1e-3)


@pytest.mark.parametrize("name", ["llama-2-7b", "meta-llama/Llama-2-7b-hf", "/models/Llama-2-7b-hf"])
def test_llama_2_is_as_published(name):
    assert fields_of(name, 32) == (5, 25, 0.5, 1e-3)


@pytest.mark.parametrize("name", ["gemma3-270m", "google/gemma-3-270m"])
def test_gemma_has_a_lower_rate_because_its_values_are_short(name):
    assert fields_of(name, 18) == (3, 25, 0.096, 0.5)
    rome = wb.ROME.for_model(ModelOutline(name, 18))
    assert (rome.clamp_norm_factor, rome.kl_factor) == (0.75, 1.0)


def test_memit_has_a_higher_rate_for_gemma_because_its_hidden_states_are_long():
    memit = wb.MEMIT.for_model(ModelOutline("gemma3-270m", 18))
    assert (memit.layers, memit.v_lr, memit.mom2_update_weight) == ((3, 4, 5, 6, 7), 20.0, 1000)


@pytest.mark.parametrize(("n_layers", "layer"), [(1, 0), (2, 0), (4, 1), (12, 2), (24, 4), (30, 5), (32, 5), (80, 13)])
def test_any_other_model_is_edited_at_a_sixth_of_its_depth(n_layers, layer):
    assert fields_of("somebody/some-model", n_layers) == (layer, 25, 0.5, 1e-3)


def test_a_shallow_model_that_borrows_a_name_gets_the_rule():
    assert fields_of("tiny/gpt2-xl", 4) == (1, 25, 0.5, 1e-3)


def test_the_presets_leave_the_other_fields_at_the_papers_settings():
    rome = wb.ROME.for_model(ModelOutline("gpt2-xl", 48))
    assert (rome.clamp_norm_factor, rome.kl_factor, rome.v_loss_threshold) == (4.0, 0.0625, 0.05)
    assert (rome.mom2_adjustment, rome.variant, rome.contexts, rome.seed) == (False, "rome", None, 0)


def test_the_preset_of_the_embedded_model_fits_it(smollm2):
    smollm2.check_layer(wb.ROME.for_model(smollm2).layer)


def test_a_file_of_easy_edit_gives_the_preset_it_states(hparams):
    assert wb.ROME.from_yaml(hparams()) == wb.ROME.for_model(ModelOutline("gpt2-xl", 48))


def test_a_number_that_yaml_reads_as_a_string_is_a_number(hparams):
    assert wb.ROME.from_yaml(str(hparams("v_lr: 5e-1", "v_lr: 25e-2"))).v_lr == 0.25


def test_an_integer_where_a_float_is_meant_is_a_float(hparams):
    assert isinstance(wb.ROME.from_yaml(hparams()).clamp_norm_factor, float)


def test_the_covariance_switch_is_read(hparams):
    assert wb.ROME.from_yaml(hparams("mom2_adjustment: false", "mom2_adjustment: true")).mom2_adjustment is True


def test_an_unknown_field_is_named_with_the_known_ones(hparams):
    path = hparams("v_lr: 5e-1", "v_learning_rate: 5e-1")
    assert error_of(EditError, wb.ROME.from_yaml, path) == (
        f"{path}: field 'v_learning_rate' is not known for ROME; known: clamp_norm_factor, kl_factor, "
        "layers, mom2_adjustment, v_lr, v_num_grad_steps, v_weight_decay."
    )


@pytest.mark.parametrize("text", ['alg_name: "MEMIT"\n', "- ROME\n", "", "layers: [5]\n"])
def test_a_file_for_another_method_is_refused(tmp_path, text):
    path = tmp_path / "hparams.yaml"
    path.write_text(text)
    assert (
        error_of(EditError, wb.ROME.from_yaml, path)
        == f"{path} is not an EasyEdit hparams file for ROME; its alg_name must be ROME."
    )


def test_another_fact_token_is_refused(hparams):
    path = hparams('fact_token: "subject_last"', 'fact_token: "last"')
    assert (
        error_of(EditError, wb.ROME.from_yaml, path)
        == f"{path}: fact_token is 'last'; only 'subject_last' is supported."
    )


@pytest.mark.parametrize(("layers", "got"), [("layers: [5, 6]", "[5, 6]"), ("", "None")])
def test_anything_but_one_layer_is_refused(hparams, layers, got):
    path = hparams("layers: [17]", layers)
    assert error_of(EditError, wb.ROME.from_yaml, path) == f"{path}: layers must hold one layer for ROME; got {got}."


@pytest.mark.parametrize(
    ("old", "new", "field", "got"),
    [
        ("v_lr: 5e-1", "v_lr: fast", "v_lr", "'fast'"),
        ("v_num_grad_steps: 20", "v_num_grad_steps: 2.5", "v_num_grad_steps", "2.5"),
        ("mom2_adjustment: false", 'mom2_adjustment: "false"', "mom2_adjustment", "'false'"),
        ("kl_factor: 0.0625", "kl_factor:", "kl_factor", "None"),
        ("layers: [17]", "layers: 5", "layers", "5"),
        ("layers: [17]", "layers: [all]", "layers", "['all']"),
        ("v_lr: 5e-1", "v_lr: -1", "v_lr", "-1"),
        ("layers: [17]", "layers: [-1]", "layers", "[-1]"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_field(hparams, old, new, field, got):
    path = hparams(old, new)
    sentence = error_of(EditError, wb.ROME.from_yaml, path)
    assert sentence.startswith(f"{path}: {field} must be ")
    assert sentence.endswith(f"; got {got}.")


@pytest.mark.parametrize(("content", "kind"), [(b"a: [", "ParserError"), (b"\xff", "Unicode")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, content, kind):
    path = tmp_path / "hparams.yaml"
    path.write_bytes(content)
    sentence = error_of(EditError, wb.ROME.from_yaml, path)
    assert sentence.startswith(f"{path} cannot be read as YAML ({kind}")
    assert sentence.endswith("); give an EasyEdit hparams file.")


def test_a_file_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "hparams.yaml"
    sentence = error_of(EditError, wb.ROME.from_yaml, path)
    assert sentence == f"{path} does not exist; give an EasyEdit hparams file."
