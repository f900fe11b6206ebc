"""The eight abilities of tiny random models on small sets: tables, protocols, batches, memo, errors."""

import json
import re

import pandas as pd
import pytest
import torch

from tests.tiny_models import build_tiny_lm
from workbench.changes import Dense
from workbench.data.records import Rejected
from workbench.data.tasks.load import load_task
from workbench.errors import DataError, SpecError
from workbench.evaluation import abilities
from workbench.evaluation.abilities import (
    TaskRun,
    ask_tasks,
    evaluate_tasks,
    run_task,
    select_headlines,
    summarize_runs,
)
from workbench.evaluation.decoding import Prefilled
from workbench.evaluation.engine import Answer
from workbench.evaluation.tasks import TASKS
from workbench.update import WeightUpdate

COLUMNS = ["task", "metric", "protocol", "source", "split", "value", "n", "low", "high"]
SMOOTH = ["log_likelihood", "log_likelihood_per_byte"]
COMPARED = ["choice_auc", "majority_share", "choice_margin"]  # computed from the choices in all examples
OPTIONS = ["choice_accuracy", "accuracy", "valid_rate", *COMPARED, *SMOOTH]
METRICS = {
    "reasoning": ["solve_rate", "valid_rate", *SMOOTH],
    "nli": OPTIONS,
    "open_qa": ["span_match", "exact_match", "f1", "valid_rate", *SMOOTH],
    "closed_qa": OPTIONS,
    "dialogue": OPTIONS,
    "summarization": ["rouge_mean", "rouge1", "rouge2", "rougeL", "valid_rate", *SMOOTH],
    "ner": ["f1", "precision", "recall", "valid_rate", *SMOOTH],
    "sentiment": OPTIONS,
}
UNWRITTEN = {"choice_accuracy", *COMPARED, *SMOOTH}  # metrics that need no decoding

both_protocols = pytest.mark.parametrize("protocol", ["standard", "paper"])


def disturbance(lm, *, size=5.0):
    """Return a random update of the weights of one layer, large enough to change answers."""
    name = lm.arch.mlp_out_weight(1)
    W = lm.weight(name)
    noise = torch.randn(W.shape, generator=torch.Generator().manual_seed(0))
    return WeightUpdate({name: Dense(size * W.std() * noise)}, model=lm.name, fingerprint=lm.fingerprint)


