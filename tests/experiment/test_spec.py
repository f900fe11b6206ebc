"""ExperimentSpec: accepted and refused values, grids, files, and keys of trajectories."""

from dataclasses import fields

import pytest

from workbench.editing.kn import KN
from workbench.errors import RequestError, SpecError
from workbench.evaluation.task_names import TASK_NAMES
from workbench.experiment import cache_keys
from workbench.experiment.grids import grid, read_specs
from workbench.experiment.resolved import resolve
from workbench.experiment.spec import ExperimentSpec, FactsSpec

METHODS = "rome, r-rome, memit, memit-seq, encore, alphaedit, emmet, kn, mend, ft, ft-l, locft-bf, ultraedit, lora"
REGULARIZERS = "Unregularized, RECT, EnergyRECT, RandomK, PCAK, PRUNE, SPHERE"


def spec(**fields):
    return ExperimentSpec(**{"n_operations": 2, "tasks": None, **fields})


def test_the_unedited_model_and_the_last_operation_are_checkpoints_unless_others_are_named():
    assert spec(n_operations=5).checkpoints == (0, 5)
    assert spec(n_operations=5, checkpoints=[3, 1, 3]).checkpoints == (1, 3, 5)


def test_all_eight_tasks_are_measured_unless_others_are_named():
    for tasks in ({}, {"limit": 2}):
        assert ExperimentSpec(n_operations=1, tasks=tasks).tasks.tasks == tuple(TASK_NAMES)
    assert ExperimentSpec(n_operations=1).tasks.tasks == tuple(TASK_NAMES)


def test_answers_are_written_at_all_checkpoints_unless_some_are_named():
    tasks = ExperimentSpec(n_operations=4).tasks
    assert [tasks.writes_at(t) for t in range(5)] == [True] * 5
    chosen = ExperimentSpec(n_operations=4, checkpoints=[0, 2], tasks={"written_at": [4, 0]}).tasks
    assert chosen.written_at == (0, 4)
    assert [chosen.writes_at(t) for t in range(5)] == [True, False, False, False, True]
    assert not ExperimentSpec(n_operations=4, tasks={"written_at": []}).tasks.writes_at(4)


def test_settings_have_their_names_in_the_paper():
    names = [
        spec(method="memit", setting=setting, batch_size=size).setting_name
        for setting in ("single", "sequential")
        for size in (1, 2)
    ]
    assert names == ["single-instance", "single-batch", "sequential-instance", "sequential-batch"]


def test_operations_take_the_drawn_facts_in_order():
    batches = resolve(spec(method="memit", n_operations=3, batch_size=2)).batches
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert len({request for batch in batches for request in batch}) == 6
    assert resolve(spec(method="memit", n_operations=2, batch_size=2)).batches == batches[:2]


def test_facts_follow_the_specs_seed_unless_they_have_their_own():
    draws = {seed: resolve(spec(seed=seed)).batches for seed in (0, 1)}
    assert draws[0] != draws[1]
    assert resolve(spec(seed=1, facts=FactsSpec(seed=0))).batches == draws[0]


def test_more_edits_than_facts_are_refused():
    with pytest.raises(RequestError, match="none is drawn twice"):
        resolve(spec(n_operations=100_000))


def test_the_label_of_the_regularizers_names_that_of_the_sum_and_whether_it_is_fed_back():
    rect, prune = {"kind": "RECT", "keep": 0.4}, {"kind": "PRUNE"}
    labels = [
        spec(**fields).regularizer_label
        for fields in (
            {"regularizer": rect},
            {"accumulated": prune},
            {"accumulated": prune, "feed_back": True},
            {"regularizer": rect, "accumulated": rect},
        )
    ]
    of_sum = "PRUNE of the sum"
    assert labels == ["RECT 40 %", of_sum, f"{of_sum} fed back", "RECT 40 %, RECT 40 % of the sum"]


