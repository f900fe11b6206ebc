"""Experiments against edits by hand; killed and resumed, sharing results, continuing after edits that fail."""

import os
import random
import signal
import threading
import time

import pandas as pd
import pytest
import torch
from tqdm import tqdm

import workbench as wb
from tests.helpers import assert_same_bits, weights_of
from workbench.analysis.side_effects import compare_answers
from workbench.editing.rome import ROME
from workbench.errors import EditError, RunError
from workbench.experiment import measures
from workbench.experiment.models import load_model
from workbench.experiment.resolved import resolve
from workbench.experiment.runner import read_updates, run
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store

ROME_FIELDS = {"v_num_grad_steps": 3, "contexts": ["{}"]}
RECT = {"kind": "RECT", "keep": 0.4}
KEYS = ["trajectory", "operation", "task", "metric", "protocol", "moment", "parameter", "at"]


@pytest.fixture
def spec(tiny):
    """Give a function that returns a small spec: four sequential edits, and the given fields."""

    def make(**fields):
        small = {"model": tiny, "hyperparameters": ROME_FIELDS, "tasks": {"tasks": ["nli"], "limit": 2}}
        return ExperimentSpec(**{**small, "n_operations": 4, "checkpoints": [0, 2], **fields})

    return make


@pytest.fixture
def lm(tiny):
    """Give the model that the runner uses in this process; a test undoes what it applies."""
    return load_model(tiny, "float32")


@pytest.fixture
def computed(monkeypatch):
    """Give the list of facts whose edits were computed."""
    subjects, compute = [], ROME.compute_update

    def counted(self, lm, requests):
        subjects.append(requests[0].subject)
        return compute(self, lm, requests)

    monkeypatch.setattr(ROME, "compute_update", counted)
    return subjects


def value(table, **where):
    rows = table
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    [found] = rows["value"]
    return found


def test_a_sequence_equals_edits_by_hand(spec, lm, tmp_path):
    chosen = spec(regularizer=RECT, n_operations=2, checkpoints=[0, 1])
    table = run(chosen, store=tmp_path)
    requests = [request for [request] in resolve(chosen).batches]
    rome, rect = wb.ROME.for_model(lm), wb.RECT(0.4)
    rome = chosen.make_editor(lm)
    with lm.restored_after():
        first = rect(rome.compute_update(lm, requests[:1]), lm)
        first.apply(lm)
        right_after = wb.score_edits(lm, requests[:1])
        second = rect(rome.compute_update(lm, requests[1:]), lm)
        second.apply(lm)
        right_after = pd.concat([right_after, wb.score_edits(lm, requests[1:])])
        now, perplexity = wb.evaluate_edits(lm, requests), wb.perplexity(lm)["value"].item()
    last = table[table["operation"] == 2]
    for metric in ("reliability", "generalization", "locality"):
        where = {"metric": metric, "protocol": "teacher_forced"}
        rows = right_after[(right_after["metric"] == metric) & (right_after["protocol"] == "teacher_forced")]
        assert value(last, moment="after_edit", **where) == pytest.approx(rows["value"].mean())
        assert value(last, moment="now", **where) == pytest.approx(value(now, **where))
    assert value(last, task="perplexity") == pytest.approx(perplexity, rel=1e-5)
    change = wb.weight_change(first + second, lm).set_index("metric")["value"]
    assert value(last, metric="manhattan_distance") == pytest.approx(change["manhattan_distance"], rel=1e-4)


def test_the_second_edit_of_a_sequence_sees_the_first(spec, lm, tmp_path):
    store = Store(tmp_path)
    run(spec(n_operations=2, checkpoints=[1]), store=store)
    sums = read_updates(spec(n_operations=2, checkpoints=[1]), store)
    [name] = sums[2]
    second = sums[2].delta(name) - sums[1].delta(name)
    alone = spec().make_editor(lm).compute_update(lm, list(resolve(spec()).batches[1])).delta(name)
    assert (second - alone).norm() > 1e-3 * alone.norm()


def test_single_edits_start_from_the_unedited_model(spec, lm, tmp_path):
    chosen = spec(setting="single", n_operations=3, checkpoints=[3], tasks=None)
    table = run(chosen, store=tmp_path)
    scores = []
    for batch in resolve(chosen).batches:
        with chosen.make_editor(lm).compute_update(lm, list(batch)).applied(lm):
            scores.append(wb.score_edits(lm, batch))
    scores = pd.concat(scores)
    mean = scores[(scores["metric"] == "reliability") & (scores["protocol"] == "teacher_forced")]["value"].mean()
    found = value(table, metric="reliability", protocol="teacher_forced", moment="after_edit")
    assert found == pytest.approx(mean)
    assert "now" not in set(table["moment"])