def generated(lm, prompt, n):
    """Return the greedy continuation of a single prompt, by transformers."""
    inputs = lm.tokenizer(prompt, return_tensors="pt")
    whole = lm.model.generate(**inputs, max_new_tokens=n, do_sample=False, pad_token_id=0)
    return lm.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def same(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def same_but_for_rounding(a, b):
    """Compare tables of two batch sizes: log-likelihoods are sums of float32 numbers."""
    pd.testing.assert_frame_equal(a, b, rtol=1e-4, atol=1e-5)
    rest = [name for name in a.columns if name not in (*SMOOTH, "choice_margin")]
    same(a[rest], b[rest])


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@both_protocols
def test_the_table_has_a_row_for_each_task_and_metric(tiny_lm, small_sets, set_sizes, protocol):
    table = evaluate_tasks(tiny_lm, protocol=protocol, data=small_sets)
    assert list(table.columns) == COLUMNS
    found = {task: part["metric"].tolist() for task, part in table.groupby("task", sort=False)}
    assert list(found) == list(METRICS)
    assert {task: sorted(metrics) for task, metrics in found.items()} == {t: sorted(m) for t, m in METRICS.items()}
    assert table["n"].tolist() == [set_sizes[task] for task in table["task"]]


@both_protocols
def test_every_table_names_protocol_source_and_split(tiny_lm, tmp_path, small_sets, protocol):
    gsm8k = {"question": "Ann has 2 cats and 3 dogs. How many?", "answer": "2 + 3 = <<2+3=5>>5.\n#### 5"}
    test_split = write_lines(tmp_path / "gsm8k" / "test.jsonl", [gsm8k])
    data = {"reasoning": test_split, "nli": small_sets / "nli.jsonl", "sentiment": "bundled"}
    table = evaluate_tasks(tiny_lm, tasks=list(data), protocol=protocol, data=data, limit=1)
    assert set(table["protocol"]) == {protocol}
    assert table.drop_duplicates("task")[["task", "source", "split"]].to_numpy().tolist() == [
        ["reasoning", "gsm8k/test.jsonl", "test"],
        ["nli", "nli.jsonl", "unknown"],
        ["sentiment", "bundled", "bundled"],
    ]


@both_protocols
def test_batch_size_never_changes_a_table(tiny_lm, small_sets, protocol):
    alone = evaluate_tasks(tiny_lm, protocol=protocol, data=small_sets, batch_size=1)
    tiny_lm.memo.clear()
    together = evaluate_tasks(tiny_lm, protocol=protocol, data=small_sets, batch_size=32)
    assert len(alone) == sum(map(len, METRICS.values()))
    assert alone["value"].nunique() > 1
    pd.testing.assert_frame_equal(alone, together, rtol=1e-4, atol=1e-5)
    same(*(table[~table["metric"].isin([*SMOOTH, "choice_margin"])] for table in (alone, together)))


@both_protocols
def test_batch_size_never_changes_what_is_written(tiny_lm, small_sets, protocol):
    alone = ask_tasks(tiny_lm, protocol=protocol, data=small_sets, batch_size=1)
    tiny_lm.memo.clear()
    together = ask_tasks(tiny_lm, protocol=protocol, data=small_sets, batch_size=32)
    assert len(alone) == 8
    for one, other in zip(alone, together, strict=True):
        same_but_for_rounding(one.outputs(), other.outputs())


def test_the_papers_answer_is_the_greedy_continuation_of_its_prompt(tiny_lm, small_sets):
    seen = 0
    for name, n in {"reasoning": 5, "open_qa": 20, "summarization": 25, "closed_qa": 1, "sentiment": 1}.items():
        [run] = ask_tasks(tiny_lm, tasks=name, protocol="paper", data=small_sets)
        for prompt, answered in run.outputs()[["prompt", "answered"]].to_numpy().tolist():
            assert answered == generated(tiny_lm, prompt, n).strip()
            assert not answered.startswith(prompt)
            seen += 1
    assert seen == 17


@both_protocols
def test_undoing_an_edit_gives_the_unedited_models_table(tiny_lm, small_sets, protocol):
    before = ask_tasks(tiny_lm, protocol=protocol, data=small_sets)
    with disturbance(tiny_lm).applied(tiny_lm):
        edited = ask_tasks(tiny_lm, protocol=protocol, data=small_sets)
    assert all(a.answers != b.answers for a, b in zip(before, edited, strict=True))
    tiny_lm.memo.clear()  # so that nothing is remembered
    same(evaluate_tasks(tiny_lm, protocol=protocol, data=small_sets), summarize_runs(before))


def test_an_edited_models_answers_are_those_of_a_model_with_these_weights(tiny_lm, small_sets):
    twin = build_tiny_lm(tiny_lm.model.config.model_type)
    evaluate_tasks(tiny_lm, data=small_sets)  # its memo holds the unedited answers
    with disturbance(tiny_lm).applied(tiny_lm), torch.no_grad():
        name = tiny_lm.arch.mlp_out_weight(1)
        twin.model.get_parameter(name).copy_(tiny_lm.model.get_parameter(name))
        same(evaluate_tasks(tiny_lm, data=small_sets), evaluate_tasks(twin, data=small_sets))


def test_the_unedited_models_answers_are_not_computed_again(tiny_lm, small_sets):
    first = evaluate_tasks(tiny_lm, data=small_sets, protocol="paper")
    with disturbance(tiny_lm).applied(tiny_lm):
        evaluate_tasks(tiny_lm, tasks="nli", data=small_sets, protocol="paper")
    handle = tiny_lm.model.register_forward_pre_hook(lambda *_: pytest.fail("computed again"))
    try:
        same(evaluate_tasks(tiny_lm, data=small_sets, protocol="paper"), first)
        evaluate_tasks(tiny_lm, tasks=["ner", "nli"], data=small_sets, protocol="paper", limit=2)
    finally:
        handle.remove()


def test_a_limit_keeps_the_first_examples(tiny_lm, small_sets, set_sizes):
    whole = ask_tasks(tiny_lm, data=small_sets)
    limited = ask_tasks(tiny_lm, data=small_sets, limit=2)
    assert [len(run.data) for run in limited] == [2] * 8
    for a, b in zip(whole, limited, strict=True):
        first, only = (run.outputs().drop(columns=COMPARED, errors="ignore") for run in (a, b))
        same_but_for_rounding(first[:2], only)
    assert set(summarize_runs(limited)["n"]) == {2}
    beyond = ask_tasks(tiny_lm, data=small_sets, limit=1000)
    assert [len(run.data) for run in beyond] == list(set_sizes.values())  # nothing is repeated


def test_tasks_are_in_the_requested_order(tiny_lm, small_sets):
    runs = ask_tasks(tiny_lm, tasks=["sentiment", "nli"], data=small_sets, limit=1)
    assert [run.task.name for run in runs] == ["sentiment", "nli"]
    table = evaluate_tasks(tiny_lm, tasks=["sentiment", "nli"], data=small_sets, limit=1)
    assert table["task"].unique().tolist() == ["sentiment", "nli"]


def test_data_may_be_a_file_for_one_task_or_a_mapping_for_several(tiny_lm, small_sets):
    [from_folder] = ask_tasks(tiny_lm, tasks="nli", data=small_sets)
    [from_file] = ask_tasks(tiny_lm, tasks="nli", data=small_sets / "nli.jsonl")
    [from_text] = ask_tasks(tiny_lm, tasks="nli", data={"nli": str(small_sets / "nli.jsonl")})
    assert from_file == from_folder == from_text


def test_run_task_answers_as_ask_tasks_and_loads_nothing(tiny_lm, small_sets, monkeypatch):
    [expected] = ask_tasks(tiny_lm, tasks="nli", protocol="paper", data=small_sets, limit=3)
    data = load_task("nli", small_sets)
    monkeypatch.setattr(abilities, "load_task", lambda *_: pytest.fail("loaded"))
    assert run_task(tiny_lm, data, protocol="paper", limit=3, batch_size=2) == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol": "strict"}, "protocol 'strict' is not known; known: standard, paper."),
        ({"limit": 0}, "limit must be a whole number of at least 1; got 0."),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0."),
    ],
)
def test_run_task_refuses_settings_out_of_range(tiny_lm, small_sets, changes, sentence):
    with pytest.raises(SpecError, match=f"^{re.escape(sentence)}$"):
        run_task(tiny_lm, load_task("nli", small_sets), **changes)


