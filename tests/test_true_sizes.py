"""Models of the paper's true sizes, with random weights, from a folder to an edited folder.

The large ones run by `make test-sizes` only: each needs two cores, 24 GiB, twice the model on disk, and minutes where
the processor has instructions for bfloat16, hours where it has none.
"""

import gc
import hashlib
import os

import pytest
import torch
from safetensors import safe_open

import workbench as wb
from benchmarks.sizes import GIB, REQUESTS, build_model, read_peak, settings_of_edit, start_peak
from benchmarks.timing import timed
from workbench.evaluation.task_names import TASK_NAMES
from workbench.registry import make_editor

on_request = (
    pytest.mark.slow,
    pytest.mark.skipif(
        "WORKBENCH_TRUE_SIZES" not in os.environ, reason="24 GiB of memory and half an hour: make test-sizes"
    ),
)
N_STEPS, KEEP = 3, 0.4


def digests_of(lm: wb.LanguageModel) -> dict[str, str]:
    """Return a hash of the bits of every parameter."""
    return {
        name: hashlib.sha256(weight.detach().contiguous().view(torch.uint8).numpy()).hexdigest()
        for name, weight in lm.model.named_parameters()
    }


def changed_since(before: dict[str, str], lm: wb.LanguageModel) -> set[str]:
    """Return the names of the parameters whose bits have changed."""
    return {name for name, digest in digests_of(lm).items() if digest != before[name]}


def read_weight(folder, name: str) -> torch.Tensor:
    """Return one parameter of a saved model."""
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 (the file is no mapping)
                return tensors.get_tensor(name)
    raise AssertionError(f"{name} is in no file of {folder}")


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        ("tiny", "float32"),
        pytest.param("gpt2-xl", "float32", marks=on_request),
        pytest.param("llama-7b", "bfloat16", marks=on_request),
    ],
)
def test_a_model_is_edited_within_its_memory_and_undone_and_written(size, dtype, tmp_path, cli, own_cache, capsys):
    def note(what: str, value: float) -> None:
        with capsys.disabled():
            print(f"{size}: {what} {value:.2f}", flush=True)

    source, out = tmp_path / "model", tmp_path / "edited"
    used_by_others = start_peak()  # what earlier tests of this process hold
    built = build_model(size, dtype, None)
    built.model.save_pretrained(source)
    built.tokenizer.save_pretrained(source)
    del built
    gc.collect()

    seconds, lm = timed(wb.load, str(source), dtype=dtype)
    note("load, s", seconds)
    weights = sum(weight.nbytes for weight in lm.model.parameters()) / GIB
    note("weights, GiB", weights)
    before = digests_of(lm)

    rome = make_editor("rome", lm, settings_of_edit(lm, "rome", tmp_path, N_STEPS))
    assert len(rome.contexts) == 21
    start_peak()
    seconds, update = timed(rome.compute_update, lm, REQUESTS[:1])
    peak = read_peak() - used_by_others
    note("ROME, s", seconds)
    note("peak of ROME, GiB", peak)
    assert peak <= weights + 2
    update.save(tmp_path / "rome.safetensors")

    memit = make_editor("memit", lm, settings_of_edit(lm, "memit", tmp_path, N_STEPS))
    seconds, batch = timed(memit.compute_update, lm, REQUESTS)
    note("MEMIT of two facts, s", seconds)
    assert set(batch) == {lm.arch.mlp_out_weight(layer) for layer in memit.layers}

    [name] = update
    regularized = wb.RECT(keep=KEEP)(update, lm)
    dW = regularized.delta(name)
    assert dW.count_nonzero() == pytest.approx(KEEP * dW.numel(), rel=1e-3)

    with regularized.applied(lm):
        assert changed_since(before, lm) == {name}
        seconds, scores = timed(wb.evaluate_tasks, lm, limit=4)
        note("eight tasks of 4 examples, s", seconds)
    assert set(scores["task"]) == set(TASK_NAMES)
    assert scores["value"].notna().all()
    with batch.applied(lm):
        assert changed_since(before, lm) == set(batch)
    assert digests_of(lm) == before

    with update.applied(lm):
        edited = lm.model.get_parameter(name).detach().clone()
    other = lm.arch.mlp_out_weight(0)
    unedited = lm.model.get_parameter(other).detach().clone()
    del lm, rome, memit, batch
    gc.collect()

    model = ("--model", str(source), "--dtype", dtype)
    seconds, result = timed(cli, "apply", "--update", str(tmp_path / "rome.safetensors"), "--out", str(out), *model)
    note("workbench apply, s", seconds)
    assert result.code == 0, result
    assert torch.equal(read_weight(out, name), edited)
    assert torch.equal(read_weight(out, other), unedited)
