"""`workbench edit` with every method, one fact or a batch, and what it refuses."""

import json
import logging
import sys

import pytest
import torch

import workbench as wb
from tests.tiny_models import build_tiny_lm
from workbench.cli import main
from workbench.editing.ft import FT

FACT = ("--subject", "The Eiffel Tower", "--prompt", "{} is in the city of", "--target", "Rome")
REQUEST = wb.EditRequest("The Eiffel Tower", "{} is in the city of", "Rome")
BATCH = [REQUEST, wb.EditRequest("Edith Piaf", "The mother tongue of {} is", "English")]


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Give a function that runs `workbench edit` on a tiny Llama in an empty folder: exit code, stdout, stderr."""
    log = logging.getLogger("workbench")
    handlers, level = list(log.handlers), log.level
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    lm = build_tiny_lm("llama")
    lm.model.save_pretrained(tmp_path / "tiny")
    lm.tokenizer.save_pretrained(tmp_path / "tiny")
    (folder / "facts.json").write_text(
        json.dumps([{"subject": r.subject, "prompt": r.prompt, "target_new": r.target_new} for r in BATCH])
    )

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["workbench", "edit", *map(str, args), "--model", str(tmp_path / "tiny")])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    yield run
    log.handlers[:], log.level = handlers, level


def sentence_of(result):
    code, out, err = result
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    return err.removeprefix("workbench: ").rstrip("\n")


def saved():
    return wb.WeightUpdate.load("e.safetensors")


def test_fine_tuning_takes_layer_steps_and_rate_by_the_common_options(cli):
    code, out, _ = cli(*FACT, "--method", "ft-l", "--layer", 2, "--steps", 3, "--lr", 0.001, "--save", "e.safetensors")
    assert code == 0
    expected = FT(layers=(2,), num_steps=3, lr=0.001).compute_update(build_tiny_lm("llama"), [REQUEST])
    [name] = expected
    assert torch.equal(saved().delta(name), expected.delta(name))
    assert "FT-L, layers 2, Unregularized" in out


def test_any_hyperparameter_is_set_by_name_and_typed(cli):
    options = ("--method", "ft", "--set", "layers=[1, 3]", "--set", "lr=1e-3", "--set", "num_steps=2")
    assert cli(*FACT, *options, "--save", "e.safetensors")[0] == 0
    settings = saved().info[0]["hyperparameters"]
    assert (settings["layers"], settings["lr"], settings["num_steps"]) == ([1, 3], 1e-3, 2)
    assert settings["norm_constraint"] is None


def test_a_batch_is_one_operation_and_its_scores_are_printed_before_and_after(cli):
    code, out, _ = cli("--facts", "facts.json", "--n", 2, "--method", "ft", "--steps", 2, "--save", "e.safetensors")
    assert code == 0
    [info] = saved().info
    assert {request["subject"] for request in info["requests"]} == {request.subject for request in BATCH}
    assert "2 facts in one operation, such as: " in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("reliability")] == [
        ["reliability", "teacher"],
        ["reliability", "generated"],
    ]


def test_each_layer_of_memit_can_be_pruned_in_turn(cli):
    options = ("--method", "memit", "--steps", 2, "--regularizer", "rect", "--keep", 0.5, "--when", "each-layer")
    assert cli(*FACT, *options, "--save", "e.safetensors")[0] == 0
    update = saved()
    assert update.info[0]["hyperparameters"]["each_layer"] == {"kind": "RECT", "keep": 0.5}
    assert [int(update[name].mask.sum()) for name in update] == [32 * 48 // 2] * 2


@pytest.mark.parametrize("method", ["rome", "r-rome", "kn"])
def test_a_method_of_one_fact_refuses_a_batch(cli, method):
    assert sentence_of(cli("--facts", "facts.json", "--method", method)) == (
        f"{method} edits one fact an operation; for --facts choose --method memit, mend, ft or ft-l."
    )


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "--subject is missing; give --subject, --prompt and --target, or --facts."),
        (FACT[:4], "--target is missing; give --subject, --prompt and --target, or --facts."),
        (
            ("--facts", "facts.json", "--method", "ft", "--target", "Rome"),
            "--target is of one fact, --facts of several; give one or the other.",
        ),
        (
            (*FACT, "--method", "ft", "--mom2"),
            "--mom2 is not for ft; its hyperparameters, for --set: layers, num_steps, lr, weight_decay, "
            "norm_constraint, batch_size, loss_threshold.",
        ),
        (
            (*FACT, "--method", "ft", "--set", "rate=1"),
            "ft has no hyperparameter 'rate'; known: layers, num_steps, lr, weight_decay, norm_constraint, batch_size, "
            "loss_threshold.",
        ),
        (
            (*FACT, "--method", "ft", "--set", "num_steps=many"),
            "--set 'num_steps=many': input should be a valid integer, unable to parse string as an integer; "
            "got 'many'.",
        ),
        ((*FACT, "--method", "ft", "--set", "num_steps=0"), "num_steps must be at least 1; got 0."),
        (
            (*FACT, "--when", "each-layer"),
            "--when each-layer is for memit, which solves layer after layer; got --method rome.",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(cli, args, sentence):
    assert sentence_of(cli(*args)) == sentence