def test_a_task_missing_from_a_mapping_has_the_default_source(tiny_lm, small_sets, monkeypatch):
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    runs = ask_tasks(tiny_lm, tasks=["nli", "ner"], data={"nli": small_sets}, limit=1)
    assert [run.data.source for run in runs] == ["nli.jsonl", "bundled"]
    monkeypatch.setenv("WORKBENCH_DATA", str(small_sets))
    runs = ask_tasks(tiny_lm, tasks=["nli", "ner"], data={"nli": "bundled"}, limit=1)
    assert [run.data.source for run in runs] == ["bundled", "ner.jsonl"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol": "strict"}, "protocol 'strict' is not known; known: standard, paper."),
        ({"limit": 0}, "limit must be a whole number of at least 1; got 0."),
        ({"limit": -3}, "limit must be a whole number of at least 1; got -3."),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0."),
        ({"batch_size": -1}, "batch_size must be at least 1; got -1."),
        (
            {"tasks": ["ner", "nli"], "data": {"reasoning": "bundled", "nli": "bundled"}},
            "data names the task 'reasoning', which is not asked; asked: ner, nli.",
        ),
        ({"tasks": "nli", "data": {"rte": "bundled"}}, "data names the task 'rte', which is not asked; asked: nli."),
        (
            {"tasks": "squad"},
            "no task 'squad'; known: reasoning, nli, open_qa, closed_qa, dialogue, summarization, ner, sentiment, "
            "or all.",
        ),
    ],
)
def test_invalid_settings_are_refused_before_any_work(tiny_lm, changes, sentence):
    handle = tiny_lm.model.register_forward_pre_hook(lambda *_: pytest.fail("worked"))
    try:
        for ask in (ask_tasks, evaluate_tasks):
            with pytest.raises(SpecError, match=f"^{re.escape(sentence)}$"):
                ask(tiny_lm, **changes)
    finally:
        handle.remove()


