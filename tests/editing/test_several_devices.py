"""What holds for every editing method on a model that accelerate has spread over two devices."""

import pytest
import torch

import workbench as wb
from tests.editing.quick_editors import make_quick_editor
from tests.editing.test_every_method import REQUESTS
from tests.helpers import assert_same_bits, weights_of
from tests.pretended_devices import FIRST, SECOND, device_of, two_devices
from tests.tiny_models import build_tiny_lm
from workbench.errors import ModelError
from workbench.registry import method_row, methods

pytestmark = pytest.mark.usefixtures("cache_of_this_module")


# the head of GPT-2 shares the embeddings of the first device, that of Llama is on the second one
FAMILIES_AND_METHODS = [("gpt2", method) for method in methods()] + [
    ("llama", method) for method in ("rome", "memit", "kn", "mend", "lora")
]


def _requests(method):
    return REQUESTS if method_row(method).supports_batch else REQUESTS[:1]


@pytest.mark.parametrize(("model_type", "method"), FAMILIES_AND_METHODS)
def test_an_update_is_that_of_one_device_and_is_applied_and_undone_where_its_weights_are(model_type, method, tmp_path):
    with two_devices(model_type) as (lm, _):
        assert {device_of(parameter) for parameter in lm.model.parameters()} == {FIRST, SECOND}
        weights = weights_of(lm)
        update = make_quick_editor(method, lm, tmp_path).compute_update(lm, _requests(method))
        regularized = wb.RECT(keep=0.4)(update, lm)
        with update.applied(lm), regularized.applied(lm):
            assert not wb.weight_change(regularized, lm).empty
        assert_same_bits(lm, weights)
        places = {name: device_of(lm.weight(name)) for name in update}
        assert {name: device_of(update.delta(name)) for name in update} == places
    lm = build_tiny_lm(model_type)
    expected = make_quick_editor(method, lm, tmp_path).compute_update(lm, _requests(method))
    assert set(update) == set(expected)
    for name in update:
        torch.testing.assert_close(update.delta(name), expected.delta(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_scores_are_those_of_one_device(model_type):
    tasks = ("sentiment",)
    with two_devices(model_type) as (lm, _):
        edits, abilities = wb.evaluate_edits(lm, REQUESTS), wb.evaluate_tasks(lm, tasks=tasks, limit=1)
    lm = build_tiny_lm(model_type)
    assert edits.equals(wb.evaluate_edits(lm, REQUESTS))
    assert abilities.equals(wb.evaluate_tasks(lm, tasks=tasks, limit=1))


@pytest.mark.parametrize("method", ["rome", "memit", "ft", "lora"])
def test_each_further_step_waits_for_the_device_once_for_the_loss_and_once_in_transformers(method, tmp_path):
    n_reads = []
    for n_steps in (2, 7):
        with two_devices("gpt2") as (lm, devices):
            editor = make_quick_editor(method, lm, tmp_path, n_steps=n_steps).prepared(lm)
            before = devices.host_reads
            [record] = editor.compute_update(lm, REQUESTS[:1]).records
            assert record.steps == (n_steps,)
            n_reads.append(devices.host_reads - before)
    # transformers asks in each pass whether the mask hides anything
    assert n_reads[1] - n_reads[0] == 2 * 5


def test_a_loaded_update_is_added_to_one_that_is_on_a_device(tmp_path):
    with two_devices("llama") as (lm, _):
        update = make_quick_editor("ft", lm, tmp_path).compute_update(lm, REQUESTS[:1])
        update.save(tmp_path / "update.safetensors")
        loaded = wb.WeightUpdate.load(tmp_path / "update.safetensors")
        [name] = total = update + loaded
        assert device_of(total.delta(name)) == device_of(update.delta(name)) != device_of(loaded.delta(name))
    assert torch.equal(total.delta(name), 2 * update.delta(name))


def test_a_model_whose_weights_are_offloaded_is_refused_with_the_cure(tmp_path):
    from accelerate import cpu_offload

    lm = build_tiny_lm("gpt2")
    cpu_offload(lm.model, execution_device="cpu")
    n_weights = len(list(lm.model.parameters()))
    with pytest.raises(ModelError) as caught:
        wb.LanguageModel(lm.name, lm.model, lm.tokenizer, lm.arch)
    assert str(caught.value) == (
        f"the devices cannot hold tiny-gpt2: device_map leaves {n_weights} of its weights off them, among them "
        "transformer.wte.weight, where they cannot be edited; a half-precision dtype or quantize needs less memory."
    )