def test_weights_are_measured_against_the_unedited_model(spec, lm, tmp_path):
    table = run(spec(tasks=None), store=tmp_path)
    last = table[(table["task"] == "weights") & (table["operation"] == 4)].set_index("metric")["value"]
    name = lm.arch.mlp_out_weight(spec().make_editor(lm).layer)
    assert last["weight_norm_before"] == pytest.approx(float(lm.weight(name).norm()), rel=1e-6)
    assert last["norm"] / last["weight_norm_before"] == pytest.approx(last["relative_norm"], rel=1e-6)
    values = torch.linalg.svdvals(lm.weight(name).double())
    ends = last[["largest_singular_value_before", "smallest_singular_value_before"]]
    assert ends.tolist() == pytest.approx([float(values[0]), float(values[-1])], rel=1e-6)
    assert last["largest_singular_value"] != ends.iloc[0]


def test_the_stored_update_reproduces_the_measured_model(spec, lm, tmp_path):
    store = Store(tmp_path)
    table = run(spec(), store=store)
    [record] = store.trajectories().values()
    update = store.read_update(f"updates/{record['states']['4']}.safetensors")
    with update.applied(lm):
        again = wb.perplexity(lm)["value"].item()
    assert again == value(table[table["operation"] == 4], task="perplexity")


def test_perplexity_reads_the_given_number_of_windows_or_is_left_out(spec, lm, tmp_path):
    what = {"n_operations": 1, "checkpoints": [1], "setting": "single", "tasks": None}
    few = run(spec(**what, perplexity={"limit": 2, "window": 16}), store=tmp_path)
    all_of_them = run(spec(**what), store=tmp_path)
    [update] = read_updates(spec(**what), Store(tmp_path)).values()
    with update.applied(lm):
        assert value(few, task="perplexity") == wb.perplexity(lm, limit=2, window=16)["value"].item()
        assert value(all_of_them, task="perplexity") == wb.perplexity(lm)["value"].item()
    assert "perplexity" not in set(run(spec(**what, perplexity=None), store=tmp_path)["task"])


def test_drift_is_measured_against_the_unedited_model_where_it_is_asked_for(spec, lm, tmp_path):
    what = {"n_operations": 1, "checkpoints": [0, 1], "tasks": None, "perplexity": None}
    asked = spec(**what, drift={"limit": 2, "window": 16})
    table = run(asked, store=tmp_path)
    drifts = table[table["task"] == "drift"].set_index("operation")
    assert drifts["metric"].unique().tolist() == ["kl"]
    assert drifts.loc[0, "value"] == 0
    [update] = read_updates(asked, Store(tmp_path)).values()
    with update.applied(lm):
        assert drifts.loc[1, "value"] == wb.drift(lm, limit=2, window=16)["value"].item() > 0
    assert "drift" not in set(run(spec(**what), store=tmp_path)["task"])


WRITTEN = {"tasks": ["nli", "reasoning"], "limit": 2}
UNWRITTEN = {
    *("choice_accuracy", "choice_auc", "majority_share", "choice_margin", "log_likelihood", "log_likelihood_per_byte"),
}


def of_tasks(table, operation):
    rows = table[table["task"].isin(WRITTEN["tasks"]) & (table["operation"] == operation)]
    return rows.drop(columns="trajectory").reset_index(drop=True)


@pytest.mark.parametrize("order", [0, 1])
def test_scores_without_written_answers_are_those_of_a_run_with_them(spec, tmp_path, order):
    what = {"n_operations": 2, "checkpoints": [0, 1], "perplexity": None}
    given = [spec(**what, tasks=WRITTEN), spec(**what, tasks={**WRITTEN, "written_at": [0, 2]})]
    tables = dict(enumerate(run(each, store=tmp_path / "one") for each in given[:: 1 - 2 * order]))
    whole, some = tables[order], tables[1 - order]
    alone = run(given[1], store=tmp_path / "another")
    pd.testing.assert_frame_equal(some, alone)
    for operation in (0, 2):
        pd.testing.assert_frame_equal(of_tasks(some, operation), of_tasks(whole, operation))
    rows = of_tasks(whole, 1)
    expected = rows[rows["metric"].isin(UNWRITTEN)].reset_index(drop=True)
    assert len(expected) == len(UNWRITTEN) + 2
    pd.testing.assert_frame_equal(of_tasks(some, 1), expected)