def test_missing_data_are_refused_before_any_work(tiny_lm, small_sets, tmp_path):
    handle = tiny_lm.model.register_forward_pre_hook(lambda *_: pytest.fail("worked"))
    missing = tmp_path / "none.jsonl"
    sentence = f"{missing} does not exist; give a file or folder of data, 'bundled' or 'hub'."
    try:
        with pytest.raises(DataError, match=f"^{re.escape(sentence)}$"):
            evaluate_tasks(tiny_lm, tasks=["nli", "ner"], data={"nli": small_sets, "ner": missing})
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("protocol", "standing"),
    [
        (
            "standard",
            "solve_rate choice_accuracy span_match choice_accuracy choice_accuracy rouge_mean f1 choice_accuracy",
        ),
        ("paper", "solve_rate accuracy span_match accuracy accuracy rouge_mean f1 accuracy"),
    ],
)
def test_headlines_are_one_row_per_task_with_title_and_floor(tiny_lm, small_sets, protocol, standing):
    table = evaluate_tasks(tiny_lm, protocol=protocol, data=small_sets, limit=2)
    found = select_headlines(table)
    assert found["task"].tolist() == list(METRICS)
    assert found["metric"].tolist() == standing.split()
    assert found["title"].tolist() == [TASKS[task].title for task in METRICS]
    assert found["floor"].tolist() == [0, 0.5, 0, 0.5, 0.25, 0, 0, 0.5]
    same(found[COLUMNS], table.loc[found.index])


def test_headlines_of_two_protocols_are_both_kept(tiny_lm, small_sets):
    tables = [evaluate_tasks(tiny_lm, tasks="nli", protocol=p, data=small_sets) for p in ("paper", "standard")]
    found = select_headlines(pd.concat(tables, ignore_index=True))
    assert found[["protocol", "metric"]].to_numpy().tolist() == [
        ["paper", "accuracy"],
        ["standard", "choice_accuracy"],
    ]


@both_protocols
def test_outputs_hold_prompt_expected_answered_and_every_metric(tiny_lm, small_sets, set_sizes, protocol):
    for run in ask_tasks(tiny_lm, protocol=protocol, data=small_sets):
        name, outputs = run.task.name, run.outputs()
        assert list(outputs.columns[:5]) == ["task", "example", "prompt", "expected", "answered"]
        assert sorted(outputs.columns[5:]) == sorted(METRICS[name])
        assert outputs["example"].tolist() == list(range(set_sizes[name]))
        for i, example in enumerate(run.data.examples):
            assert outputs["prompt"][i] == run.task.ask(example, protocol)[0].prompt
        assert all(isinstance(text, str) for text in [*outputs["expected"], *outputs["answered"]])


def test_headlines_of_no_rows_are_no_rows(tiny_lm, small_sets):
    table = evaluate_tasks(tiny_lm, tasks="nli", data=small_sets, limit=1)
    found = select_headlines(table[:0])
    assert list(found.columns) == [*COLUMNS, "title", "floor"]
    assert len(found) == 0