def test_a_random_regularizer_has_the_seed_of_the_spec_and_the_number_of_the_operation():
    chosen = spec(regularizer={"kind": "RandomK", "keep": 0.4}, seed=7)
    assert [(each.seed, each.operation) for each in map(chosen.make_regularizer, (1, 2))] == [(7, 1), (7, 2)]
    assert spec(regularizer={"kind": "RandomK", "seed": 3}, seed=7).make_regularizer(2).seed == 3
    assert spec(regularizer={"kind": "RECT"}).make_regularizer(1) == spec(
        regularizer={"kind": "RECT"}
    ).make_regularizer(2)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"method": "grace"},
            f"method: no method 'grace'; known: {METHODS}.",
        ),
        (
            {"method": "kn", "hyperparameters": {"lr": 1}},
            "hyperparameters: kn has no hyperparameter 'lr'; known: "
            + ", ".join(field.name for field in fields(KN))
            + ".",
        ),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0; got -1."),
        ({"seed": 2**32}, "seed: Input should be less than or equal to 4294967295; got 4294967296."),
        ({"n_operations": 0}, "n_operations: Input should be greater than or equal to 1; got 0."),
        ({"batch_size": 4}, "rome edits one fact per operation, so batch_size must be 1; got 4."),
        (
            {"n_operations": 20, "checkpoints": [0, 10], "tasks": {"written_at": [0, 5]}},
            "tasks.written_at names 5, which is none of the checkpoints 0, 10, 20.",
        ),
        ({"checkpoints": [3]}, "checkpoint 3 lies outside 0 to n_operations, 2."),
        ({"regularizer": {"kind": "L2"}}, f"regularizer: no regularizer of kind 'L2'; known: {REGULARIZERS}."),
        ({"accumulated": {"kind": "L2"}}, f"accumulated: no regularizer of kind 'L2'; known: {REGULARIZERS}."),
        (
            {"feed_back": True},
            "feed_back needs a regularizer in accumulated; give one, such as {'kind': 'PRUNE'}.",
        ),
        ({"regularizer": {"kind": "RECT", "keep": 2}}, "regularizer: keep must lie in (0, 1]; got 2."),
        ({"perplexity": {"limit": 0}}, "perplexity: limit: Input should be greater than or equal to 1; got 0."),
        ({"tasks": {"tasks": ["chess"]}}, f"tasks: tasks: no task 'chess'; known: {', '.join(TASK_NAMES)}, or all."),
    ],
)
def test_a_spec_that_cannot_be_run_is_refused_in_one_sentence(values, sentence):
    with pytest.raises(SpecError) as caught:
        spec(**values)
    assert str(caught.value) == sentence


def test_an_unknown_field_is_named_with_the_known_ones():
    with pytest.raises(SpecError, match=r"^n_edits is not a field of a spec; known: model, dtype, method, .*, seed\.$"):
        spec(n_edits=3)


def test_a_grid_holds_every_combination_and_keeps_the_other_fields():
    made = grid(spec(), {"method": ["rome", "kn"], "facts.seed": [0, 1]})
    assert [(s.method, s.facts.seed) for s in made] == [("rome", 0), ("rome", 1), ("kn", 0), ("kn", 1)]
    assert all(s.n_operations == 2 and s.tasks is None for s in made)


@pytest.mark.parametrize("values", ["rome", [], 3])
def test_a_grid_takes_lists_only(values):
    with pytest.raises(SpecError, match="grid: method must be a list of at least one value"):
        grid(spec(), {"method": values})


def test_a_file_gives_the_same_specs_as_python(tmp_path):
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
def test_a_file_that_holds_no_spec_is_refused_with_its_name(tmp_path, text, sentence):
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
    keys = {resolve(spec()).key, *(resolve(spec(**{name: value})).key for name, value in CHANGES.items())}
    assert len(keys) == len(CHANGES) + 1
    assert resolve(spec()).key == resolve(spec(checkpoints=[0, 2])).key


def test_the_text_of_perplexity_changes_the_key_by_its_name_and_by_its_content(monkeypatch):
    keys = {resolve(spec(perplexity={"text": text})).key for text in ("bundled", "articles")}
    monkeypatch.setattr(cache_keys, "perplexity_text_key", lambda text: "another text")
    keys |= {resolve(spec(perplexity={"text": text})).key for text in ("bundled", "articles")}
    assert len(keys) == 4


def test_the_content_of_a_model_and_of_the_facts_changes_the_key(tiny, tmp_path):
    facts = tmp_path / "facts.json"
    facts.write_text('[{"subject": "Rome", "prompt": "{} is in", "target_new": "France"}]')
    chosen = {"model": tiny, "n_operations": 1, "facts": {"source": str(facts)}}
    before = resolve(spec(**chosen)).key
    facts.write_text('[{"subject": "Rome", "prompt": "{} is in", "target_new": "Spain"}]')
    assert resolve(spec(**chosen)).key != before
    assert resolve(spec(**{**chosen, "model": "smollm2-135m"})).key != resolve(spec(**chosen)).key