def test_scores_that_need_no_written_answers_are_taken_from_those_with_them(spec, tmp_path, monkeypatch):
    what = {"n_operations": 2, "checkpoints": [0, 1], "perplexity": None}
    run(spec(**what, tasks=WRITTEN), store=tmp_path)
    monkeypatch.setattr(measures, "run_task", lambda *given, **more: pytest.fail("asked again"))
    few = run(spec(**what, tasks={**WRITTEN, "written_at": []}), store=tmp_path)
    assert set(few[few["task"].isin(WRITTEN["tasks"])]["metric"]) == UNWRITTEN


def test_answers_that_were_not_written_are_missed_by_name(spec, tmp_path):
    chosen = spec(n_operations=1, checkpoints=[0, 1], tasks={**WRITTEN, "written_at": [1]})
    run(chosen, store=tmp_path)
    with pytest.raises(RunError) as caught:
        compare_answers(chosen, 1, store=tmp_path)
    assert str(caught.value) == (
        f"the store {tmp_path} holds no written answers to nli of this trajectory; run it with the checkpoint in "
        "tasks.written_at, or without that field."
    )


def test_a_run_restores_every_bit_of_the_model(spec, lm, tmp_path):
    before = weights_of(lm)
    run(spec(regularizer=RECT), store=tmp_path)
    assert_same_bits(lm, before)
    assert lm.applied_updates == ()


def test_each_operation_has_a_row(spec, tmp_path):
    store = Store(tmp_path)
    run(spec(), store=store)
    rows = store.operations()
    assert list(rows["operation"]) == [1, 2, 3, 4]
    assert (rows[["seconds", "norm", "relative_norm", "applied_norm"]] > 0).all().all()
    assert rows["denominator"].notna().all()
    assert rows["failed"].isna().all()


def test_a_finished_run_computes_nothing(spec, tmp_path, computed, monkeypatch):
    first = run(spec(), store=tmp_path)
    assert len(computed) == 4
    monkeypatch.setattr(
        "workbench.experiment.runner.load_model", lambda *given, **more: pytest.fail("the model was loaded")
    )
    pd.testing.assert_frame_equal(run(spec(), store=tmp_path), first)


@pytest.mark.slow
def test_a_longer_run_continues_a_shorter_one(spec, tmp_path, computed):
    run(spec(n_operations=2, checkpoints=[]), store=tmp_path / "a")
    run(spec(), store=tmp_path / "a")
    assert len(computed) == 4
    pd.testing.assert_frame_equal(run(spec(), store=tmp_path / "a"), run(spec(), store=tmp_path / "b"))


def test_the_scores_of_some_facts_are_those_of_a_run_that_measures_all(spec, tmp_path):
    tables = [run(spec(**fields), store=tmp_path) for fields in ({}, {"assessed": 2})]
    every, some = (Store(tmp_path).scores(list(table["trajectory"].unique())) for table in tables)
    assert set(every.loc[every["task"] == "edits", "example"]) == {0, 1, 2, 3}
    assert set(some.loc[some["task"] == "edits", "example"]) == {0, 2}
    kept = every[(every["task"] != "edits") | every["example"].isin([0, 2])]
    columns = [name for name in every.columns if name != "trajectory"]
    pd.testing.assert_frame_equal(
        some[columns].reset_index(drop=True), kept[columns].reset_index(drop=True), check_dtype=False
    )
    now = tables[1].query("task == 'edits' and moment == 'now' and metric == 'reliability'")
    assert set(now["n"]) == {1, 2}  # facts 0 and 1, of which 0 is measured; then all four


def test_measuring_all_facts_is_the_same_trajectory_as_without_the_field(spec):
    keys = [resolve(spec(assessed=count)).key for count in (None, 4, 100, 3)]
    assert resolve(spec()).key == keys[0] == keys[1] == keys[2] != keys[3]


def test_other_tasks_are_measured_without_editing_again(spec, tmp_path, computed, monkeypatch):
    run(spec(), store=tmp_path)
    asked, ask = [], measures.run_task
    monkeypatch.setattr(
        measures, "run_task", lambda lm, data, **given: asked.append(data.task) or ask(lm, data, **given)
    )
    run(spec(tasks={"tasks": ["nli", "sentiment"], "limit": 2}), store=tmp_path)
    assert asked == ["sentiment"] * 3
    assert len(computed) == 4


@pytest.mark.slow
def test_regularizers_share_the_first_edit_of_a_sequence_and_all_single_ones(spec, tmp_path, computed):
    both = [spec(regularizer=RECT), spec()]
    run(both, store=tmp_path / "sequential")
    assert len(computed) == 7
    computed.clear()
    run([each.model_copy(update={"setting": "single"}) for each in both], store=tmp_path / "single")
    assert len(computed) == 4