def hand_run(protocol="paper"):
    """Return three answered pairs: the first is right, the second wrong and the third without an answer."""
    [run] = ask_tasks(build_tiny_lm("gpt2"), tasks="nli", protocol=protocol, data="bundled", limit=3)
    labels = [str(example.entailment) for example in run.data.examples]
    wrong = {"True": "False", "False": "True"}[labels[1]]
    likelihoods = [(-1.0, -2.0) if label == "True" else (-2.0, -1.0) for label in labels]  # always the other label
    texts = [f" {labels[0]}", f" {wrong}", " Well"]
    answers = tuple((Answer(text, pair),) for text, pair in zip(texts, likelihoods, strict=True))
    return TaskRun(run.task, run.data, protocol, answers), labels, wrong


def test_the_table_is_the_mean_over_examples_and_outputs_hold_each():
    run, labels, wrong = hand_run()
    outputs = run.outputs()
    assert outputs["expected"].tolist() == labels
    assert outputs["answered"].tolist() == [labels[0], wrong, "Well"]
    assert outputs["accuracy"].tolist() == [1, 0, 0]
    assert outputs["valid_rate"].tolist() == [1, 1, 0]
    assert outputs["choice_accuracy"].tolist() == [0, 0, 0]
    table = summarize_runs([run]).set_index("metric")
    assert table.loc["accuracy", "value"] == pytest.approx(1 / 3)
    assert table.loc["valid_rate", "value"] == pytest.approx(2 / 3)
    assert table.loc["choice_accuracy", "value"] == 0
    assert table.loc["majority_share", "value"] == pytest.approx(max(labels.count("True"), labels.count("False")) / 3)
    assert set(table["n"]) == {3}


def test_intervals_hold_the_values_and_follow_the_seed(tiny_lm, small_sets):
    table = evaluate_tasks(tiny_lm, data=small_sets)
    rows = table.dropna(subset=["value"])
    assert len(rows) >= 24
    assert ((rows["low"] <= rows["value"] + 1e-9) & (rows["value"] <= rows["high"] + 1e-9)).all()
    same(table, evaluate_tasks(tiny_lm, data=small_sets))
    runs = ask_tasks(tiny_lm, data=small_sets)
    same(summarize_runs(runs, seed=5), evaluate_tasks(tiny_lm, data=small_sets, seed=5))


@pytest.mark.filterwarnings("error")
def test_a_model_that_never_names_anything_has_no_precision_and_no_warning():
    [run] = ask_tasks(build_tiny_lm("gpt2"), tasks="ner", data="bundled", limit=3)
    none = tuple((Answer(" none", ()),) * 4 for _ in range(3))
    table = summarize_runs([TaskRun(run.task, run.data, "standard", none)]).set_index("metric")
    assert table.loc["recall", "value"] == 0
    assert pd.isna(table.loc["precision", ["value", "low", "high"]]).all()


def test_rejected_records_are_not_asked(tiny_lm, tmp_path):
    good = {"text": "see it !", "positive": True}
    path = write_lines(tmp_path / "sentiment.jsonl", [good, {"text": "", "positive": True}, good])
    [run] = ask_tasks(tiny_lm, tasks="sentiment", data=path)
    assert (len(run.answers), len(run.data.rejected)) == (2, 1)
    assert set(summarize_runs([run])["n"]) == {2}


def chat_of(lm, n):
    """Return a record whose paper prompt, with the 25 tokens to be written, has n tokens."""
    empty = len(lm.tokenizer("Ann: \nTL;DR:")["input_ids"])
    record = {"dialogue": "Ann: " + "x" * (n - 25 - empty), "summary": "Ann."}
    assert len(lm.tokenizer(record["dialogue"] + "\nTL;DR:")["input_ids"]) + 25 == n
    return record


