"""ExperimentSpec: what it takes, what it refuses, and how grids and files make several."""

import pytest

from workbench.errors import RequestError, SpecError
from workbench.evaluation.task_names import TASK_NAMES
from workbench.experiment.cache_keys import unit_key
from workbench.experiment.spec import ExperimentSpec, FactsSpec, grid, read_specs

REGULARIZERS = "Unregularized, RECT, RandomK, PCAK"


def spec(**fields):
    return ExperimentSpec(**{"n_operations": 2, "tasks": None, **fields})


def test_the_unedited_model_and_the_last_operation_are_checkpoints_unless_others_are_named():
    assert spec(n_operations=5).checkpoints == (0, 5)
    assert spec(n_operations=5, checkpoints=[3, 1, 3]).checkpoints == (1, 3, 5)


def test_all_eight_tasks_are_measured_unless_others_are_named():
    for tasks in ({}, {"limit": 2}):
        assert ExperimentSpec(n_operations=1, tasks=tasks).tasks.tasks == tuple(TASK_NAMES)
    assert ExperimentSpec(n_operations=1).tasks.tasks == tuple(TASK_NAMES)


def test_settings_have_the_papers_names():
    names = [
        spec(method="memit", setting=setting, batch_size=size).setting_name
        for setting in ("single", "sequential")
        for size in (1, 2)
    ]
    assert names == ["single-instance", "single-batch", "sequential-instance", "sequential-batch"]


def test_operations_take_the_drawn_facts_in_turn():
    batches = spec(method="memit", n_operations=3, batch_size=2).draw_requests()
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert len({request for batch in batches for request in batch}) == 6
    assert spec(method="memit", n_operations=2, batch_size=2).draw_requests() == batches[:2]


def test_facts_follow_the_specs_seed_unless_they_have_their_own():
    draws = {seed: spec(seed=seed).draw_requests() for seed in (0, 1)}
    assert draws[0] != draws[1]
    assert spec(seed=1, facts=FactsSpec(seed=0)).draw_requests() == draws[0]


def test_more_edits_than_facts_are_refused():
    with pytest.raises(RequestError, match="none is drawn twice"):
        spec(n_operations=100_000).draw_requests()


def test_a_random_regularizer_draws_anew_at_each_operation():
    chosen = spec(regularizer={"kind": "RandomK", "keep": 0.4}, seed=7)
    assert [chosen.make_regularizer(t).seed for t in (1, 2)] == [7, 8]
    assert spec(regularizer={"kind": "RECT"}).make_regularizer(1) == spec(
        regularizer={"kind": "RECT"}
    ).make_regularizer(2)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"method": "lora"}, "method: no method 'lora'; known: rome, r-rome, memit, kn, mend, ft, ft-l."),
        ({"n_operations": 0}, "n_operations: Input should be greater than or equal to 1; got 0."),
        ({"batch_size": 4}, "rome edits one fact an operation, so batch_size must be 1; got 4."),
        ({"checkpoints": [3]}, "checkpoint 3 lies outside 0 to n_operations, 2."),
        ({"regularizer": {"kind": "L2"}}, f"regularizer: no regularizer of kind 'L2'; known: {REGULARIZERS}."),
        ({"regularizer": {"kind": "RECT", "keep": 2}}, "regularizer: keep must lie in (0, 1]; got 2."),
        ({"perplexity": {"limit": 0}}, "perplexity: limit: Input should be greater than or equal to 1; got 0."),
        ({"tasks": {"tasks": ["chess"]}}, f"tasks: tasks: no task 'chess'; known: {', '.join(TASK_NAMES)}, or all."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(SpecError) as caught:
        spec(**fields)
    assert str(caught.value) == sentence


def test_an_unknown_field_is_named_with_those_there_are():
    with pytest.raises(SpecError, match=r"^n_edits is no field of a spec; known: model, dtype, method, .*, seed\.$"):
        spec(n_edits=3)


def test_a_grid_holds_every_combination_and_leaves_the_rest():
    made = grid(spec(), {"method": ["rome", "kn"], "facts.seed": [0, 1]})
    assert [(s.method, s.facts.seed) for s in made] == [("rome", 0), ("rome", 1), ("kn", 0), ("kn", 1)]
    assert all(s.n_operations == 2 and s.tasks is None for s in made)


@pytest.mark.parametrize("values", ["rome", [], 3])
def test_a_grid_wants_lists(values):
    with pytest.raises(SpecError, match="grid: method must be a list of at least one value"):
        grid(spec(), {"method": values})


def test_a_file_makes_the_specs_that_python_makes(tmp_path):
    path = tmp_path / "specs.yaml"
    path.write_text("n_operations: 2\ntasks: null\ngrid:\n  method: [rome, kn]\n  tasks.limit: [1, 2]\n")
    assert read_specs(path) == grid(
        {"n_operations": 2, "tasks": None}, {"method": ["rome", "kn"], "tasks.limit": [1, 2]}
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1", "must hold the fields of a spec, and lists to expand under 'grid'."),
        ("n_operations: [", "is not YAML"),
        ("method: rome", "n_operations: Field required"),
        ("n_operations: 2\ngrid: {method: rome}", "grid: method must be a list of at least one value; got 'rome'."),
    ],
)
def test_a_file_that_is_no_spec_is_refused_with_its_name(tmp_path, text, sentence):
    path = tmp_path / "specs.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_specs(path)
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)


CHANGES = {
    "method": "kn",
    "regularizer": {"kind": "RECT", "keep": 0.4},
    "hyperparameters": {"layer": 3},
    "setting": "single",
    "n_operations": 3,
    "checkpoints": [1],
    "seed": 1,
    "dtype": "float64",
    "facts": {"seed": 5},
    "tasks": {"tasks": ["nli"], "limit": 1},
    "perplexity": {"limit": 3},
    "edit_protocols": ["generated"],
}


def test_every_field_that_affects_numbers_changes_the_key():
    keys = {unit_key(spec()), *(unit_key(spec(**{name: value})) for name, value in CHANGES.items())}
    assert len(keys) == len(CHANGES) + 1
    assert unit_key(spec()) == unit_key(spec(checkpoints=[0, 2]))


def test_the_content_of_a_model_and_of_the_facts_changes_the_key(tiny, tmp_path):
    facts = tmp_path / "facts.json"
    facts.write_text('[{"subject": "Rome", "prompt": "{} is in", "target_new": "France"}]')
    chosen = {"model": tiny, "n_operations": 1, "facts": {"source": str(facts)}}
    before = unit_key(spec(**chosen))
    facts.write_text('[{"subject": "Rome", "prompt": "{} is in", "target_new": "Spain"}]')
    assert unit_key(spec(**chosen)) != before
    assert unit_key(spec(**{**chosen, "model": "smollm2-135m"})) != unit_key(spec(**chosen))
