"""`workbench evaluate` on a tiny model: scores before and after saved updates, files, and what it refuses."""

import json
from functools import partial

import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.update import WeightUpdate

FEW = ("--tasks", "sentiment,reasoning", "--limit", 3)


@pytest.fixture
def cli(cli, own_cache, folder, tiny):
    """Give a function that runs the command in this process on a tiny Llama."""
    return partial(cli, "evaluate", "--model", tiny)


@pytest.fixture
def update(folder, tiny) -> str:
    """Give a saved update that changes every answer."""
    lm = wb.load(tiny)
    name = lm.arch.mlp_out_weight(2)
    change = torch.randn(lm.weight(name).shape, generator=torch.Generator().manual_seed(0))
    WeightUpdate({name: change}, model=lm.name, fingerprint=lm.fingerprint).save(folder / "u.safetensors")
    return "u.safetensors"


def refused(result):
    """Give the sentence on stderr of a command that left with exit code 2."""
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    return result.err.removeprefix("workbench: ").removesuffix("\n")


def test_the_scores_written_are_those_of_evaluate_tasks(cli, tiny):
    assert cli(*FEW, "--text", "none", "--out", "scores.csv").code == 0
    expected = wb.evaluate_tasks(wb.load(tiny), tasks=["sentiment", "reasoning"], limit=3, data="bundled")
    written = pd.read_csv("scores.csv")
    assert list(written.pop("model").unique()) == ["unedited"]
    pd.testing.assert_frame_equal(written, expected)


def test_an_update_is_measured_beside_the_unedited_model(cli, tiny, update):
    result = cli(*FEW, "--update", update, "--out", "scores.csv", "--outputs", "answers.csv")
    assert result.code == 0
    written = pd.read_csv("scores.csv")
    lm = wb.load(tiny)
    with wb.WeightUpdate.load(update).applied(lm):
        expected = pd.concat(
            [
                wb.evaluate_tasks(lm, tasks=["sentiment", "reasoning"], limit=3, data="bundled"),
                wb.perplexity(lm),
                wb.drift(lm),
            ],
            ignore_index=True,
        )
    edited = written[written["model"] == "edited"].drop(columns="model").reset_index(drop=True)
    pd.testing.assert_frame_equal(edited, expected)
    perplexities = written[written["task"] == "perplexity"].set_index("model")["value"]
    assert perplexities["edited"] != perplexities["unedited"]
    answers = pd.read_csv("answers.csv")
    assert answers.groupby(["model", "task"]).size().to_dict() == {
        (model, task): 3 for model in ("edited", "unedited") for task in ("reasoning", "sentiment")
    }


def test_the_table_marks_the_score_that_stands_for_a_task_and_says_where_the_data_are_from(cli):
    out = cli(*FEW, "--text", "none").out
    assert "choice_accuracy *" in out
    assert "solve_rate *" in out
    assert out.count(" *\n") + out.count(" * ") == 3  # two tasks, and the line that explains the mark
    assert "  sentiment: bundled, bundled; standard\n" in out


def test_written_answers_can_be_left_out(cli):
    result = cli(*FEW, "--text", "none", "--no-written", "--out", "scores.csv")
    assert result.code == 0
    metrics = pd.read_csv("scores.csv").groupby("task")["metric"].apply(set).to_dict()
    smooth = {"log_likelihood", "log_likelihood_per_byte"}
    choices = {"choice_accuracy", "choice_auc", "majority_share", "choice_margin"}
    assert metrics == {"reasoning": smooth, "sentiment": smooth | choices}
    assert "log_likelihood" in result.out


def test_tasks_can_be_left_out(cli):
    out = cli("--tasks", "none", "--out", "p.csv").out
    assert "perplexity" in out
    assert list(pd.read_csv("p.csv")["task"]) == ["perplexity"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--tasks", "nli,riddles"),
            "no task 'riddles'; known: reasoning, nli, open_qa, closed_qa, dialogue, summarization, ner, sentiment, "
            "or all.",
        ),
        (("--tasks", "nli,nli"), "task 'nli' is named 2 times; name it once."),
        (
            ("--tasks", "none", "--text", "none"),
            "nothing is to be measured; name --tasks, a --text, or tasks for --lm-eval.",
        ),
        (("--out", "no/scores.csv"), "--out no/scores.csv: the folder no does not exist; make it first."),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_loaded(cli, monkeypatch, options, sentence):
    monkeypatch.setattr("workbench.lm.load", lambda *given, **more: pytest.fail("the model was loaded"))
    assert refused(cli(*options)) == sentence


def test_a_file_that_is_there_is_kept_without_force(cli, folder):
    (folder / "scores.csv").write_text("mine")
    assert refused(cli(*FEW, "--out", "scores.csv")) == (
        "--out scores.csv exists; give another name, or --force to replace it."
    )
    assert (folder / "scores.csv").read_text() == "mine"
    assert cli(*FEW, "--text", "none", "--out", "scores.csv", "--force").code == 0


def test_a_folder_without_data_is_refused_with_the_names_looked_for(cli, folder):
    sentence = refused(cli("--tasks", "sentiment", "--data", folder))
    assert sentence.startswith(f"{folder} holds no data for sentiment: it and 3 levels below it were searched for ")


def test_an_update_of_another_model_is_named(cli, folder):
    WeightUpdate({"no.such.weight": torch.ones(2, 2)}, (), "another", "0" * 16).save(folder / "other.safetensors")
    assert refused(cli("--tasks", "sentiment", "--update", "other.safetensors")).startswith("other.safetensors: ")


def test_tasks_of_the_harness_are_asked_of_the_edited_model(cli, folder, update):
    records = [{"question": f"{word} is in", "answer": i % 2} for i, word in enumerate(("Rome", "Paris", "Warsaw"))]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "own.yaml").write_text(
        "task: own_choice\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / 'own.jsonl'}}}}}\n"
        "doc_to_text: '{{question}}'\ndoc_to_choice: ['Italy', 'France']\ndoc_to_target: answer\n"
        "metric_list: [{metric: acc}]\n"
    )
    options = ("--tasks", "none", "--text", "none", "--lm-eval", "own_choice", "--lm-eval-folder", folder)
    result = cli(*options, "--update", update, "--out", "scores.csv")
    assert result.code == 0
    scores = pd.read_csv("scores.csv")
    assert list(zip(scores["model"], scores["task"], scores["metric"], scores["n"], strict=True)) == [
        ("unedited", "own_choice", "acc", 3),
        ("edited", "own_choice", "acc", 3),
    ]