@pytest.mark.slow
def test_the_unedited_model_is_measured_once_for_all(spec, tmp_path, monkeypatch):
    asked, ask = [], measures.run_task

    def counted(lm, data, **given):
        asked.append(len(lm.applied_updates))
        return ask(lm, data, **given)

    monkeypatch.setattr(measures, "run_task", counted)
    run([spec(), spec(regularizer=RECT), spec(seed=1)], store=tmp_path)
    assert asked.count(0) == 1
    assert len(asked) == 1 + 3 * 2


def test_a_failed_edit_is_recorded_and_the_run_continues_without_it(spec, tmp_path, lm, monkeypatch):
    compute, store = ROME.compute_update, Store(tmp_path)
    second = resolve(spec()).batches[1][0]

    def failing(self, lm, requests):
        if requests[0] == second:
            raise EditError("the loss is not finite.")
        return compute(self, lm, requests)

    monkeypatch.setattr(ROME, "compute_update", failing)
    table = run(spec(), store=store)
    rows = store.operations().set_index("operation")
    assert rows["failed"].dropna().to_dict() == {2: "the loss is not finite."}
    assert pd.isna(rows.loc[2, "norm"])
    assert value(table[table["operation"] == 4], metric="failed") == 1
    monkeypatch.setattr(ROME, "compute_update", lambda *args: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(run(spec(checkpoints=[4]), store=store)[KEYS[1:]], table_of_last(table))


def table_of_last(table):
    return table[table["operation"] == 4].reset_index(drop=True)[KEYS[1:]]


def test_edits_that_diverge_are_recorded(spec, tmp_path):
    store = Store(tmp_path)
    run(spec(method="ft", hyperparameters={"lr": 1e37}, tasks=None), store=store)
    rows = store.operations()
    assert len(rows) == 4
    assert rows["failed"].notna().all()


def test_an_unexpected_error_stops_one_trajectory_and_not_the_others(spec, tmp_path, lm, monkeypatch, caplog):
    compute, store = ROME.compute_update, Store(tmp_path)
    few = {"n_operations": 1, "checkpoints": [1], "tasks": None, "perplexity": None}
    bad, good = spec(**few, seed=1), spec(**few)
    [[unlucky]] = resolve(bad).batches

    def failing(self, lm, requests):
        if requests[0] == unlucky:
            raise ZeroDivisionError("division by zero")
        return compute(self, lm, requests)

    monkeypatch.setattr(ROME, "compute_update", failing)
    before = weights_of(lm)
    with pytest.raises(RunError) as caught:
        run([bad, good], store=store)
    assert str(caught.value) == (
        f"1 of 2 trajectories could not be finished; {bad}: ZeroDivisionError: division by zero"
    )
    assert f"{bad} stopped (ZeroDivisionError: division by zero); the others go on" in caplog.messages
    assert store.finished(resolve(good).key)
    assert_same_bits(lm, before)


def test_an_interrupt_stops_all_trajectories_and_leaves_the_model_unedited(spec, tmp_path, lm, monkeypatch):
    few = {"n_operations": 2, "checkpoints": [2], "tasks": None, "perplexity": None}
    calls, compute, before = [], ROME.compute_update, weights_of(lm)

    def interrupted(self, lm, requests):
        calls.append(lm.applied_updates)
        if lm.applied_updates:
            raise KeyboardInterrupt
        return compute(self, lm, requests)

    monkeypatch.setattr(ROME, "compute_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([spec(**few), spec(**few, seed=1)], store=tmp_path)
    assert [len(each) for each in calls] == [0, 1]
    assert lm.applied_updates == ()
    assert_same_bits(lm, before)


def test_an_update_that_an_interrupt_has_left_applied_does_not_change_results(spec, tmp_path, lm):
    few = {"n_operations": 2, "checkpoints": [0, 1]}
    name = lm.arch.mlp_out_weight(1)
    expected = run(spec(**few), store=tmp_path / "clean")
    left = wb.WeightUpdate({name: torch.ones_like(lm.weight(name))})
    with lm.restored_after():
        left.apply(lm)
        pd.testing.assert_frame_equal(run(spec(**few), store=tmp_path / "left"), expected)
        assert lm.applied_updates == (left,)


def test_weights_that_changed_unrecorded_are_refused_before_anything_is_stored(spec, tmp_path):
    store = Store(tmp_path)
    few = {"n_operations": 1, "checkpoints": [0, 1]}
    lm = load_model(spec().model, "float32")
    name = lm.arch.mlp_out_weight(1)
    with torch.no_grad():
        lm.model.get_parameter(name)[0, 0] += 1e-3
    with pytest.raises(RunError) as caught:
        run(spec(**few), store=store)
    assert str(caught.value) == (
        f"1 of 1 trajectories could not be finished; {spec(**few)}: the weight {name} of {lm.name} is not the one that "
        "was loaded, although no update accounts for it; load the model again."
    )
    assert store.names("measures") == store.names("results") == store.names("edits") == []
    assert load_model(spec().model, "float32") is not lm
    run(spec(**few), store=store)  # with the model loaded again


def test_damaged_edits_and_measurements_of_a_killed_run_are_computed_again(spec, tmp_path):
    store, chosen = Store(tmp_path / "damaged"), spec(n_operations=2, checkpoints=[0, 1])
    whole = run(chosen, store=store)
    files = [name for part in ("trajectories", "results", "edits", "measures") for name in store.names(part)]
    for name in files:
        store.write(name, store.read(name)[:20])
    pd.testing.assert_frame_equal(run(chosen, store=store), whole)
    moved = tmp_path / "damaged" / "damaged"
    aside = {path.relative_to(moved).as_posix() for path in moved.rglob("*.*")}
    assert (
        set(files) - aside == set(store.names("edits")) - aside
    )  # tensors without a record are not read, but replaced


def test_damaged_results_of_a_finished_run_are_reported_and_made_again(spec, tmp_path):
    store, chosen = Store(tmp_path), spec(n_operations=1, checkpoints=[0, 1], tasks=None, perplexity=None)
    whole = run(chosen, store=store)
    store.write(store.names("results")[0], b"")
    with pytest.raises(RunError) as caught:
        run(chosen, store=store)
    assert str(caught.value) == "stored results of 1 of 1 trajectories were damaged; run them again."
    pd.testing.assert_frame_equal(run(chosen, store=store), whole)


def test_a_damaged_sum_is_named_and_written_by_the_next_run(spec, tmp_path):
    store, chosen = Store(tmp_path), spec(n_operations=2, checkpoints=[2], tasks=None, perplexity=None)
    run(chosen, store=store)
    expected = read_updates(chosen, store)[2]
    [name] = store.names("updates")
    store.write(name, store.read(name)[:50])
    with pytest.raises(RunError) as caught:
        read_updates(chosen, store)
    assert str(caught.value) == f"{name} of the store {tmp_path} was damaged; run {chosen} again, which writes it."
    run(chosen, store=store)
    again = read_updates(chosen, store)[2]
    assert all(torch.equal(again.delta(each), expected.delta(each)) for each in expected)


def killed_while_running(spec, url, kill) -> bool:
    """Run a spec in a forked process after calling `kill` in it; return whether the process was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            tqdm.set_lock(threading.RLock())  # the one of this process would stay locked by a child that is killed
            kill()
            run(spec, store=url)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def die_at_third_new_file():
    """Kill this process when a file is written but not yet renamed.

    An edit is two files, of which the second says that it is complete: with fewer than two files per restart, a run
    would never get anywhere.
    """
    written, rename = [], Store._rename

    def dying(self, scratch, path):
        written.append(path)
        if len(written) == 4:  # the first is the record of the trajectory, which every restart writes
            os.kill(os.getpid(), signal.SIGKILL)
        rename(self, scratch, path)

    Store._rename = dying


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_table(spec, lm, tmp_path):
    chosen = spec(regularizer=RECT)
    lives = 1
    while killed_while_running(chosen, tmp_path / "killed", die_at_third_new_file):
        lives += 1
        assert lives < 100
    assert lives > 15
    killed, whole = run(chosen, store=tmp_path / "killed"), run(chosen, store=tmp_path / "whole")
    pd.testing.assert_frame_equal(killed, whole)
    assert not killed.duplicated(KEYS).any()
    operations = [Store(tmp_path / name).operations().drop(columns="seconds") for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*operations)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_table(spec, lm, tmp_path):
    chosen, draw = spec(n_operations=8, checkpoints=[0, 3, 5]), random.Random(0)
    start = time.monotonic()
    whole = run(chosen, store=tmp_path / "whole")
    longest = time.monotonic() - start
    kills = 0
    for _ in range(12):
        seconds = draw.uniform(0.02, longest / 3)
        kills += killed_while_running(
            chosen, tmp_path / "killed", lambda s=seconds: signal.setitimer(signal.ITIMER_REAL, s)
        )
    assert kills > 2
    killed = run(chosen, store=tmp_path / "killed")
    pd.testing.assert_frame_equal(killed, whole)
