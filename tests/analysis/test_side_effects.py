"""Answers side by side: those whose score fell, at both checkpoints."""

import pandas as pd
import pytest

import workbench as wb
from workbench.analysis.side_effects import compare_answers
from workbench.errors import RunError
from workbench.experiment.models import load_model
from workbench.experiment.runner import read_updates, run
from workbench.experiment.spec import ExperimentSpec

TASKS = ["dialogue", "sentiment"]


@pytest.fixture
def spec(tiny):
    """Give a spec of two sequential edits with tasks before, between and after them."""
    hyperparameters = {"v_num_grad_steps": 3, "v_lr": 500.0, "clamp_norm_factor": 1e4, "contexts": ["{}"]}
    tasks = {"tasks": TASKS, "limit": 40}
    return ExperimentSpec(
        model=tiny, hyperparameters=hyperparameters, tasks=tasks, n_operations=2, checkpoints=[0, 1, 2]
    )


@pytest.mark.slow
def test_changed_answers_are_those_whose_score_fell(spec, tiny, tmp_path):
    run(spec, store=tmp_path)
    lm, asked = load_model(tiny, "float32"), {"tasks": TASKS, "limit": 40}
    before = wb.ask_tasks(lm, **asked)
    with read_updates(spec, tmp_path)[2].applied(lm):
        after = wb.ask_tasks(lm, **asked)
    expected = []
    for old, new in zip(before, after, strict=True):
        both = old.outputs().merge(new.outputs(), on=["example", "task", "prompt", "expected"])
        fell = both[both["choice_accuracy_x"] > both["choice_accuracy_y"]]
        expected += list(zip(fell["task"], fell["prompt"], fell["answered_x"], fell["answered_y"], strict=True))
    shown = compare_answers(spec, 2, each=40, store=tmp_path)
    assert expected
    assert sorted(shown[["task", "prompt", "unedited", "edited"]].itertuples(index=False, name=None)) == sorted(
        expected
    )
    assert len(compare_answers(spec, 2, store=tmp_path)) == len({task for task, *_ in expected})


def test_without_tasks_there_are_no_answers(spec, tmp_path):
    bare = spec.model_copy(update={"tasks": None})
    run(bare, store=tmp_path)
    expected = pd.DataFrame(columns=["task", "prompt", "expected", "unedited", "edited"])
    pd.testing.assert_frame_equal(compare_answers(bare, 2, store=tmp_path), expected)


def test_a_missing_measurement_is_named(spec, tmp_path):
    with pytest.raises(RunError, match="run it first"):
        compare_answers(spec, 2, store=tmp_path)
    later = spec.model_copy(update={"checkpoints": (0, 2)})
    run(later, store=tmp_path)
    with pytest.raises(RunError, match=r"after 1 operations, only after \[0, 2\]"):
        compare_answers(later, 1, store=tmp_path)