def test_an_example_that_just_fits_is_asked_and_a_longer_one_is_logged(tiny_lm, tmp_path, caplog):
    records = [chat_of(tiny_lm, n) for n in (513, 512, 514)]
    path = write_lines(tmp_path / "summarization.jsonl", records)
    [run] = ask_tasks(tiny_lm, tasks="summarization", protocol="paper", data=path)
    assert [example.dialogue for example in run.data.examples] == [records[1]["dialogue"]]
    first, second = (f"{n} tokens, more than the 512 that {tiny_lm.name} takes." for n in (513, 514))
    assert run.data.rejected == (Rejected(0, first), Rejected(2, second))
    assert caplog.messages == [f"summarization.jsonl: examples left out as too long: 2; record 0: {first}"]
    assert set(summarize_runs([run])["n"]) == {1}


def test_a_limit_counts_examples_that_fit(tiny_lm, tmp_path):
    records = [chat_of(tiny_lm, n) for n in (60, 600, 70, 80)]
    path = write_lines(tmp_path / "summarization.jsonl", records)
    [run] = ask_tasks(tiny_lm, tasks="summarization", protocol="paper", data=path, limit=2)
    assert [example.dialogue for example in run.data.examples] == [records[0]["dialogue"], records[2]["dialogue"]]


def test_an_example_that_is_too_long_is_named_by_its_record(tiny_lm, tmp_path):
    records = [{"dialogue": "", "summary": "None."}, chat_of(tiny_lm, 60), chat_of(tiny_lm, 600)]
    path = write_lines(tmp_path / "summarization.jsonl", records)
    [run] = ask_tasks(tiny_lm, tasks="summarization", protocol="paper", data=path)
    assert [rejected.index for rejected in run.data.rejected] == [0, 2]


def test_data_without_an_example_that_fits_are_refused(tiny_lm, tmp_path):
    path = write_lines(tmp_path / "summarization.jsonl", [chat_of(tiny_lm, 600), chat_of(tiny_lm, 700)])
    sentence = (
        "summarization.jsonl has no example for summarization that fits; record 0: 600 tokens, more than the 512 that "
        f"{tiny_lm.name} takes."
    )
    with pytest.raises(DataError, match=f"^{re.escape(sentence)}$"):
        evaluate_tasks(tiny_lm, tasks="summarization", protocol="paper", data=path)


@torch.no_grad()
def whole_pass_log_likelihood(lm, query):
    """Return the summed log-probability of a query's reference, and number of tokens, from one whole pass."""
    text = f"{query.prompt}\n{query.lead}" if query.lead else query.prompt
    joined = text + query.reference if text[-1:].isspace() else f"{text} {query.reference}"
    n = len(lm.tokenizer(text)["input_ids"])
    ids = torch.tensor([lm.tokenizer(joined)["input_ids"]])
    log_probs = lm.model(ids).logits[0, :-1].double().log_softmax(-1)
    return float(log_probs[n - 1 :].gather(1, ids[0, n:, None]).sum()), ids.shape[1] - n


@both_protocols
@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_smooth_score_is_that_of_whole_passes_of_prompt_and_reference(tiny_lm, small_sets, protocol, batch_size):
    for run in ask_tasks(tiny_lm, protocol=protocol, data=small_sets, batch_size=batch_size):
        outputs = run.outputs()
        for i, example in enumerate(run.data.examples):
            queries = [query for query in run.task.ask(example, protocol) if query.reference]
            nats, tokens = zip(*(whole_pass_log_likelihood(tiny_lm, query) for query in queries), strict=True)
            n_bytes = sum(len(query.reference.encode("utf-8")) for query in queries)
            assert outputs["log_likelihood"][i] == pytest.approx(sum(nats) / sum(tokens), rel=1e-4)
            assert outputs["log_likelihood_per_byte"][i] == pytest.approx(sum(nats) / n_bytes, rel=1e-4)


