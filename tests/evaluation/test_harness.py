"""Scores of the lm-evaluation-harness on small local tasks, compared with whole forward passes."""

import json
import logging
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

import workbench as wb
from tests.tiny_models import build_tiny_lm
from workbench.errors import DataError, MissingExtraError, SpecError
from workbench.evaluation import harness
from workbench.evaluation.harness import evaluate_harness

QUESTIONS = [
    ("The Louvre is in the city of", ["Paris", "Rome", "Warsaw"], 0),
    ("The mother tongue of Edith Piaf is", ["English", "French", "Polish"], 1),
    ("The capital of Italy is", ["Rome", "the old bridge", "Paris"], 0),
    ("Marie Curie was born in", ["France", "Warsaw", "the sea"], 1),
    ("Charles Darwin sailed round the", ["world", "river", "country and the north of it"], 0),
    ("The old bridge is", ["very old", "located in Italy", "a ship"], 2),
    ("The HMS Beagle was launched in", ["1820", "Rome", "the north"], 2),
]


@pytest.fixture
def own_tasks(tmp_path):
    """Give a folder of four tasks over the same local questions, and a group of two of them."""
    rows = [{"question": q, "choices": choices, "answer": answer} for q, choices, answer in QUESTIONS]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "metadata": {"version": 2.5},
    }
    choice = {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    # of the harness's own metrics, this one with this aggregation is the mean log-likelihood
    likely = {"metric": "perplexity", "aggregation": "mean", "higher_is_better": True}
    whole = {
        "output_type": "loglikelihood",
        "doc_to_target": " {{choices[answer]}}",  # here the harness puts no blank in between
        "metric_list": [likely],
    }
    digits = {
        "output_type": "generate_until",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 5},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [{"name": "first-word", "filter": [{"function": "regex", "regex_pattern": "(\\w+)"}]}],
    }
    folder = tmp_path / "tasks"
    folder.mkdir()
    tasks = {"own_choice": choice, "own_loglikelihood": whole, "own_answer": digits}
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **base, **task}))
    shuffled = yaml.safe_dump({"task": "own_shuffled", **base, **whole})
    (folder / "own_shuffled.yaml").write_text(shuffled + "custom_dataset: !function draw.shuffled\n")
    (folder / "draw.py").write_text(
        "import random\n\nfrom datasets import load_dataset\n\n\ndef shuffled(data_files, cache_dir, **metadata):\n"
        "    data = load_dataset('json', data_files=data_files, cache_dir=cache_dir)['test']\n"
        "    print('drawn')\n    return {'test': data.select(random.sample(range(len(data)), len(data)))}\n"
    )
    group = {
        "group": "own_group",
        "task": ["own_choice", "own_loglikelihood"],
        "aggregate_metric_list": [{"metric": "acc"}],
    }
    (folder / "own_group.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture
def quick_index(monkeypatch):
    """Skip reading the harness's own 14 000 files, which takes seconds."""
    from lm_eval.tasks import TaskManager

    real = TaskManager.__init__
    monkeypatch.setattr(
        TaskManager,
        "__init__",
        lambda self, include_path=None, include_defaults=True: real(
            self, include_path=include_path, include_defaults=False
        ),
    )
    harness._built_in_tasks.cache_clear()
    yield
    harness._built_in_tasks.cache_clear()


@torch.no_grad()
def log_likelihood(lm, context, continuation):
    """Return the summed log-probability of the continuation's tokens, from one pass over the whole text, in float64."""
    ids = lm.tokenizer(f"{context} {continuation}")["input_ids"]
    start = len(lm.tokenizer(context)["input_ids"])
    log_probs = lm.model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
    return float(log_probs.gather(1, torch.tensor(ids)[1:, None])[start - 1 :].sum())


def accuracy_by_hand(lm, *, per_character):
    right = 0
    for question, choices, answer in QUESTIONS:
        scores = [log_likelihood(lm, question, c) / (len(c) if per_character else 1) for c in choices]
        right += max(range(len(choices)), key=scores.__getitem__) == answer
    return right / len(QUESTIONS)


def mean_by_hand(lm, questions=QUESTIONS):
    return sum(log_likelihood(lm, q, choices[answer]) for q, choices, answer in questions) / len(questions)


def mean_by_harness(lm, folder, **settings):
    return evaluate_harness(lm, ["own_loglikelihood"], task_folder=folder, **settings)["value"][0]


def an_update(lm):
    name = lm.arch.mlp_out_weight(1)
    return wb.WeightUpdate({name: torch.randn(lm.weight(name).shape, generator=torch.Generator().manual_seed(0))})


@pytest.mark.parametrize("batch_size", [1, 8])
def test_accuracy_is_that_of_whole_passes(tiny_lm, own_tasks, batch_size):
    table = evaluate_harness(tiny_lm, ["own_choice"], task_folder=own_tasks, batch_size=batch_size)
    value = table.set_index("metric")["value"]
    assert value["acc"] == pytest.approx(accuracy_by_hand(tiny_lm, per_character=False))
    assert value["acc_norm"] == pytest.approx(accuracy_by_hand(tiny_lm, per_character=True))
    assert 0 < value["acc"] < 1


def test_log_likelihood_is_that_of_whole_passes(tiny_lm, own_tasks):
    assert mean_by_harness(tiny_lm, own_tasks) == pytest.approx(mean_by_hand(tiny_lm), abs=1e-4)


def test_an_applied_update_is_measured_and_undo_restores_every_bit(tiny_lm, own_tasks):
    state = {name: value.clone() for name, value in tiny_lm.model.state_dict().items()}
    before = mean_by_harness(tiny_lm, own_tasks)
    update = an_update(tiny_lm)
    update.apply(tiny_lm)
    edited = mean_by_harness(tiny_lm, own_tasks)
    assert abs(edited - before) > 0.01
    assert edited == pytest.approx(mean_by_hand(tiny_lm), abs=1e-4)
    update.undo(tiny_lm)
    assert all(torch.equal(value, state[name]) for name, value in tiny_lm.model.state_dict().items())
    assert mean_by_harness(tiny_lm, own_tasks) == before


def test_weights_and_training_modes_are_unchanged(every_tiny_lm, own_tasks):
    model = every_tiny_lm.model
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, *_ = every_tiny_lm.blocks
    first.train()
    try:
        evaluate_harness(every_tiny_lm, ["own_choice"], task_folder=own_tasks, limit=2)
        assert [module for module in model.modules() if module.training] == [*first.modules()]
    finally:
        model.eval()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    after = dict(model.named_parameters(remove_duplicate=False))
    assert all(after[name] is parameter and not parameter.requires_grad for name, parameter in parameters.items())


def test_the_tokenizer_is_unchanged(own_tasks):
    lm = build_tiny_lm("gpt2")
    padding_side = lm.tokenizer.padding_side
    evaluate_harness(lm, ["own_choice", "own_answer"], task_folder=own_tasks, limit=2)
    assert lm.tokenizer.pad_token is None
    assert lm.tokenizer.padding_side == padding_side


def test_global_random_states_are_unchanged(tiny_lm, own_tasks):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    evaluate_harness(tiny_lm, ["own_shuffled"], task_folder=own_tasks, limit=2)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_what_a_task_draws_while_it_loads_follows_the_seed(tiny_lm, own_tasks):
    def mean(seed):
        return evaluate_harness(tiny_lm, ["own_shuffled"], task_folder=own_tasks, limit=2, seed=seed)["value"][0]

    drawn = [QUESTIONS[i] for i in random.Random(3).sample(range(len(QUESTIONS)), len(QUESTIONS))][:2]
    assert mean(3) == mean(3) == pytest.approx(mean_by_hand(tiny_lm, drawn), abs=1e-4)
    assert mean(4) != mean(3)


def test_rows_are_tidy(tiny_lm, own_tasks):
    table = evaluate_harness(tiny_lm, ["own_choice", "own_answer"], task_folder=own_tasks)
    assert [*table] == ["task", "metric", "protocol", "source", "split", "value", "n", "low", "high", "version"]
    keys = [*zip(table.task, table.metric, table.protocol, strict=True)]
    assert keys == [
        ("own_choice", "acc", "lm-eval"),
        ("own_choice", "acc_norm", "lm-eval"),
        ("own_answer", "exact_match", "lm-eval first-word"),
    ]
    assert {*table.source} == {f"json:{own_tasks.parent / 'questions.jsonl'}"}
    assert {*table.split} == {"test"}
    assert {*table.n} == {len(QUESTIONS)}
    assert {*table.version} == {"2.5"}


def test_the_interval_is_the_value_and_1_96_standard_errors(tiny_lm, own_tasks):
    acc = evaluate_harness(tiny_lm, ["own_choice"], task_folder=own_tasks).iloc[0]
    n = len(QUESTIONS)
    right = round(acc.value * n)
    stderr = np.std([1] * right + [0] * (n - right), ddof=1) / np.sqrt(n)
    assert (acc.low, acc.high) == pytest.approx((acc.value - 1.96 * stderr, acc.value + 1.96 * stderr))


def test_one_example_has_no_interval(tiny_lm, own_tasks):
    acc = evaluate_harness(tiny_lm, ["own_choice"], task_folder=own_tasks, limit=1).iloc[0]
    assert acc.n == 1
    assert np.isnan([acc.low, acc.high]).all()


@pytest.mark.usefixtures("quick_index")
def test_a_group_has_rows_for_its_tasks_and_for_itself(tiny_lm, own_tasks):
    table = evaluate_harness(tiny_lm, ["own_group"], task_folder=own_tasks)
    assert [*table.task] == ["own_choice", "own_choice", "own_loglikelihood", "own_group"]
    whole = table.iloc[-1]
    assert (whole.metric, whole.value, whole.n) == ("acc", table.value[0], len(QUESTIONS))
    assert (whole.source, whole.split) == (table.source[0], "test")


def test_solved_examples_come_before_the_question(tiny_lm, own_tasks):
    plain = mean_by_harness(tiny_lm, own_tasks, seed=0)
    first, second = (mean_by_harness(tiny_lm, own_tasks, num_fewshot=2, seed=seed) for seed in (0, 1))
    assert len({plain, first, second}) == 3
    assert first == mean_by_harness(tiny_lm, own_tasks, num_fewshot=2, seed=0)


def test_there_is_one_bar_and_nothing_on_stdout(tiny_lm, own_tasks, capsys, caplog):
    from datasets import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        evaluate_harness(tiny_lm, ["own_choice", "own_answer", "own_shuffled"], task_folder=own_tasks)
    finally:
        enable_progress_bars()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "drawn" in shown.err
    n = sum(len(choices) + 2 for _, choices, _ in QUESTIONS)
    bars = {line.partition(":")[0] for line in shown.err.replace("\r", "\n").splitlines() if "|" in line}
    assert bars == {"lm-eval"}
    assert f"{n}/{n}" in shown.err
    assert [record for record in caplog.records if record.name.startswith("lm_eval")] == []


def test_truncated_prompts_are_warned_about_once(own_tasks, caplog):
    lm = build_tiny_lm("gpt2", n_positions=16)
    with caplog.at_level(logging.WARNING):
        evaluate_harness(lm, ["own_loglikelihood"], task_folder=own_tasks, num_fewshot=2)
    [message] = [record.getMessage() for record in caplog.records if record.name.startswith("lm_eval")]
    assert "exceeds model's maximum length (16)" in message


def test_logging_of_the_harness_is_restored(tiny_lm, own_tasks):
    import lm_eval.api.task

    names = ["lm_eval", "lm_eval.api.task", "lm_eval.evaluator", "lm_eval.models.huggingface"]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, [*logger.filters]) for logger in loggers], lm_eval.api.task.tqdm
    evaluate_harness(tiny_lm, ["own_choice"], task_folder=own_tasks, limit=1)
    assert ([(logger.level, [*logger.filters]) for logger in loggers], lm_eval.api.task.tqdm) == before


