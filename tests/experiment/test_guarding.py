"""A guard in an experiment: what it refuses and repairs, and that its decisions are kept."""

import shutil

import pandas as pd
import pytest

import workbench as wb
from workbench.experiment import guarding
from workbench.experiment.cache_keys import trajectory_key
from workbench.experiment.runner import run
from workbench.experiment.spec import ExperimentSpec, GuardSpec
from workbench.experiment.store import Store
from workbench.registry import make_editor

ROME = {"contexts": ["{}", "The river. {}"], "v_num_grad_steps": 5, "layer": 1}


@pytest.fixture
def lm(tiny):
    return wb.load(tiny)


@pytest.fixture
def spec(tiny):
    """Give a function from fields to a spec of three edits of a tiny model."""
    given = {"model": tiny, "method": "rome", "hyperparameters": ROME, "n_operations": 3, "tasks": None}
    given |= {"perplexity": {"limit": 2, "each": 2}, "edit_protocols": ("teacher_forced",)}
    return lambda **fields: ExperimentSpec(**given | fields)


def states_of(store, results):
    [key] = set(results["trajectory"])
    return store.read_json(f"trajectories/{key}.json")["states"]


def test_an_edit_with_a_low_risk_is_added_as_without_a_guard(spec, tmp_path):
    store = Store(tmp_path)
    plain, guarded = run(spec(), store=store), run(spec(guard={"limit": 1e9}), store=store)
    assert states_of(store, plain) == states_of(store, guarded)
    assert set(guarded["regularizer"]) == {"guard"}
    assert store.operations(list(set(guarded["trajectory"])))["repair"].isna().all()


def test_edits_that_nothing_repairs_are_refused_and_leave_the_model_as_it_was(spec, tmp_path):
    store = Store(tmp_path)
    results = run(spec(guard={"limit": 1e-12, "repairs": []}), store=store)
    rows = store.operations()
    assert rows["repair"].tolist() == ["refused"] * 3
    assert rows["failed"].str.contains("was not applied because of its high risk").all()
    assert rows["probe_kl"].min() > 1e-12
    assert (rows["perplexity"] == rows["perplexity_unedited"]).all()
    assert len(set(states_of(store, results).values())) == 1


def test_r_rome_replaces_an_edit_of_rome_whose_risk_it_lowers(spec, lm, tmp_path):
    """The limit is between the risks of the two."""
    store, chosen = Store(tmp_path), None
    for seed in range(20):
        [request] = wb.load_facts("bundled").sample(1, seed=seed)
        rome = make_editor("rome", lm, {**ROME, "seed": seed})
        risks = [
            wb.assess(make_editor(name, lm, {**ROME, "seed": seed}).compute_update(lm, [request]), lm).kl
            for name in ("rome", "r-rome")
        ]
        if risks[0] > 1.05 * risks[1]:
            chosen = seed, sum(risks) / 2
            break
    assert chosen is not None, rome
    seed, limit = chosen
    guarded = spec(guard={"limit": limit, "repairs": ["r-rome"]}, n_operations=1, seed=seed)
    run(guarded, store=store)
    [row] = store.operations().to_dict("records")
    assert row["repair"] == "r-rome"
    assert pd.isna(row["failed"])
    alone = Store(tmp_path / "alone")
    run(spec(method="r-rome", n_operations=1, seed=seed), store=alone)
    assert alone.operations()["applied_norm"].iloc[0] == pytest.approx(row["applied_norm"], rel=1e-6)


def test_decisions_are_read_from_the_store(spec, tmp_path, monkeypatch):
    guarded = spec(guard={"limit": 1e-12, "repairs": ["prune"]}, n_operations=2)
    first = run(guarded, store=tmp_path)
    for part in ("trajectories", "results", "operations"):
        shutil.rmtree(tmp_path / part)
    monkeypatch.setattr(guarding, "_decide", None)  # it is not called again
    again = run(guarded, store=tmp_path)
    assert again["value"].equals(first["value"])


def test_a_guard_is_described_and_its_fields_are_checked(spec):
    assert spec(guard={}, regularizer={"kind": "RECT", "keep": 0.4}).regularizer_label == "RECT 40 %, guard"
    assert spec().guard is None
    for fields, sentence in [
        ({"limit": 0}, "greater than 0"),
        ({"repairs": ["luck"]}, "no repair 'luck'; known: r-rome, prune."),
    ]:
        with pytest.raises(wb.WorkbenchError, match=sentence):
            GuardSpec(**fields)


def test_a_spec_without_a_guard_has_the_key_that_it_had_before_there_were_any(spec):
    plain, guarded = spec(), spec(guard={})
    assert trajectory_key(plain, "content") != trajectory_key(guarded, "content")
    assert "guard" in plain.model_dump()
    assert trajectory_key(plain, "content") == trajectory_key(
        ExperimentSpec(**plain.model_dump(exclude={"guard"})), "content"
    )
