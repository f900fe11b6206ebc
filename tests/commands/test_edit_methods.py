"""`workbench edit` with every method, one fact or a batch, and what it refuses."""

import json

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

import workbench as wb
from tests.helpers import FACT, REQUEST
from tests.tiny_models import SENTENCES, build_tiny_lm
from workbench import peft_export
from workbench.editing.ft import FT
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.registry import method_row, methods

BATCH = [REQUEST, wb.EditRequest("Edith Piaf", "The mother tongue of {} is", "English")]


@pytest.fixture
def cli(cli, own_cache, folder, tiny):
    """Give a function that runs `workbench edit` on a tiny Llama in an empty folder: exit code, stdout, stderr."""
    records = [{"subject": r.subject, "prompt": r.prompt, "target_new": r.target_new} for r in BATCH]
    (folder / "facts.json").write_text(json.dumps(records))
    return lambda *args: cli("edit", *args, "--model", tiny)


def sentence_of(result):
    code, out, err = result
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    return err.removeprefix("workbench: ").rstrip("\n")


def saved():
    return wb.WeightUpdate.load("e.safetensors")


def logits_of(model, lm):
    with torch.no_grad():
        return model(lm.tokenizer(SENTENCES[0], return_tensors="pt").input_ids).logits


SETTINGS = {
    "memit": ("--set", "mom2_update_weight=0.1", "--set", "layers=[1, 2]"),
    "mend": ("--set", "network=mend.safetensors"),
    "ultraedit": ("--set", "tokens=all"),
}


@pytest.mark.parametrize("method", methods())
def test_every_method_edits_and_its_saved_record_replays_it(cli, tiny, method):
    lm = wb.load(tiny)
    if method == "mend":
        save_network(MendNetwork.untrained(lm, weights_to_edit(lm), rank=4, edit_lr=0.01), "mend.safetensors", lm)
    options = (*FACT, "--target-true", "Paris", "--method", method, *SETTINGS.get(method, ()))
    code, out, _ = cli(*options, "--save", "e.safetensors")
    assert code == 0
    update = saved()
    [record] = update.records
    again = method_row(method).editor(**record.hyperparameters).compute_update(lm, list(record.requests))
    assert list(update) == list(again)
    assert all(torch.equal(update.delta(name), again.delta(name)) for name in update)
    assert all(f"{name}, " in out for name in update)
    assert record.method in out


def test_fine_tuning_takes_layer_steps_and_rate_by_the_common_options(cli, tiny):
    code, out, _ = cli(*FACT, "--method", "ft-l", "--layer", 2, "--steps", 3, "--lr", 0.001, "--save", "e.safetensors")
    assert code == 0
    expected = FT(layers=(2,), num_steps=3, lr=0.001).compute_update(wb.load(tiny), [REQUEST])
    [name] = expected
    assert torch.equal(saved().delta(name), expected.delta(name))
    assert "FT-L, layers 2, Unregularized" in out


def test_any_hyperparameter_is_set_by_name_and_typed(cli):
    options = ("--method", "ft", "--set", "layers=[1, 3]", "--set", "lr=1e-3", "--set", "num_steps=2")
    assert cli(*FACT, *options, "--save", "e.safetensors")[0] == 0
    settings = saved().records[0].hyperparameters
    assert (settings["layers"], settings["lr"], settings["num_steps"]) == ([1, 3], 1e-3, 2)
    assert settings["norm_constraint"] is None


def test_memit_takes_steps_and_rate_by_the_common_options(cli):
    assert cli(*FACT, "--method", "memit", "--steps", 2, "--lr", 0.25, "--save", "e.safetensors")[0] == 0
    settings = saved().records[0].hyperparameters
    assert (settings["v_num_grad_steps"], settings["v_lr"]) == (2, 0.25)


EASY_EDIT = "alg_name: FT\nlayers: [2]\nnum_steps: 2\nlr: 1e-3\nnorm_constraint: {}\nbatch_size: 1\n"


@pytest.mark.parametrize(("method", "constraint"), [("ft", None), ("ft-l", 2e-4)])
def test_the_method_says_what_easy_edits_file_is_read_as(cli, method, constraint):
    with open("ft.yaml", "w", encoding="utf-8") as file:
        file.write(EASY_EDIT.format("2e-4"))
    options = ("--method", method, "--hparams", "ft.yaml", "--steps", 3, "--save", "e.safetensors")
    assert cli(*FACT, *options)[0] == 0
    settings = saved().records[0].hyperparameters
    assert (settings["layers"], settings["lr"], settings["num_steps"]) == ([2], 1e-3, 3)
    assert settings["norm_constraint"] == constraint


