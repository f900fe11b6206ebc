"""Notebooks at the same time: what a figure shows does not depend on how many run at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from tests.figures.notebooks import ENTRY, WRITE, plan_and_run, write_manifest, write_notebook
from tests.helpers import error_of
from workbench.errors import RunError, SpecError
from workbench.figures import at_once
from workbench.figures.at_once import run_at_once
from workbench.figures.manifest import Entry, read_manifest
from workbench.figures.plan import Locations, PlannedRun

NOWHERE = Locations(Path("a"), Path("b"), Path("c"), Path("d"), Path("e"), None)


def entry(figure, **given):
    return {**ENTRY, "figure": figure, "makes": [figure], **given}


def planned(figure, **given):
    return PlannedRun(Entry(**entry(figure, **given)), {}, NOWHERE, "", False, None)


def work_on(folder, run):
    """Note when a run began and ended, which takes a moment; fail for the figure `bad`."""
    began = time.time()
    time.sleep(0.2)
    Path(folder, run.entry.figure).write_text(f"{began} {time.time()}")
    if run.entry.figure == "bad":
        raise RunError("figure 'bad' failed.")
    return run.entry.figure


@pytest.fixture
def in_threads(monkeypatch):
    """Run in threads, which start at once, instead of processes."""
    monkeypatch.setattr(at_once, "ProcessPoolExecutor", lambda number, mp_context: ThreadPoolExecutor(number))


@pytest.fixture
def run(in_threads, tmp_path):
    """Give a function that runs figures at once, and returns the times of each."""

    def run(*runs, number=3):
        told = []
        ended = list(run_at_once(runs, number, partial(work_on, tmp_path), told.append))
        assert sorted(ended) == sorted(each.entry.figure for each in runs)
        assert max(map(len, told)) <= number
        return {figure: tuple(map(float, (tmp_path / figure).read_text().split())) for figure in ended}

    return run


def test_runs_that_share_nothing_run_at_the_same_time(run):
    times = run(planned("a"), planned("b"))
    assert max(began for began, _ in times.values()) < min(ended for _, ended in times.values())


def test_a_run_waits_for_those_whose_experiments_it_shares_and_lets_others_pass(run):
    times = run(planned("a"), planned("b", after=("a",)), planned("c"), number=2)
    assert times["b"][0] >= times["a"][1]
    assert times["c"][0] < times["a"][1]


def test_a_run_that_reads_the_store_is_alone_between_those_before_and_after_it(run):
    times = run(planned("a"), planned("b"), planned("reader", reads_store=True), planned("late"))
    assert times["reader"][0] >= max(times["a"][1], times["b"][1])
    assert times["late"][0] >= times["reader"][1]


def test_what_a_run_waits_for_need_not_be_in_the_plan(run):
    assert set(run(planned("b", after=("a",)))) == {"b"}


def test_an_error_lets_runs_that_have_begun_end_and_begins_no_other(in_threads, tmp_path):
    runs = [planned("bad"), planned("good"), planned("never", after=("good",))]
    ended = run_at_once(runs, 2, partial(work_on, tmp_path), lambda figures: None)
    assert error_of(RunError, list, ended) == "figure 'bad' failed."
    assert {path.name for path in tmp_path.iterdir()} == {"bad", "good"}


def die(run):
    import os

    os._exit(1)


@pytest.mark.slow
def test_a_process_that_dies_is_named():
    ended = run_at_once([planned("a")], 2, die, lambda figures: None)
    sentence = "a process that runs notebooks died, often for lack of memory; run fewer at once."
    assert error_of(RunError, list, ended) == sentence


@pytest.mark.slow
def test_notebooks_at_once_write_what_they_write_one_after_another(notebooks, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("workbench.threads.usable_cores", lambda: 4)
    write_notebook(notebooks / "threads.ipynb", "import os", WRITE.replace("[i] for", "[os.environ['OMP_NUM_THREADS']] for"))
    names = [entry(f"f{n}", profiles={"smoke": {"n": n, "name": f"f{n}"}}) for n in (1, 2)]
    threads = entry("threads", notebook="threads.ipynb", profiles={"smoke": {"name": "threads"}})
    write_manifest(notebooks, *names, threads)
    finished = plan_and_run(profile="smoke", at_once=2)
    assert [each.entry.figure for each in finished] == ["f1", "f2", "threads"]
    tables = {each.entry.figure: pd.read_csv(each.files[0])["i"].tolist() for each in finished}
    assert tables == {"f1": [0], "f2": [0, 1], "threads": [2]}
    assert plan_and_run(profile="smoke") == []  # all are up to date


@pytest.mark.slow
def test_a_notebook_that_fails_beside_another_is_named_and_kept(notebooks):
    write_notebook(notebooks / "fig.ipynb", "1 / 0")
    write_manifest(notebooks, entry("f1"), entry("f2"))
    sentence = error_of(RunError, plan_and_run, profile="smoke", at_once=2)
    assert "failed at In [3] of fig.ipynb: ZeroDivisionError: division by zero" in sentence
    assert len(list(Path("build/smoke/notebooks").iterdir())) == 2


def test_a_figure_comes_after_figures_that_are_listed_before_it(notebooks):
    for names in (("nothing",), ("fig",), ("later",)):
        write_manifest(notebooks, entry("fig", after=names), entry("later"))
        assert error_of(SpecError, read_manifest, notebooks) == (
            f"{notebooks / 'figures.yaml'}: the figure 'fig' comes after {names[0]!r}, which is not listed before it; "
            "give the names of earlier entries."
        )
