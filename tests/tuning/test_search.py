"""A search goes through its stages, confirms on unseen facts, and leaves a preset that `for_model` reads."""

from itertools import pairwise

import pandas as pd
import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from tests.tiny_models import build_tiny_lm
from workbench.editing.presets import preset_for, read_tuned, tuned_file, write_tuned
from workbench.errors import EditError, SpecError
from workbench.experiment.models import load_model
from workbench.experiment.resolved import resolve
from workbench.experiment.spec import ExperimentSpec
from workbench.tuning import search, spaces
from workbench.tuning.search import CONFIRMATION, TARGETS, _cross, merit, tune
from workbench.tuning.spaces import SPACES, Stage, has_preset

GOOD = {"reliability": 1.0, "natural": 0.9, "generalization": 0.6, "locality": 0.9, "kl": 0.01}


@pytest.fixture(autouse=True)
def own_presets(tmp_path, monkeypatch):
    """Keep tuned presets in a folder of the test."""
    monkeypatch.setenv("WORKBENCH_PRESETS", str(tmp_path / "presets"))


@pytest.fixture
def few(monkeypatch):
    """Search ROME in two short stages of two steps each."""

    def space(lm, requests):
        start = {"layer": 0, "v_num_grad_steps": 2, "v_lr": 0.5, "contexts": ("{}",)}
        layers, rates = ({"layer": 0}, {"layer": 1}, {"layer": 2}), ({"v_lr": 0.1}, {"v_lr": 0.5})
        return start, [Stage("layer", (layers,), 2, 2), Stage("rate", (rates,), 3, 2)]

    monkeypatch.setitem(search.SPACES, "rome", space)


@pytest.mark.parametrize("better", [{"generalization": 0.7}, {"locality": 0.95}, {"kl": 0.0}, {"natural": 0.95}])
def test_merit_prefers_what_is_better_and_nothing_makes_up_for_a_missed_target(better):
    assert merit({**GOOD, **better}) >= merit(GOOD)
    for name, least in TARGETS.items():
        assert merit({**GOOD, name: least - 0.3, "generalization": 1.0}) < merit({**GOOD, "generalization": 0.0})


def test_a_candidate_of_which_no_edit_succeeded_comes_last():
    nothing = dict.fromkeys(GOOD, float("nan"))
    assert merit(nothing) == -float("inf")


def test_every_survivor_meets_every_combination_once():
    crossed = _cross([{"a": 1, "b": 1}, {"a": 2, "b": 1}], (({"b": 1}, {"b": 2}), ({"c": 3, "d": 4},)))
    assert crossed == [{"a": a, "b": b, "c": 3, "d": 4} for a in (1, 2) for b in (1, 2)]
    assert _cross([{"a": 1}, {"a": 2}], (({"a": 5},),)) == [{"a": 5}]


@pytest.mark.parametrize("method", SPACES)
def test_stages_of_the_embedded_and_of_tiny_models_hold_layers_that_exist(every_tiny_lm, method):
    start, stages = SPACES[method](every_tiny_lm, list(wb.load_facts().sample(3, seed=0)))
    for field in stages[0].axes[0]:
        editor = wb.registry.make_editor(method, every_tiny_lm, {**start, **field})
        for layer in [editor.layer] if method == "rome" else editor.layers:
            every_tiny_lm.check_layer(layer)
    assert all(earlier.n_facts <= later.n_facts for earlier, later in pairwise(stages))


@pytest.mark.parametrize("method", SPACES)
def test_rates_grow_with_the_vectors_that_a_step_changes(method):
    """Embeddings, attention and MLPs that write ten times as much make hidden states and values ten times as long."""
    lm, facts = build_tiny_lm("gpt2"), list(wb.load_facts().sample(3, seed=0))
    start, _ = SPACES[method](lm, facts)
    with torch.no_grad():
        for name, weight in lm.model.named_parameters():
            if name.endswith((".c_proj.weight", ".c_proj.bias", "wte.weight", "wpe.weight")):
                weight.mul_(10)
    assert SPACES[method](lm, facts)[0]["v_lr"] == pytest.approx(10 * start["v_lr"], rel=0.02)


def test_a_search_keeps_the_best_of_each_stage_and_confirms_on_facts_that_no_stage_has_seen(tiny, few, tmp_path):
    seen = []
    found = tune(tiny, "rome", n_confirm=4, store=tmp_path / "store", after_stage=seen.append)
    stages = list(found.trials["stage"].unique())
    assert stages == ["layer", "rate", CONFIRMATION]
    assert [len(each) for each in seen] == [3, 4, 2]
    for earlier, later in (("layer", "rate"), ("rate", CONFIRMATION)):
        kept = found.trials[found.trials["stage"] == earlier].head(2)["layer"]
        assert set(found.trials[found.trials["stage"] == later]["layer"]) <= set(kept)
    for _, stage in found.trials.groupby("stage", sort=False):
        assert stage["merit"].is_monotonic_decreasing
    assert found.hyperparameters["layer"] == found.confirmed["layer"]
    facts = wb.load_facts().with_words_before_subject()
    other = search._seed_of_other_facts("bundled", 0, 3, 4)
    assert not set(facts.sample(3, seed=0)) & set(facts.sample(4, seed=other))