def test_ft_l_is_never_made_free_in_silence(cli):
    with open("ft.yaml", "w", encoding="utf-8") as file:
        file.write(EASY_EDIT.format("false"))
    ending = "gives none; add --set norm_constraint=5e-4 or choose --method ft."
    sentence = f"ft-l needs a norm_constraint, and ft.yaml {ending}"
    assert sentence_of(cli(*FACT, "--method", "ft-l", "--hparams", "ft.yaml")) == sentence
    sentence = f"ft-l needs a norm_constraint, and --set {ending}"
    assert sentence_of(cli(*FACT, "--method", "ft-l", "--set", "norm_constraint=null")) == sentence
    options = ("--method", "ft-l", "--hparams", "ft.yaml", "--set", "norm_constraint=1e-4", "--save", "e.safetensors")
    assert cli(*FACT, *options)[0] == 0
    assert saved().records[0].hyperparameters["norm_constraint"] == 1e-4


def test_peft_writes_the_adapter_of_the_edit(cli, tiny):
    code, out, _ = cli(*FACT, "--steps", 2, "--save", "e.safetensors", "--peft", "adapter")
    assert code == 0
    lm = build_tiny_lm("llama")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), "adapter").eval()
    with saved().applied(lm):
        torch.testing.assert_close(logits_of(adapted, lm), logits_of(lm.model, lm), rtol=0, atol=1e-5)
    assert [line.split(" (")[0] for line in out.splitlines()[-2:]] == ["Saved to e.safetensors", "Saved to adapter"]


def test_only_force_replaces_an_adapter(cli):
    assert cli(*FACT, "--steps", 1, "--peft", "adapter")[0] == 0
    sentence = "--peft adapter is not empty; give another name, or --force to replace it."
    assert sentence_of(cli(*FACT, "--steps", 1, "--peft", "adapter")) == sentence
    assert cli(*FACT, "--steps", 1, "--peft", "adapter", "--force")[0] == 0


def test_an_adapter_that_the_disk_does_not_take_is_said(cli, monkeypatch, tmp_path):
    def disk_full(*given, **options):
        raise OSError("disk full")

    monkeypatch.setattr(peft_export, "save_file", disk_full)
    sentence = "--peft adapter could not be written (disk full); nothing is left of it."
    assert sentence_of(cli(*FACT, "--steps", 1, "--peft", "adapter")) == sentence
    assert not (tmp_path / "work" / "adapter").exists()


def test_an_adapter_that_cannot_be_is_refused_before_the_model_is_loaded(cli, monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.lm.load", lambda *given, **options: pytest.fail("the model was loaded"))
    for method in ("ft", "ft-l"):
        assert sentence_of(cli(*FACT, "--method", method, "--peft", "a")) == (
            f"--peft needs an update of low rank, and {method} changes all of a matrix; use --save and "
            "`workbench apply`."
        )
    for options in (("--regularizer", "rect"), ("--regularizer", "rect", "--method", "memit", "--when", "each-layer")):
        assert sentence_of(cli(*FACT, *options, "--peft", "a")) == (
            "--peft needs an update of low rank, and --regularizer rect leaves none; use --save and `workbench apply`."
        )
    sentence = f"--peft no/a: the folder {tmp_path / 'work' / 'no'} does not exist; make it first."
    assert sentence_of(cli(*FACT, "--peft", "no/a")).removeprefix("--peft: ") == sentence.removeprefix("--peft ")
    (tmp_path / "work" / "a").mkdir()
    sentence = "--peft a would replace a, which is needed; give another name."
    assert sentence_of(cli(*FACT, "--save", "a/e.safetensors", "--peft", "a")) == sentence


def test_a_batch_is_one_operation_and_its_scores_are_printed_before_and_after(cli):
    code, out, _ = cli("--facts", "facts.json", "--n", 2, "--method", "ft", "--steps", 2, "--save", "e.safetensors")
    assert code == 0
    [record] = saved().records
    assert {request.subject for request in record.requests} == {request.subject for request in BATCH}
    assert "2 facts in one operation, such as: " in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("reliability")] == [
        ["reliability", "teacher"],
        ["reliability", "generated"],
        ["reliability", "natural"],
    ]


@torch.no_grad()
def chance(lm, request):
    n_prompt = len(lm.tokenizer(request.filled_prompt)["input_ids"])
    ids = torch.tensor([lm.tokenizer(f"{request.filled_prompt} {request.target_new}")["input_ids"]])
    return float((-cross_entropy(lm.model(ids).logits[0, n_prompt - 1 : -1], ids[0, n_prompt:], reduction="sum")).exp())


