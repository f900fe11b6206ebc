"""Answers side by side: those whose score fell, as the model gave them at both checkpoints."""

import pandas as pd
import pytest

import workbench as wb
from workbench.analysis.side_effects import changed_answers
from workbench.errors import RunError
from workbench.experiment.runner import kept_updates, loaded, run
from workbench.experiment.spec import ExperimentSpec

TASKS = ["dialogue", "sentiment"]


@pytest.fixture
def spec(tiny):
    """Give two edits in a row, tasks asked before, between and after."""
    hyperparameters = {"v_num_grad_steps": 3, "v_lr": 500.0, "clamp_norm_factor": 1e4, "contexts": ["{}"]}
    tasks = {"tasks": TASKS, "limit": 40}
    return ExperimentSpec(
        model=tiny, hyperparameters=hyperparameters, tasks=tasks, n_operations=2, checkpoints=[0, 1, 2]
    )


def test_changed_answers_are_those_whose_score_fell(spec, tiny, tmp_path):
    run(spec, store=tmp_path)
    lm, asked = loaded(tiny, "float32", None, None), {"tasks": TASKS, "limit": 40}
    before = wb.ask_tasks(lm, **asked)
    with kept_updates(spec, tmp_path)[2].applied(lm):
        after = wb.ask_tasks(lm, **asked)
    expected = []
    for old, new in zip(before, after, strict=True):
        both = old.outputs().merge(new.outputs(), on=["example", "task", "prompt", "expected"])
        fell = both[both["choice_accuracy_x"] > both["choice_accuracy_y"]]
        expected += list(zip(fell["task"], fell["prompt"], fell["answered_x"], fell["answered_y"], strict=True))
    shown = changed_answers(spec, 2, each=40, store=tmp_path)
    assert expected
    assert sorted(shown[["task", "prompt", "unedited", "edited"]].itertuples(index=False, name=None)) == sorted(
        expected
    )
    assert len(changed_answers(spec, 2, store=tmp_path)) == len({task for task, *_ in expected})


def test_without_tasks_there_are_no_answers(spec, tmp_path):
    bare = spec.model_copy(update={"tasks": None})
    run(bare, store=tmp_path)
    expected = pd.DataFrame(columns=["task", "prompt", "expected", "unedited", "edited"])
    pd.testing.assert_frame_equal(changed_answers(bare, 2, store=tmp_path), expected)


def test_what_was_not_measured_is_named(spec, tmp_path):
    with pytest.raises(RunError, match="run it first"):
        changed_answers(spec, 2, store=tmp_path)
    later = spec.model_copy(update={"checkpoints": (0, 2)})
    run(later, store=tmp_path)
    with pytest.raises(RunError, match=r"after 1 operations, only after \[0, 2\]"):
        changed_answers(later, 1, store=tmp_path)
