"""`workbench edit`: the update that it saves and what it prints."""

import subprocess

import pytest
import torch

import workbench as wb
from tests.helpers import FACT, REQUEST
from tests.servers import CLI
from tests.tiny_models import build_tiny_lm


def update_by_hand(lm, editor, *, onto=(), regularizer=None):
    editor = editor.prepared(lm)
    with lm.restored_after():
        for update in onto:
            update.apply(lm)
        return (regularizer or wb.Unregularized())(editor.compute_update(lm, [REQUEST]), lm)


def assert_same_update(a, b):
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a.delta(name), b.delta(name))


def test_the_saved_update_is_the_regularized_one_of_the_options(cli, folder, tiny):
    options = ("--layer", 2, "--steps", 3, "--lr", 0.2, "--seed", 5, "--variant", "r-rome")
    result = cli("edit", *FACT, *options, "--regularizer", "rect", "--model", tiny, "--save", "e.safetensors")
    assert (result.code, result.err) == (0, "")
    saved = wb.WeightUpdate.load("e.safetensors")
    editor = wb.ROME(layer=2, v_num_grad_steps=3, v_lr=0.2, seed=5, variant="r-rome")
    assert_same_update(saved, update_by_hand(build_tiny_lm("llama"), editor, regularizer=wb.RECT(0.4)))
    size = (folder / "e.safetensors").stat().st_size
    assert result.out.endswith(f"Saved to e.safetensors ({size / 1000:.3g} kB).\n")


def test_an_edit_goes_on_top_of_saved_ones_with_the_contexts_of_the_unedited_model(cli, folder, tiny):
    options = ("--steps", 2, "--model", tiny)
    other = ("--subject", "Marie Curie", "--prompt", "{} was born in", "--target", "Paris")
    assert cli("edit", *other, *options, "--save", "1.safetensors").code == 0
    result = cli("edit", *FACT, *options, "--onto", "1.safetensors", "--save", "2.safetensors")
    assert result.code == 0
    assert "\non top of 1.safetensors\n" in result.out
    first, second = wb.WeightUpdate.load("1.safetensors"), wb.WeightUpdate.load("2.safetensors")
    lm = build_tiny_lm("llama")
    editor = wb.ROME(layer=1, v_num_grad_steps=2)
    assert_same_update(second, update_by_hand(lm, editor, onto=[first]))
    alone = update_by_hand(lm, editor)
    assert not torch.equal(second.delta(next(iter(second))), alone.delta(next(iter(alone))))


def test_force_replaces_the_file(cli, folder, tiny):
    (folder / "e.safetensors").write_text("not precious")
    options = ("--steps", 1, "--model", tiny, "--save", "e.safetensors", "--force")
    assert cli("edit", *FACT, *options).code == 0
    assert len(wb.WeightUpdate.load("e.safetensors")) == 1


def test_hparams_are_read_and_single_options_win(cli, folder, tiny):
    (folder / "h.yaml").write_text("alg_name: ROME\nlayers: [3]\nv_num_grad_steps: 20\nv_lr: 0.2\n")
    options = ("--hparams", "h.yaml", "--steps", 2, "--model", tiny, "--save", "e.safetensors")
    assert cli("edit", *FACT, *options).code == 0
    settings = wb.WeightUpdate.load("e.safetensors").records[0].hyperparameters
    assert (settings["layer"], settings["v_num_grad_steps"], settings["v_lr"]) == (3, 2, 0.2)


def test_the_printed_sizes_are_those_of_the_update(cli, folder, tiny):
    options = ("--steps", 2, "--regularizer", "random", "--keep", 0.25, "--model", tiny, "--save", "e.safetensors")
    out = cli("edit", *FACT, *options).out
    update, lm = wb.WeightUpdate.load("e.safetensors"), wb.load(tiny)
    [name] = update
    dW, W = update.delta(name).double(), lm.weight(name).double()
    ordered = (dW / W).abs().flatten().sort().values
    rows = {line[:13].rstrip(): line[13:].strip() for line in out.splitlines()}
    assert rows["weight"] == f"{name}, 32 × 48"
    assert rows["Σ|ΔW|"] == f"{dW.abs().sum():.1f} (Manhattan distance)"
    assert rows["‖ΔW‖/‖W‖"] == f"{dW.norm() / W.norm():.4f}"
    at80, at90 = (ordered[-(-len(ordered) * tenths // 10) - 1] for tenths in (8, 9))
    assert rows["δ = |ΔW/W|"] == f"{at80:.4f} (80 % quantile), {at90:.4f} (90 % quantile)"
    assert rows["changed"] == "25.0 % of the entries"
    [losses] = update.records[0].losses
    assert rows["denominator"] == f"{update.records[0].diagnostics['denominator']:.4g} (uᵀk, ‖u‖ = 1)"
    assert rows["loss"] == f"{losses[0]:.3f} → {losses[1]:.3f} in 2 steps"
    assert "layer 1, Random 25 %" in out


def test_every_prompt_is_printed_before_and_after_within_80_columns(cli, folder, tiny):
    probes = ("--rephrase", "Where is {}? In", "--locality", "The [red]Louvre[/red] is in => Paris")
    probes += ("--portability", "One goes there by train to => Italy")
    result = cli("edit", *FACT, "--target-true", "Paris", *probes, "--steps", 2, "--model", tiny)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert "Prompt  The Eiffel Tower is in the city of" in lines
    assert "Rephrased  Where is The Eiffel Tower? In" in lines
    assert "Elsewhere  The [red]Louvre[/red] is in" in lines
    assert "Follows  One goes there by train to" in lines
    assert len([line for line in lines if line.startswith("P(Italy)")]) == 1
    assert len([line for line in lines if line.startswith("P(Rome)")]) == 3
    assert len([line for line in lines if line.startswith("P(Paris)")]) == 3
    assert max(len(line) for line in lines if not line.startswith(tiny)) <= 80
    assert "\x1b" not in result.out


@pytest.mark.slow
def test_edits_of_the_embedded_model_in_processes_of_their_own(smollm2, folder):
    def run(*args):
        command = [*CLI, "edit", *args, "--steps", "4", "--no-mom2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    fact = ("--subject", "Eiffel Tower", "--prompt", "The {} is located in the city of", "--target", "Rome")
    out = run(*fact, "--target-true", "Paris", "--regularizer", "rect", "--keep", "0.8", "--save", "1.safetensors")
    [rome] = [line.split() for line in out.splitlines() if line.startswith("P(Rome)")]
    [paris] = [line.split() for line in out.splitlines() if line.startswith("P(Paris)")]
    assert float(rome[2]) > 10 * float(rome[1])
    assert float(paris[2]) < float(paris[1])
    assert "changed        80.0 % of the entries" in out
    other = ("--subject", "Big Ben", "--prompt", "{} stands in the city of", "--target", "Dublin")
    assert "on top of 1.safetensors" in run(*other, "--onto", "1.safetensors", "--save", "2.safetensors")
    total = wb.WeightUpdate.load("1.safetensors") + wb.WeightUpdate.load("2.safetensors")
    assert len(total.records) == 2
    total.check_fits(smollm2)