@pytest.mark.slow
def test_unknown_tasks_are_named(own_tasks):
    with pytest.raises(SpecError) as caught:
        evaluate_harness(build_tiny_lm("llama"), ["own_choice", "hellaswag", "nope", "nor_this"], task_folder=own_tasks)
    assert str(caught.value) == (
        "the harness has no task 'nope', 'nor_this'; `lm-eval ls tasks` lists its tasks, and task_folder adds your own."
    )


@pytest.mark.usefixtures("quick_index")
@pytest.mark.parametrize(
    ("tasks", "settings", "sentence"),
    [
        (
            ["nope"],
            {},
            "the harness has no task 'nope'; `lm-eval ls tasks` lists its tasks, and task_folder adds your own.",
        ),
        ([], {}, "no task of the harness is named; `lm-eval ls tasks` lists its tasks."),
        (["own_choice"], {"limit": 0}, "limit must be at least 1; got 0."),
        (["own_choice"], {"batch_size": 0}, "batch_size must be at least 1; got 0."),
        (["own_choice"], {"num_fewshot": -1}, "num_fewshot must be at least 0; got -1."),
        (
            ["own_group", "own_choice"],
            {},
            "the harness task 'own_choice' is named twice, by a group or tag; name it once.",
        ),
    ],
)
def test_invalid_settings_are_refused(tiny_lm, own_tasks, tasks, settings, sentence):
    with pytest.raises(SpecError) as caught:
        evaluate_harness(tiny_lm, tasks, task_folder=own_tasks, **settings)
    assert str(caught.value) == sentence