def test_every_example_counts_once_in_the_smooth_score_whatever_the_length_of_its_reference(tiny_lm, small_sets):
    [run] = ask_tasks(tiny_lm, tasks="summarization", data=small_sets)
    each = run.outputs()["log_likelihood"]
    assert each.nunique() == len(each)
    table = summarize_runs([run]).set_index("metric")
    assert table.loc["log_likelihood", "value"] == pytest.approx(each.mean())


@both_protocols
def test_without_written_answers_the_other_scores_are_the_same_to_the_last_bit(tiny_lm, small_sets, protocol):
    with disturbance(tiny_lm, size=0.5).applied(tiny_lm):  # with an edit, so that nothing is remembered
        whole = evaluate_tasks(tiny_lm, protocol=protocol, data=small_sets, batch_size=3)
        without = evaluate_tasks(tiny_lm, protocol=protocol, data=small_sets, batch_size=3, written=False)
    assert set(without["metric"]) == UNWRITTEN
    assert set(without["task"]) == set(METRICS)
    same(without, whole[whole["metric"].isin(UNWRITTEN)].reset_index(drop=True))


def test_without_written_answers_nothing_is_decoded(tiny_lm, small_sets, monkeypatch):
    monkeypatch.setattr(Prefilled, "continue_greedily", lambda *_: pytest.fail("decoded"))
    runs = ask_tasks(tiny_lm, data=small_sets, written=False)
    assert {answer.text for run in runs for answers in run.answers for answer in answers} == {""}
    assert len(runs) == 8


def test_log_likelihoods_of_the_unedited_model_are_not_computed_again(tiny_lm, small_sets):
    whole = evaluate_tasks(tiny_lm, data=small_sets, protocol="paper", limit=2)
    fresh = build_tiny_lm(tiny_lm.model.config.model_type)
    first = evaluate_tasks(fresh, data=small_sets, protocol="paper", limit=2, written=False)
    for lm in (tiny_lm, fresh):
        handle = lm.model.register_forward_pre_hook(lambda *_: pytest.fail("computed again"))
        try:
            again = evaluate_tasks(lm, data=small_sets, protocol="paper", limit=2, written=False)
        finally:
            handle.remove()
        same(again, first)
    same(first, whole[whole["metric"].isin(UNWRITTEN)].reset_index(drop=True))


def test_written_answers_are_decoded_where_only_log_likelihoods_are_known(tiny_lm, small_sets):
    ask_tasks(tiny_lm, tasks="reasoning", data=small_sets, written=False)
    [run] = ask_tasks(tiny_lm, tasks="reasoning", data=small_sets)
    prompt = run.outputs()["prompt"][0]
    assert run.answers[0][0].text == generated(tiny_lm, prompt, 48).split("\n")[0]


@both_protocols
def test_the_auc_in_the_table_is_that_of_the_margins_of_the_examples_asked(tiny_lm, small_sets, protocol):
    for limit in (None, 4):
        [run] = ask_tasks(tiny_lm, tasks="sentiment", protocol=protocol, data=small_sets, limit=limit)
        outputs = run.outputs()
        labels = [example.positive for example in run.data.examples]
        pairs = [
            (a > b) + (a == b) / 2
            for a, positive in zip(outputs["choice_margin"], labels, strict=True)
            for b, other in zip(outputs["choice_margin"], labels, strict=True)
            if positive and not other
        ]
        assert len(pairs) == (6 if limit is None else 4)
        table = summarize_runs([run]).set_index("metric")
        assert table.loc["choice_auc", "value"] == pytest.approx(sum(pairs) / len(pairs))
        assert 0 <= table.loc["choice_auc", "low"] <= table.loc["choice_auc", "high"] <= 1


def test_examples_of_one_label_have_no_auc_in_the_table(tiny_lm, small_sets):
    table = evaluate_tasks(tiny_lm, tasks="nli", data=small_sets, limit=1).set_index("metric")
    assert pd.isna(table.loc["choice_auc", ["value", "low", "high"]]).all()
