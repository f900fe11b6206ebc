"""What holds for models whose blocks hold their matrices in 8 or 4 bits."""

import sys

import pytest
import torch

import workbench as wb
from tests.editing.quick_editors import make_quick_editor
from tests.editing.test_every_method import REQUESTS
from tests.helpers import error_of, ids_of, target_nll
from tests.tiny_models import build_tiny_lm, save_tiny_lm
from workbench.errors import MissingExtraError, ModelError
from workbench.quantized import is_quantized, quantize_blocks
from workbench.registry import methods


@pytest.fixture(scope="module")
def cache_of_this_module(tmp_path_factory):
    """Keep second moments of tiny models out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=["int8-float32", "int8-bfloat16", "nf4-bfloat16"])
def quantized(request, tiny):
    """Give a quantized tiny Llama, and the name of its quantization; shared, so a test undoes what it applies."""
    pytest.importorskip("torchao", reason="torchao is not installed; the extra `quantized` has it")
    quantize, _, dtype = request.param.partition("-")
    return wb.load(tiny, quantize=quantize, dtype=dtype), quantize


def quantized_names(lm):
    return {name for name, parameter in lm.model.named_parameters() if is_quantized(parameter)}


def logits_of(lm):
    return lm.model(torch.tensor([ids_of(lm, REQUESTS[0].filled_prompt)])).logits


def bytes_of(weight):
    parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]] if is_quantized(weight) else [weight]
    return sum(part.numel() * part.element_size() for part in parts)


def test_all_matrices_of_the_blocks_are_quantized_and_nothing_else(quantized):
    lm, _ = quantized
    matrices = {name for name, parameter in lm.model.named_parameters() if parameter.dim() == 2}
    assert quantized_names(lm) == {name for name in matrices if name.startswith(lm.arch.blocks)}
    assert len(quantized_names(lm)) == 4 * 7


def test_weights_are_rounded_to_the_nearest_level(quantized, tiny):
    lm, quantize = quantized
    original = wb.load(tiny, dtype=str(lm.model.dtype)[6:])
    rounding = torch.finfo(lm.model.dtype).eps
    for name in quantized_names(lm):
        W = original.weight(name).double()
        if quantize == "int8":  # 127 levels on each side, scaled by row
            largest = W.abs().amax(dim=1, keepdim=True)
            bound = largest * (0.5 / 127 + rounding)
        else:  # the widest gap of the 16 levels is 0.304, scaled by 64 entries; the scales have 8 bits
            blocks = W.reshape(-1, 64)
            largest = blocks.abs().amax(dim=1, keepdim=True).expand_as(blocks).reshape(W.shape)
            bound = largest * 0.16 + W.abs().max() * (1 / 127 + rounding)
        assert ((lm.weight(name).double() - W).abs() <= bound).all()


def test_a_quantized_matrix_takes_the_bits_that_its_name_says():
    torchao = pytest.importorskip("torchao", reason="torchao is not installed; the extra `quantized` has it")
    assert torchao
    for quantize, bits in (("int8", 8), ("nf4", 4)):
        layer = torch.nn.Linear(1024, 1024, bias=False)
        quantize_blocks(torch.nn.Sequential(layer), quantize, "one layer")
        assert bits <= bytes_of(layer.weight) * 8 / 1024**2 < bits + 0.5


@pytest.mark.usefixtures("cache_of_this_module")
@pytest.mark.parametrize("method", methods())
def test_an_edited_matrix_is_plain_beside_the_quantized_rest_until_it_is_undone(quantized, method, tmp_path):
    lm, _ = quantized
    names, logits = quantized_names(lm), logits_of(lm)
    before = target_nll(lm, REQUESTS[0])
    update = make_quick_editor(method, lm, tmp_path).compute_update(lm, REQUESTS[:1])
    again = wb.RECT(keep=0.4)(update, lm)
    W = {name: lm.weight(name).float() for name in update}
    with update.applied(lm):
        # a finite step of KN along the new token's embedding promises nothing of a random model
        assert method == "kn" or target_nll(lm, REQUESTS[0]) < before
        assert quantized_names(lm) == names - set(update)
        with again.applied(lm):
            for name in update:
                expected = W[name] + update.delta(name) + again.delta(name)
                assert torch.equal(lm.weight(name), expected)
                assert torch.equal(lm.model.get_parameter(name), expected.to(lm.model.dtype))
        with lm.unedited():
            assert torch.equal(logits_of(lm), logits)
    assert quantized_names(lm) == names
    assert torch.equal(logits_of(lm), logits)
    lm.check_unedited_weights()


def test_a_quantized_model_is_evaluated(quantized):
    lm, _ = quantized
    assert wb.evaluate_edits(lm, REQUESTS)["value"].between(0, 1).all()
    assert wb.evaluate_tasks(lm, tasks=("sentiment",), limit=1)["task"].eq("sentiment").all()


def test_a_quantized_model_is_another_checkpoint(quantized, tiny):
    lm, _ = quantized
    assert lm.fingerprint != wb.load(tiny).fingerprint


def test_the_command_line_edits_a_quantized_model(cli, tiny, tmp_path):
    pytest.importorskip("torchao", reason="torchao is not installed; the extra `quantized` has it")
    request = REQUESTS[0]
    fact = ("--subject", request.subject, "--prompt", request.prompt, "--target", request.target_new)
    saved = tmp_path / "update.safetensors"
    result = cli("edit", "--model", tiny, "--quantize", "int8", "--method", "ft", *fact, "--save", saved)
    assert result.code == 0, result.err
    assert wb.WeightUpdate.load(saved).fingerprint == wb.load(tiny, quantize="int8").fingerprint


def test_an_unknown_quantization_is_refused_with_the_known_ones(tiny):
    assert error_of(ModelError, wb.load, tiny, quantize="int3") == "quantize 'int3' is unknown; known: int8, nf4."


def test_a_missing_torchao_is_named_with_its_cure(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    assert error_of(MissingExtraError, wb.load, tiny, quantize="int8") == (
        "torchao is not installed; pip install 'model-editing-workbench[quantized]' installs it."
    )


def test_a_model_without_linear_layers_is_refused(tmp_path):
    pytest.importorskip("torchao", reason="torchao is not installed; the extra `quantized` has it")
    folder = save_tiny_lm(build_tiny_lm("gpt2"), tmp_path / "tiny")
    assert error_of(ModelError, wb.load, folder, quantize="int8") == (
        f"torchao quantizes linear layers, and the blocks of {folder} hold Conv1D, LayerNorm; load it without quantize."
    )


def test_matrices_that_do_not_fit_the_blocks_of_nf4_are_refused():
    layer = torch.nn.Linear(10, 10)
    assert error_of(ModelError, quantize_blocks, torch.nn.Sequential(layer), "nf4", "small") == (
        "nf4 needs matrices with a multiple of 64 entries, and 0 of small has 100; choose int8."
    )