def test_of_a_batch_the_first_facts_are_shown_with_their_chances_before_and_after(cli):
    options = ("--method", "ft", "--set", "layers=[1, 2, 3]", "--lr", 0.02, "--steps", 80, "--save", "e.safetensors")
    code, out, _ = cli("--facts", "facts.json", "--n", 2, *options)
    assert code == 0
    lines = out.splitlines()
    start = lines.index("First facts  2 of them, and P(target)")
    lm, shown = build_tiny_lm("llama"), dict(line.split(" → ", 1) for line in lines[start + 1 : start + 3])
    for request in BATCH:
        target, before, arrow, after = shown[request.filled_prompt].split()
        assert (target, arrow) == (request.target_new, "→")
        assert float(before) == pytest.approx(chance(lm, request), rel=0.5)
        with saved().applied(lm):
            assert float(after) == pytest.approx(chance(lm, request), abs=6e-4)
        assert float(after) > 0.1


def test_each_layer_of_memit_can_be_pruned_in_turn(cli):
    options = ("--method", "memit", "--steps", 2, "--regularizer", "rect", "--keep", 0.5, "--when", "each-layer")
    assert cli(*FACT, *options, "--save", "e.safetensors")[0] == 0
    update = saved()
    assert update.records[0].hyperparameters["each_layer"] == {"kind": "RECT", "keep": 0.5}
    assert [int(update[name].mask.sum()) for name in update] == [32 * 48 // 2] * 2


def test_a_fact_without_a_subject_needs_a_method_that_needs_none(cli):
    fact = ("--prompt", "The Eiffel Tower is in the city of", "--target", "Rome and Milan")
    missing = "--subject is missing; give --subject, --prompt and --target, or --facts."
    assert sentence_of(cli(*fact, "--method", "rome")) == missing
    assert cli(*fact, "--method", "ultraedit", "--save", "e.safetensors")[0] == 0
    assert saved().records[0].requests == (wb.EditRequest(None, fact[1], fact[3]),)


@pytest.mark.parametrize("method", ["rome", "r-rome", "kn"])
def test_a_method_of_one_fact_refuses_a_batch(cli, method):
    assert sentence_of(cli("--facts", "facts.json", "--method", method)) == (
        f"{method} edits one fact per operation; "
        "for --facts choose --method memit, memit-seq, encore, alphaedit, emmet, mend, ft, ft-l, locft-bf, "
        "ultraedit or lora."
    )


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "--subject is missing; give --subject, --prompt and --target, or --facts."),
        (FACT[:4], "--target is missing; give --subject, --prompt and --target, or --facts."),
        (
            ("--facts", "facts.json", "--method", "ft", "--target", "Rome"),
            "--target belongs to one fact, --facts to several; give one or the other.",
        ),
        (
            (*FACT, "--method", "ft", "--mom2"),
            "--mom2 is not for ft; its hyperparameters, for --set: layers, num_steps, lr, weight_decay, "
            "norm_constraint, batch_size, loss_threshold, end_of_text, order_seed.",
        ),
        (
            (*FACT, "--method", "ft", "--set", "rate=1"),
            "ft has no hyperparameter 'rate'; known: layers, num_steps, lr, weight_decay, norm_constraint, batch_size, "
            "loss_threshold, end_of_text, order_seed.",
        ),
        (
            (*FACT, "--method", "ft", "--set", "num_steps=many"),
            "--set 'num_steps=many': input should be a valid integer, unable to parse string as an integer; "
            "got 'many'.",
        ),
        (
            (*FACT, "--method", "memit", "--when", "each-layer"),
            "--when each-layer has no effect without a regularizer; "
            "choose --regularizer rect, rect-energy, random, pca, prune or sphere.",
        ),
        ((*FACT, "--set", "kl_factor=true"), "kl_factor must be a nonnegative number; got True."),
        (
            (*FACT, "--method", "memit", "--set", "layers=[true]"),
            "layers must be a list in which each entry is a whole number of at least 0; got (True,).",
        ),
        (
            (*FACT, "--method", "ft", "--set", "num_steps=0"),
            "num_steps must be a whole number from 1 to 1000000; got 0.",
        ),
        (
            (*FACT, "--when", "each-layer"),
            "--when each-layer is for memit, which solves layer after layer; got --method rome.",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(cli, args, sentence):
    assert sentence_of(cli(*args)) == sentence


BREAKING = (*FACT, "--method", "ft", "--lr", "1", "--steps", "3", "--save", "e.safetensors")


def test_the_report_tells_the_risk(cli):
    code, out, _ = cli(*BREAKING)
    assert code == 0
    assert "high: predictions on other text move by " in out


def test_a_guard_refuses_what_would_break_the_model_and_writes_nothing(cli, folder):
    code, out, err = cli(*BREAKING, "--guard", "refuse")
    assert (code, out) == (2, "")
    sentence = err.splitlines()[-1]
    assert sentence.startswith("workbench: the edit of 'The Eiffel Tower' was not applied because of its high risk: ")
    assert not (folder / "e.safetensors").exists()