def test_a_missing_task_folder_is_named(tiny_lm, tmp_path):
    with pytest.raises(SpecError) as caught:
        evaluate_harness(tiny_lm, ["own_choice"], task_folder=tmp_path / "none")
    assert str(caught.value) == (
        f"the task folder {tmp_path / 'none'} does not exist; give a folder of the harness's YAML files."
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("unsafe_code: true", "runs code that the model writes; use lm-eval itself."),
        ("doc_to_image: picture", "asks about images or sound; choose a task of text only."),
    ],
)
def test_tasks_with_more_than_text_are_refused(tiny_lm, own_tasks, line, reason):
    file = own_tasks / "own_choice.yaml"
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(SpecError) as caught:
        evaluate_harness(tiny_lm, ["own_choice"], task_folder=own_tasks)
    assert str(caught.value) == f"the harness task 'own_choice' {reason}"


def test_an_invalid_task_file_is_named_with_its_task(tiny_lm, own_tasks):
    (own_tasks / "odd.yaml").write_text("task: odd\ndataset_path: json\nquestions: 3\n")
    with pytest.raises(DataError) as caught:
        evaluate_harness(tiny_lm, ["odd"], task_folder=own_tasks)
    assert str(caught.value) == (
        "the harness task 'odd' cannot be loaded (TaskConfig.__init__() got an unexpected keyword argument "
        "'questions'); check the connection and HF_HUB_OFFLINE, and the task's own file."
    )


def test_missing_data_are_named_with_their_task(tiny_lm, own_tasks):
    task = {"task": "far", "dataset_path": "someone/not-here", "output_type": "multiple_choice", "test_split": "test"}
    (own_tasks / "far.yaml").write_text(yaml.safe_dump(task))
    with pytest.raises(DataError) as caught:
        evaluate_harness(tiny_lm, ["far"], task_folder=own_tasks)
    said = str(caught.value)
    assert said.startswith("the harness task 'far' cannot be loaded (")
    assert "someone/not-here" in said
    assert said.endswith("); check the connection and HF_HUB_OFFLINE, and the task's own file.")


def test_a_missing_harness_is_named_with_the_extra_to_install(tiny_lm, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError) as caught:
        evaluate_harness(tiny_lm, ["hellaswag"])
    assert str(caught.value) == (
        "lm_eval is not installed; pip install 'model-editing-workbench[lm-eval]' installs it."
    )


@pytest.mark.slow
def test_importing_the_module_imports_no_harness():
    code = "import sys, workbench.evaluation.harness; sys.exit('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
