"""A run of edits and everything else: what is measured when, and that the model is left as it was."""

import json

import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.experiment.side_effects import side_effects
from workbench.update import WeightUpdate

TASKS = ["reasoning", "sentiment"]
REQUESTS = [
    wb.EditRequest("Edith Piaf", "The mother tongue of {} is", "English"),
    wb.EditRequest("HMS Beagle", "We know the year of {}", "1821"),
]


@pytest.fixture
def data(tmp_path) -> dict:
    """Give small files of two tasks."""
    sums = [
        {"question": f"What is {i} and {i}?", "reasoning": f"{i} + {i} = {2 * i}", "answer": str(2 * i)}
        for i in range(4)
    ]
    words = [{"text": f"a {word} river", "positive": word in "old fine"} for word in ("old", "fine", "dull", "dry")]
    for name, records in (("reasoning", sums), ("sentiment", words)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return {name: tmp_path / f"{name}.jsonl" for name in TASKS}


@pytest.fixture
def updates(tiny_lm) -> dict:
    """Give accumulated updates after one and two edits, large enough to change answers."""
    name = tiny_lm.arch.mlp_out_weight(2)
    draws = torch.Generator().manual_seed(0)
    one, two = (WeightUpdate({name: torch.randn(tiny_lm.weight(name).shape, generator=draws)}) for _ in range(2))
    return {1: one, 2: one + two}


def test_each_number_of_edits_is_measured_on_the_model_edited_so_often(tiny_lm, updates, data):
    effects = side_effects(tiny_lm, updates, REQUESTS, tasks=TASKS, data=data)
    asked = {"tasks": TASKS, "data": data}
    for n_edits, update in ((0, WeightUpdate({})), *updates.items()):
        with update.applied(tiny_lm):
            expected = pd.concat([wb.evaluate_tasks(tiny_lm, **asked), wb.perplexity(tiny_lm)], ignore_index=True)
        found = effects.scores[effects.scores["n_edits"] == n_edits].drop(columns="n_edits").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected)


def test_the_edits_themselves_are_measured_of_the_facts_edited_so_far(tiny_lm, updates, data):
    edits = side_effects(tiny_lm, updates, REQUESTS, tasks=TASKS, data=data).edits
    counts = edits[edits["metric"] == "reliability"].groupby("n_edits")["n"].first()
    assert counts.to_dict() == {0: 2, 1: 1, 2: 2}


def test_the_model_is_left_as_it_was(tiny_lm, updates, data):
    before = {name: value.clone() for name, value in tiny_lm.model.named_parameters()}
    side_effects(tiny_lm, updates, REQUESTS, tasks=TASKS, data=data)
    assert all(torch.equal(value, before[name]) for name, value in tiny_lm.model.named_parameters())
    assert tiny_lm.applied_updates == ()


def test_the_figures_rows_are_one_score_a_task_and_number_of_edits(tiny_lm, updates, data):
    effects = side_effects(tiny_lm, updates, REQUESTS, tasks=TASKS, data=data)
    rows = effects.headlines()
    assert list(zip(rows["n_edits"], rows["task"], rows["metric"], strict=True)) == [
        (n, task, metric)
        for n in (0, 1, 2)
        for task, metric in (("reasoning", "solve_rate"), ("sentiment", "choice_accuracy"))
    ]
    assert list(effects.perplexities()["n_edits"]) == [0, 1, 2]


def test_changed_answers_are_those_whose_score_fell(tiny_lm, updates, data):
    effects = side_effects(tiny_lm, updates, REQUESTS, tasks=TASKS, data=data)
    shown = effects.changed_answers(2, each=4)
    before, after = (
        pd.concat([run.scores() for run in effects.runs[n]]).set_index(["task", "metric", "example"])["value"]
        for n in (0, 2)
    )
    fell = before[before > after].reset_index()
    stands = fell[fell["metric"].isin(["solve_rate", "choice_accuracy"])]
    assert sorted(shown["task"]) == sorted(stands["task"])
    assert list(shown.columns) == ["task", "prompt", "expected", "unedited", "edited"]


def test_provenance_names_source_split_and_number_of_each_task(tiny_lm, updates, data):
    effects = side_effects(tiny_lm, updates, REQUESTS, tasks=TASKS, data=data, limit=3)
    assert effects.provenance()["task sentiment"] == ("sentiment.jsonl, split unknown, 3 examples, protocol standard")
