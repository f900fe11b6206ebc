"""The command line: what it prints, and one sentence and exit code 2 for whatever cannot be done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.tiny_models import build_tiny_lm, dropping_tokenizer, save_tiny_lm
from workbench import embedded
from workbench.commands import models
from workbench.commands.settings import parse_setting
from workbench.errors import ModelError

COMMAND = [sys.executable, "-c", "from workbench.cli import main; main()"]
FACT = ("--subject", "The Eiffel Tower", "--prompt", "{} is in the city of", "--target", "Rome")
REQUEST = wb.EditRequest("The Eiffel Tower", "{} is in the city of", "Rome")


@pytest.fixture
def refused(cli, folder, tmp_path):
    """Give a function that checks exit code 2 and no trace of anything, and gives the sentence on stderr."""

    def content():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"}

    def run(*args) -> str:
        before = content()
        result = cli(*args)
        assert (result.code, result.out) == (2, "")
        assert content() == before
        assert result.err.startswith("workbench: ")
        assert result.err.endswith(".\n")
        assert len(result.err.splitlines()) == 1
        return result.err.removeprefix("workbench: ").rstrip("\n")

    return run


# bad input


def test_a_missing_model_is_named(refused):
    sentence = refused("edit", *FACT, "--model", "no-such/model")
    assert sentence.startswith(
        "no model 'no-such/model': it is neither an embedded model (smollm2-135m, gemma3-270m), nor a folder, nor a "
        "hub id that can be reached ("
    )


def test_a_damaged_cached_model_is_named_with_its_cure(refused, own_cache):
    model = own_cache / "models" / "smollm2-135m"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "manifest.json").write_text(json.dumps({"config.json": "0" * 64}))
    assert refused("edit", *FACT) == (
        f"the cached model file {model / 'config.json'} is damaged; "
        "`workbench models fetch smollm2-135m --again` rebuilds it."
    )


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        (
            ("Eiffel Tower", "Where is it?", "Rome"),
            "subject 'Eiffel Tower' is not in the prompt 'Where is it?'; mark its place with {}.",
        ),
        (
            ("Eiffel Tower", "The Eiffel Tower is in", "Rome"),
            "subject 'Eiffel Tower' is not marked in the prompt 'The Eiffel Tower is in'; mark its place with {}.",
        ),
        (
            ("Eiffel Tower", "{} and {} are in", "Rome"),
            "prompt '{} and {} are in' holds {} 2 times; it must mark the subject once.",
        ),
        (
            ("Eiffel Tower", "The {} is in", " "),
            "target_new is empty for 'The Eiffel Tower is in'; give the answer the edit should write.",
        ),
        ((" ", "The {} is in", "Rome"), "subject is empty for the prompt 'The {} is in'; name what the fact is about."),
    ],
)
def test_a_fact_that_is_none_is_refused_before_the_model_is_loaded(refused, fact, sentence):
    given = [word for pair in zip(("--subject", "--prompt", "--target"), fact, strict=True) for word in pair]
    assert refused("edit", *given, "--model", "not looked at") == sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--target-true", "Rome"), "target_new is the true answer 'Rome' already, for 'The Eiffel Tower is in the "),
        (("--rephrase", "{} or {}"), "rephrase '{} or {}' of 'The Eiffel Tower is in the city of' must be a text "),
        (("--locality", "The Louvre"), "--locality 'The Louvre' has no =>; write it as 'prompt => answer'."),
        (("--locality", "The Louvre =>"), "locality target is empty in "),
        (("--portability", "It is in"), "--portability 'It is in' has no =>; write it as 'prompt => answer'."),
        (("--portability", "=> Italy"), "portability prompt is empty in "),
        (("--keep", "0.4"), "--keep 0.4 has no effect; choose --regularizer rect, random or pca."),
        (("--regularizer", "rect", "--keep", "0"), "keep must lie in (0, 1]; got 0.0."),
        (("--regularizer", "random", "--keep", "1.4"), "keep must lie in (0, 1]; got 1.4."),
        (("--regularizer", "pca", "--keep", "nan"), "keep must lie in (0, 1]; got nan."),
        (("--steps", "0"), "v_num_grad_steps must be a whole number of at least 1; got 0."),
        (("--lr", "-1"), "v_lr must be a positive number; got -1.0."),
        (("--dtype", "int8"), "dtype 'int8' is unknown; known: float32, float16, bfloat16, float64."),
        (("--device", "cpu", "--device-map", "auto"), "give device or device_map, not both: device puts the whole "),
        (("--onto", "none.safetensors"), "none.safetensors cannot be read as a saved update ("),
        (("--hparams", "none.yaml"), "none.yaml does not exist; give an EasyEdit hparams file."),
        (("--save", "none/e.safetensors"), "--save none/e.safetensors: the folder none does not exist; make it first."),
        (("--save", "."), "--save . is a folder; give the name of a file in it."),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_the_model_is_loaded(refused, options, sentence):
    assert refused("edit", *FACT, *options, "--model", "not looked at").startswith(sentence)


def test_a_file_that_exists_is_not_replaced(refused, folder):
    (folder / "e.safetensors").write_text("precious")
    assert refused("edit", *FACT, "--save", "e.safetensors", "--model", "not looked at") == (
        "--save e.safetensors exists; give another name, or --force to replace it."
    )


def test_force_replaces_no_pipe(refused, folder):
    os.mkfifo("pipe")
    assert refused("edit", *FACT, "--save", "pipe", "--force", "--model", "not looked at") == (
        "--save pipe is a pipe; give the name of a file."
    )
    assert Path("pipe").is_fifo()


def test_a_layer_out_of_range_is_named_with_the_range(refused, tiny):
    options = (*FACT, "--model", tiny, "--save", "e.safetensors")
    assert refused("edit", *options, "--layer", 4) == f"layer 4 is out of range: {tiny} has layers 0 to 3."
    assert refused("edit", *options, "--layer", -1) == "layer must be a whole number of at least 0; got -1."


def test_an_unknown_method_or_regularizer_is_refused_with_the_known_ones(refused):
    known = "rome, r-rome, memit, memit-seq, encore, alphaedit, emmet, kn, mend, ft, ft-l, locft-bf, ultraedit, lora"
    assert refused("edit", *FACT, "--method", "grace") == f"no method 'grace'; known: {known}."
    known = "none, rect, rect-energy, random, pca, prune, sphere"
    assert refused("edit", *FACT, "--regularizer", "l2") == f"no regularizer 'l2'; known: {known}."


def test_a_target_without_tokens_is_refused(refused, folder):
    model = save_tiny_lm(build_tiny_lm("gpt2"), folder / "dropping", dropping_tokenizer())
    assert refused("edit", *FACT[:4], "--target", "\u200b", "--model", model, "--save", "e.safetensors") == (
        r"target '\u200b' tokenizes to nothing after 'The Eiffel Tower is in the city of'; "
        "give a target with text in it."
    )


def test_an_update_of_another_model_is_refused(refused, folder, tiny):
    other, lm = build_tiny_lm("llama", seed=1), build_tiny_lm("llama")
    name = other.arch.mlp_out_weight(1)
    update = wb.WeightUpdate({name: other.weight(name) * 0.1}, model="other", fingerprint=other.fingerprint)
    update.save(folder / "other.safetensors")
    assert refused("edit", *FACT, "--model", tiny, "--onto", "other.safetensors", "--save", "e.safetensors") == (
        f"other.safetensors: the update was computed on other (fingerprint {other.fingerprint}), not on {tiny} "
        f"(fingerprint {lm.fingerprint}); load the model it was made for."
    )


def test_an_edit_that_a_full_disk_does_not_take_leaves_what_was_there(cli, tiny, small_disk):
    path, adapter = small_disk.path / "e.safetensors", small_disk.path / "adapter"
    command = ("edit", *FACT, "--model", tiny, "--steps", 1, "--force")
    assert cli(*command, "--save", path).code == 0
    before = path.read_bytes()
    small_disk.fill()
    for option, place in (("--save", path), ("--peft", adapter)):
        result = cli(*command, option, place)
        assert (result.code, result.err.splitlines()[-1]) == (
            2,
            f"workbench: {place} cannot be written (No space left on device); free some space, or give a folder on "
            "another disk.",
        )
    result = cli("apply", "--model", tiny, "--update", path, "--out", small_disk.path / "edited")
    assert result.code == 2
    assert "/edited cannot be written (No space left on device)" in result.err
    assert sorted(each.name for each in small_disk.path.iterdir()) == ["e.safetensors", "filler"]
    assert path.read_bytes() == before


def test_without_a_home_an_error_of_a_library_asks_for_one(cli, monkeypatch):
    pwd = pytest.importorskip("pwd")

    def nobody(uid):
        raise KeyError(uid)

    def needs_a_home():
        raise RuntimeError("no home directory")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr("workbench.cli.app", lambda prog_name: needs_a_home())
    result = cli("models")
    assert (result.code, result.err) == (
        2,
        "workbench: the command needs a home folder, and none is known (RuntimeError: no home directory); set HOME to "
        "a folder.\n",
    )


def test_an_error_after_the_edit_leaves_no_file(refused, tiny, monkeypatch):
    monkeypatch.setattr(wb.WeightUpdate, "save", lambda self, path: (_ for _ in ()).throw(OSError("no reason")))
    assert refused("edit", *FACT, "--model", tiny, "--steps", 1, "--save", "e.safetensors") == (
        "--save e.safetensors could not be written (no reason); nothing is left of it."
    )


def test_a_request_file_that_is_not_json_is_refused(refused, folder):
    (folder / "facts.json").write_text('[{"subject": "Rome", ]')
    assert refused("facts", "check", "facts.json") == (
        "facts.json is not JSON: line 1, column 22: Expecting property name enclosed in double quotes; "
        "give a JSON array, JSON lines or a CSV with a header."
    )


def test_a_missing_request_file_is_named(refused):
    assert (
        refused("facts", "show", "facts.json")
        == "facts.json does not exist; give a file of facts, 'bundled', 'bundled-hard' or 'bundled-all'."
    )


@pytest.fixture
def notebooks(folder) -> Path:
    """Give a folder with a list of one figure and its notebook, which is not to be run."""
    path = folder / "notebooks"
    path.mkdir()
    path.joinpath("figures.yaml").write_text(
        "figures:\n- {figure: fig, title: A figure, notebook: fig.ipynb, makes: [fig_a, fig_b], profiles: {smoke: {}}}"
    )
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": 'n: int = 1\nfigures_dir: str = "."'}
    cell |= {"outputs": [], "execution_count": None, "id": "parameters"}
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    path.joinpath("fig.ipynb").write_text(
        json.dumps({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )
    return path


VALUES = "a number, text, true, false, null, a list or a mapping"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("figure9",), "figure 'figure9' is not known; known: fig."),
        (("figure9", "--list"), "figure 'figure9' is not known; known: fig."),
        (("--profile", "tiny"), "profile 'tiny' is not known; known: smoke, default, study, paper."),
        (("fig",), "figure 'fig' is not made in the profile 'default', only in smoke."),
        (("--profile", "smoke", "--set", "m=2"), "fig.ipynb has no parameter 'm'; it has figures_dir, n."),
        (("--set", "n"), "--set 'n' must be NAME=VALUE, such as n_facts=5."),
        (("--set", "=1"), "--set '=1' must be NAME=VALUE, such as n_facts=5."),
        (("--set", "n=[1"), "--set 'n=[1': the value is not YAML; quote text that holds signs."),
        (("--set", "n=2026-01-01"), f"--set 'n=2026-01-01': the value must be {VALUES}."),
        (
            ("--notebooks", "none"),
            "none/figures.yaml cannot be read (No such file or directory); run in the project's folder, or name it.",
        ),
    ],
)
def test_a_figure_that_cannot_be_made_is_refused(refused, notebooks, args, sentence):
    assert refused("regenerate", *args) == sentence


def test_a_model_that_cannot_be_fetched_is_named(refused, tiny):
    sentence = refused("models", "fetch", "no-such/model")
    assert sentence.startswith("'no-such/model' cannot be fetched from the hub (")
    assert sentence.endswith("); check the name, the connection and HF_HUB_OFFLINE.")
    assert refused("models", "fetch", tiny) == f"{tiny} is a folder, which needs no fetching; give a hub id."


def test_a_cache_that_cannot_be_written_is_named(refused, folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "file"))
    wanted = folder / "file" / "models" / "smollm2-135m"
    assert refused("models", "fetch", "smollm2-135m") == (
        f"{wanted} cannot be written (Not a directory); set WORKBENCH_CACHE to a folder that can be written."
    )


@pytest.mark.parametrize("args", [("edit", *FACT, "--when", "never"), ("nothing",), ("facts", "check")])
def test_a_usage_error_exits_with_2_and_without_traceback(cli, args):
    result = cli(*args)
    assert result.code == 2
    assert "Usage: workbench" in result.err
    assert "Traceback" not in result.err


def test_an_interrupt_is_quiet(cli, monkeypatch):
    monkeypatch.setattr("workbench.commands.facts.load_facts", lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli("facts", "check", "bundled") == (130, "", "")


def test_an_error_in_a_process_of_its_own_is_one_sentence(folder):
    done = subprocess.run([*COMMAND, "facts", "check", "none.json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "workbench: none.json does not exist; give a file of facts, 'bundled', 'bundled-hard' or 'bundled-all'.\n"
    )


# help, lists, facts


def test_help_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from workbench.cli import main\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'transformers', 'pandas', 'papermill'} & set(sys.modules))"
    )
    light = ["facts", "--help"], "check"
    for args, wanted in ((["--help"], "regenerate"), light, (["--version"], "workbench 0."), (["edits"], "")):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
        assert wanted in done.stdout
        assert done.stdout.splitlines()[-1] == "set()"


def test_a_terminal_that_cannot_show_all_signs_gets_question_marks():
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [*COMMAND, "facts", "show"]
    done = subprocess.run(command, capture_output=True, encoding="latin-1", check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The Eiffel Tower is located in the city of ? Rome (true: Paris)" in done.stdout


@pytest.mark.parametrize("name", ["bundled", "bundled-hard"])
def test_facts_check_counts_the_bundled_facts(cli, name):
    n = len(wb.load_facts(name))
    assert cli("facts", "check", name) == (0, f"{name}: format native, {n} of {n} records usable.\n", "")


def test_facts_check_gives_each_reason_and_exits_with_1(cli, folder):
    good = {"subject": "Rome", "prompt": "{} is in", "target_new": "Spain"}
    bad = {"subject": "Rome", "prompt": "It is in", "target_new": "Spain"}
    (folder / "facts.json").write_text(json.dumps([good, bad, good, 7]))
    assert cli("facts", "check", "facts.json") == (
        1,
        "facts.json: format native, 2 of 4 records usable.\n"
        "record 1: subject 'Rome' is not in the prompt 'It is in'; mark its place with {}.\n"
        "record 3: a record must be an object; it is a number.\n",
        "",
    )


def test_facts_show_prints_no_more_than_there_are_and_no_control_characters(cli, folder):
    fact = {"subject": "Rome\x1b[31m", "prompt": "{} [bold]is[/bold] in", "target_new": "Spain", "rephrase": ["a\nb"]}
    fact["portability"] = [{"prompt": "Its king is the king of", "target": "Spain"}]
    (folder / "facts.json").write_text(json.dumps([fact]))
    assert cli("facts", "show", "facts.json", "--limit", 9) == (
        0,
        "Rome\\x1b[31m [bold]is[/bold] in → Spain\n"
        "  subject    Rome\\x1b[31m\n"
        "  rephrased  a\\nb\n"
        "  follows    Its king is the king of → Spain\n\n"
        "1 of 1 facts of facts.json\n",
        "",
    )


def test_facts_show_draws_with_a_seed(cli):
    facts = wb.load_facts()
    result = cli("facts", "show", "--limit", 2, "--seed", 3)
    titles = [line for line in result.out.splitlines() if " → " in line and not line.startswith(" ")]
    assert titles == [f"{r.filled_prompt} → {r.target_new} (true: {r.target_true})" for r in facts.sample(2, seed=3)]


def test_models_are_listed_whether_cached_or_not(cli, own_cache):
    result = cli("models")
    assert (result.code, result.err) == (0, "")
    for name in ("smollm2-135m", "gemma3-270m"):
        assert f"{name} (not cached; workbench models fetch {name})" in result.out
    (own_cache / "models" / "smollm2-135m").mkdir(parents=True)
    (own_cache / "models" / "smollm2-135m" / "weights").write_bytes(bytes(3_000_000))
    out = cli("models").out
    assert "smollm2-135m (cached, 3 MB)" in out
    assert "GPT-NeoX/Pythia" in out
    assert "llama-2-7b" in out


def test_fetch_again_is_passed_on(cli, monkeypatch):
    monkeypatch.setattr(embedded, "fetch", lambda name, *, again: f"folder, again: {again}")
    assert cli("models", "fetch", "smollm2-135m", "--again").out == "smollm2-135m is in folder, again: True\n"


def test_fetching_gemma_shows_the_notice_that_its_terms_demand(cli, monkeypatch):
    monkeypatch.setattr(embedded, "fetch", lambda name, *, again: "folder")
    assert cli("models", "fetch", "gemma3-270m").out == (
        "gemma3-270m is in folder\n"
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
    )


def test_fetching_again_keeps_the_old_model_if_that_fails(own_cache, monkeypatch):
    model = own_cache / "models" / "smollm2-135m"
    model.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")

    def no_network(model, scratch):
        raise ModelError("no network")

    monkeypatch.setattr(embedded, "_download", no_network)
    with pytest.raises(ModelError, match=r"^no network$"):
        embedded.fetch("smollm2-135m", again=True)
    assert embedded.fetch("smollm2-135m") == model


def test_a_hub_model_of_an_unknown_family_is_refused_before_its_weights_are_fetched(refused, monkeypatch):
    import transformers

    config = transformers.BloomConfig(architectures=["BloomForCausalLM"])
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: config)
    assert refused("models", "fetch", "big/bloom").startswith("No architecture row for 'BloomForCausalLM'")


def test_a_hub_model_for_which_there_is_no_space_is_said(refused, monkeypatch):
    import huggingface_hub
    import transformers

    def full(name, *, ignore_patterns, force_download):
        raise OSError(28, "No space left on device", "blob")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: transformers.GPT2Config())
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: ["model.safetensors"])
    monkeypatch.setattr(models, "snapshot_download", full)
    assert refused("models", "fetch", "gpt2") == (
        f"{huggingface_hub.constants.HF_HUB_CACHE} cannot be written (No space left on device); free some space, or "
        "set HF_HOME to a folder on another disk."
    )


def test_of_a_hub_model_only_what_is_read_is_fetched(monkeypatch):
    import fnmatch

    import huggingface_hub
    import transformers

    weights = {"pytorch_model.bin", "model.safetensors"}
    files = {"config.json", "tokenizer.json", "tf_model.h5", "original/consolidated.00.pth", *weights}
    fetched = []

    def download(name, *, ignore_patterns, force_download):
        fetched.extend(f for f in sorted(files) if not any(fnmatch.fnmatch(f, p) for p in ignore_patterns))
        return "folder"

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: transformers.GPT2Config())
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: files)
    monkeypatch.setattr(models, "snapshot_download", download)
    assert models._fetch_from_hub("gpt2", again=False) == Path("folder")
    assert fetched == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_hub_model_with_only_a_pickle_is_refused_before_its_weights_are_fetched(refused, monkeypatch):
    import huggingface_hub
    import transformers

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *args, **kwargs: transformers.GPT2Config())
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: ["pytorch_model.bin"])
    monkeypatch.setattr(models, "snapshot_download", lambda *args, **kwargs: pytest.fail("fetched"))
    assert refused("models", "fetch", "gpt2") == (
        "the hub has the weights of gpt2 only as a pickle, which is never read; give another."
    )


def test_figures_are_listed_with_profiles_and_files(cli, notebooks):
    assert cli("regenerate", "--list").out == "fig\n  A figure\n  profiles: smoke\n  files: fig_a, fig_b\n"


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("n=3", ("n", 3)),
        (" n = 3 ", ("n", 3)),
        ("n=1e-3", ("n", 0.001)),
        ("n=-2.5E2", ("n", -250.0)),
        ("layers=[1, 5]", ("layers", [1, 5])),
        ("on=true", ("on", True)),
        ("n=", ("n", None)),
        ("model=gpt2-xl", ("model", "gpt2-xl")),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_a_setting_is_read_as_yaml(text, setting):
    assert parse_setting(text) == setting


# edits


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
        command = [*COMMAND, "edit", *args, "--steps", "4", "--no-mom2"]
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


# what nobody foresaw


def test_an_unexpected_error_is_one_sentence_and_exit_code_1(cli, monkeypatch):
    monkeypatch.setattr(embedded, "model_dir", lambda name: 1 / 0)
    code, out, err = cli("models")
    assert (code, out) == (1, "")
    assert err == (
        "workbench: an unexpected error stopped the command (ZeroDivisionError: division by zero); please report it "
        "with what the same command prints after `workbench --traceback`.\n"
    )
    code, out, err = cli("--traceback", "models")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-2:] == [
        "ZeroDivisionError: division by zero",
        "workbench: an unexpected error stopped the command (ZeroDivisionError: division by zero); please report it "
        "with what the same command prints after `workbench --traceback`.",
    ]


def test_a_limit_on_the_size_of_files_is_named_by_second_moment(tmp_path, tiny):
    text = tmp_path / "text.txt"
    text.write_text("The Eiffel Tower is in Paris, and the Louvre is in Paris too. " * 400)
    command = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1)); " + COMMAND[-1]
    options = ("--model", tiny, "--layers", "1", "--tokens", "2048", "--source", text)
    environment = {**os.environ, "WORKBENCH_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [*COMMAND[:-1], command, "second-moment", *map(str, options)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"workbench: {tmp_path / 'cache' / 'second-moments'}/")
    assert last.endswith(" cannot be written (File too large); raise the limit on the size of files (ulimit -f).")
    assert "Traceback" not in result.stderr