@pytest.mark.slow
def test_a_search_that_was_interrupted_continues_without_editing_again(tiny, few, tmp_path, monkeypatch):
    def stop(trials: pd.DataFrame) -> None:
        if trials.iloc[0]["stage"] == "rate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tiny, "rome", n_confirm=2, store=tmp_path / "store", after_stage=stop)
    edited = []
    compute = wb.ROME.compute_update
    monkeypatch.setattr(wb.ROME, "compute_update", lambda self, lm, r: edited.append(r) or compute(self, lm, r))
    found = tune(tiny, "rome", n_confirm=2, store=tmp_path / "store")
    assert len(edited) == 2 * 2  # two finalists, two facts
    whole = tune(tiny, "rome", n_confirm=2, store=tmp_path / "other")
    pd.testing.assert_frame_equal(found.trials.drop(columns="seconds"), whole.trials.drop(columns="seconds"))


def test_a_tuned_preset_is_read_for_a_model_without_one_and_only_then(tiny):
    lm = load_model(tiny)
    assert not has_preset("rome", tiny)
    before = wb.ROME.for_model(lm)
    key = resolve(ExperimentSpec(model=tiny, n_operations=1, tasks=None, perplexity=None)).key
    write_tuned(tuned_file("rome", tiny), method="rome", hyperparameters={"layer": 3, "v_lr": 0.2}, about={})
    assert wb.ROME.for_model(lm) == wb.ROME(layer=3, v_lr=0.2) != before
    # other results, so another key
    assert resolve(ExperimentSpec(model=tiny, n_operations=1, tasks=None, perplexity=None)).key != key
    assert preset_for({"tiny": {"layer": 1}}, tiny, tuned="rome") == {"layer": 1}


def test_layers_of_a_tuned_preset_survive_the_file(tiny, tmp_path):
    path = tmp_path / "memit.yaml"
    write_tuned(path, method="memit", hyperparameters={"layers": [1, 2], "mom2_update_weight": 30.0}, about={"n": 4})
    assert read_tuned(path, method="memit") == {"layers": (1, 2), "mom2_update_weight": 30.0}
    error = error_of(EditError, read_tuned, path, method="rome")
    assert error == f"{path} is not a preset of rome as `workbench tune` writes it: its method is not 'rome'."


@pytest.mark.parametrize("content", ["", "[", "a: 1", "method: rome", "method: rome\nhyperparameters: 3"])
def test_a_damaged_preset_is_refused_in_a_sentence(tiny, content):
    path = tuned_file("rome", tiny)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    error = error_of(EditError, wb.ROME.for_model, load_model(tiny))
    assert error.startswith(f"{path} is not a preset of rome as `workbench tune` writes it: ")


def test_methods_without_a_space_are_refused(tiny):
    assert error_of(SpecError, tune, tiny, "kn") == "kn cannot be tuned; known: rome, memit."


def test_the_command_writes_a_preset_and_says_what_was_missed(tiny, few, tmp_path, cli):
    result = cli("tune", tiny, "--n-confirm", 2, "--store", tmp_path / "store")
    path = tuned_file("rome", tiny)
    assert result.code == 0
    assert "layer: 3 candidates, 2 facts" in result.out
    assert "below the 0.95 aimed at" in result.out  # random weights hold no fact
    assert result.out.rstrip().endswith(f"wrote {path}")
    assert wb.ROME.for_model(load_model(tiny)) == wb.ROME(**read_tuned(path, method="rome"))
    again = cli("tune", tiny, "--n-confirm", 2, "--store", tmp_path / "store")
    assert (again.code, again.err) == (2, f"workbench: {path} exists; --force replaces it.\n")


@pytest.mark.slow
def test_a_model_with_a_preset_keeps_it(few, tmp_path, cli, tiny, monkeypatch):
    monkeypatch.setitem(spaces._PRESETS["rome"], "tiny", {"layer": 1})
    result = cli("tune", tiny, "--n-confirm", 2, "--store", tmp_path / "store")
    assert f"for_model keeps the preset of the package for {tiny}; --out FILE writes this one" in result.out
    assert not tuned_file("rome", tiny).exists()
    result = cli("tune", tiny, "--n-confirm", 2, "--store", tmp_path / "store", "--out", tmp_path / "mine.yaml")
    assert read_tuned(tmp_path / "mine.yaml", method="rome")


def test_a_preset_that_could_not_be_written_is_refused_before_the_search(tiny, tmp_path, cli, monkeypatch):
    missing = tmp_path / "missing" / "mine.yaml"
    result = cli("tune", tiny, "--out", missing)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"workbench: --out {missing}: the folder {missing.parent} does not exist; make it first.\n"
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKBENCH_PRESETS", str(tmp_path / "file" / "presets"))
    result = cli("tune", tiny)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("workbench: the folder of presets cannot be made (")
    assert result.err.endswith("); --out names a file instead.\n")
