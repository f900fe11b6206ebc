"""Resolved runs: facts and examples are loaded once, and handed down to everything that needs them."""

import pytest

from workbench.data import facts
from workbench.data.tasks import load
from workbench.experiment.cache_keys import key_of
from workbench.experiment.grids import grid
from workbench.experiment.resolved import resolve, resolve_all
from workbench.experiment.runner import run
from workbench.experiment.spec import ExperimentSpec
from workbench.request import EditRequest

TASKS = ["nli", "sentiment"]


@pytest.fixture
def spec(tiny):
    """Give a spec with five checkpoints and two tasks."""
    tasks, hyperparameters = {"tasks": TASKS, "limit": 2}, {"v_num_grad_steps": 2, "contexts": ["{}"]}
    more = {"n_operations": 4, "checkpoints": [0, 1, 2, 3], "perplexity": {"limit": 1}}
    return ExperimentSpec(model=tiny, hyperparameters=hyperparameters, tasks=tasks, **more)


@pytest.fixture
def loaded(monkeypatch):
    """Give the list of data that were loaded, whoever asked for them."""
    names, load_task, load_facts = [], load._load_bundled, facts.load_bundled_facts
    monkeypatch.setattr(load, "_load_bundled", lambda task: names.append(task) or load_task(task))
    monkeypatch.setattr(facts, "load_bundled_facts", lambda: names.append("facts") or load_facts())
    return names


def test_a_trajectory_loads_facts_and_each_task_once(spec, tmp_path, loaded):
    run(spec, store=tmp_path)
    assert sorted(loaded) == ["facts", *TASKS]


def test_specs_with_the_same_data_share_it(spec, loaded):
    first, second = resolve_all(grid(spec, {"seed": [0, 1]}))
    assert sorted(loaded) == ["facts", *TASKS]
    assert first.tasks == second.tasks
    assert first.requests != second.requests


def test_specs_with_other_data_get_their_own(spec, tmp_path):
    path = tmp_path / "facts.json"
    path.write_text('[{"subject": "Rome", "prompt": "{} is in", "target_new": "Spain"}]')
    own = spec.model_copy(update={"n_operations": 1, "facts": spec.facts.model_copy(update={"source": str(path)})})
    bundled, from_file = resolve_all([spec, own])
    assert from_file.batches == ((EditRequest("Rome", "{} is in", "Spain"),),)
    assert bundled == resolve(spec)


@pytest.mark.parametrize("words_before_subject", [False, True])
def test_the_draw_is_the_hash_of_all_facts_in_their_order(spec, words_before_subject):
    chosen = {"seed": 3, "words_before_subject": words_before_subject}
    spec = spec.model_copy(update={"facts": spec.facts.model_copy(update=chosen)})
    known = facts.load_bundled_facts()
    known = known.with_words_before_subject() if words_before_subject else known
    assert resolve(spec).draw == key_of(known.sample(len(known), seed=3))


def test_the_facts_column_says_which_set_a_draw_is_from(spec, tmp_path):
    few = {"n_operations": 1, "checkpoints": (0, 1), "tasks": None}
    sets = {"bundled": facts.load_bundled_facts(), "bundled-hard": facts.load_bundled_hard_facts()}
    for source, known in sets.items():
        chosen = spec.model_copy(update=few | {"facts": spec.facts.model_copy(update={"source": source})})
        assert set(resolve(chosen).requests) <= set(known.requests)
        assert set(run(chosen, store=tmp_path)["facts"]) == {source}
