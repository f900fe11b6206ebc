"""`workbench run` and `workbench results`: from a YAML file to a table."""

import pandas as pd
import pytest

from workbench.experiment.store import Store
from workbench.storage.scratch import SUFFIX

SPEC = """
model: {model}
n_operations: 2
hyperparameters: {{v_num_grad_steps: 2, contexts: ["{{}}"]}}
tasks: {{tasks: [nli], limit: 2}}
grid:
  regularizer: [{{kind: Unregularized}}, {{kind: RECT, keep: 0.4}}]
"""


@pytest.fixture
def spec(folder, tiny):
    """Give the file of a small experiment, in an empty working folder."""
    path = folder / "spec.yaml"
    path.write_text(SPEC.format(model=tiny))
    return path


@pytest.fixture
def done(spec, cli):
    """Give the folder of a store with its results."""
    assert cli("run", spec, "--store", "store").code == 0
    return spec.parent / "store"


def test_a_plan_is_shown_and_nothing_is_run(spec, cli):
    shown = cli("run", spec, "--store", "store", "--plan")
    assert shown.code == 0
    assert shown.out.startswith("2 trajectories, 0 of them finished\n")
    assert shown.out.count("to run") == 2
    assert not (spec.parent / "store").exists()


def test_a_run_is_finished_once(spec, done, cli):
    again = cli("run", spec, "--store", "store")
    assert again.out.startswith("2 trajectories, 2 of them finished\n")


@pytest.mark.slow
def test_a_run_on_a_full_disk_stops_in_a_sentence_and_continues_later(spec, done, cli, small_disk):
    store, seen = small_disk.path / "store", []
    for leave in (0, 20_000, 60_000):
        small_disk.fill(leave=leave)
        result = cli("run", spec, "--store", store)
        assert result.code == 2
        last = result.err.splitlines()[-1]
        assert last.startswith(f"workbench: {store}/")
        assert last.endswith(
            "cannot be written (No space left on device); free some space, or give a folder on another disk."
        )
        seen.append(sum(path.is_file() for path in store.rglob("*")))
    assert 0 == seen[0] < seen[1] < seen[2]  # what was finished is kept
    assert [path for path in store.rglob("*") if path.name.endswith(SUFFIX)] == []
    small_disk.free()
    assert cli("run", spec, "--store", store).code == 0
    tables = [Store(each).results().drop(columns="trajectory") for each in (store, done)]
    pd.testing.assert_frame_equal(*tables)
    small_disk.fill()
    for name in ("out.csv", "out.parquet"):
        full = cli("results", "--store", store, "--export", small_disk.path / name)
        assert full.code == 2
        assert full.err.startswith(f"workbench: {small_disk.path / name} cannot be written (No space left on device); ")
    small_disk.make_read_only()
    assert cli("run", spec, "--store", store).code == 0  # nothing is left to write
    spec.write_text(spec.read_text().replace("0.4", "0.5"))
    refused = cli("run", spec, "--store", store)
    assert refused.code == 2
    assert refused.err.splitlines()[-1].endswith(
        ".json cannot be written (Read-only file system); give a folder that can be written."
    )


def test_results_lists_the_trajectories(done, cli):
    listed = cli("results", "--store", "store")
    assert listed.code == 0
    assert "rome, RECT 40 %, sequential 2, seed 0" in listed.out
    assert len(listed.out.splitlines()) == 2


def test_results_takes_the_rows_asked_for(done, cli):
    rows = cli("results", "--store", "store", "--where", "task=perplexity", "--where", "regularizer=RECT 40 %")
    assert rows.code == 0
    assert len(rows.out.splitlines()) == 3


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_results_exports_what_pandas_reads(done, cli, ending):
    assert cli("results", "--store", "store", "--export", f"out.{ending}").code == 0
    written = getattr(pd, f"read_{ending}")(done.parent / f"out.{ending}")
    assert len(written) == len(pd.read_parquet(done / "results")) > 20


def test_operations_have_a_row_each(done, cli):
    assert cli("results", "--store", "store", "--operations", "--export", "out.csv").code == 0
    assert len(pd.read_csv(done.parent / "out.csv")) == 4


def test_stores_are_merged(done, cli):
    merged = cli("results", "--store", "other", "--merge", "store")
    assert merged.code == 0
    assert len(merged.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--where", "shade=red"], "--where 'shade=red': no column 'shade'; there are trajectory, model,"),
        (["--where", "task=chess"], "no row has task=chess; workbench results lists what there is."),
        (["--export", "out.txt"], "--export out.txt: the name must end in .csv or .parquet."),
        (
            ["--export", "nowhere/out.csv"],
            "--export nowhere/out.csv: the folder nowhere does not exist; make it first.",
        ),
    ],
)
def test_what_results_cannot_do_is_refused(done, cli, args, sentence):
    refused = cli("results", "--store", "store", *args)
    assert refused.code == 2
    assert refused.err.startswith(f"workbench: {sentence}")


def test_an_empty_store_is_refused(folder, cli):
    refused = cli("results", "--store", "store")
    assert (refused.code, refused.err) == (
        2,
        "workbench: the store store holds no results; workbench run makes some.\n",
    )


def test_a_spec_that_cannot_be_run_is_refused_and_nothing_is_written(folder, cli):
    (folder / "spec.yaml").write_text("n_operations: 2\nmethod: wizardry\n")
    refused = cli("run", "spec.yaml", "--store", "store")
    assert refused.code == 2
    assert refused.err.startswith("workbench: spec.yaml, method: no method 'wizardry'; known: rome,")
    assert not (folder / "store").exists()


def test_jobs_name_a_cluster_of_this_machine(spec, cli, monkeypatch):
    asked = []
    monkeypatch.setattr("workbench.commands.run.run_resolved", lambda *args, cluster, **kwargs: asked.append(cluster))
    for options in (("--jobs", "auto"), ("--jobs", 3), ("--cluster", "tcp://host:1"), ()):
        assert cli("run", spec, *options).code == 0
    assert asked == ["local:auto", "local:3", "tcp://host:1", None]


@pytest.mark.parametrize("command", [("run", "none.yaml"), ("regenerate", "--list")])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--jobs", "2", "--cluster", "local"), "give --jobs or --cluster, not both: --jobs N is --cluster local:N."),
        *(
            (("--jobs", jobs), f"--jobs must be auto or a whole number of at least 1; got {jobs!r}.")
            for jobs in ("0", "-1", "two", "2.5", "²", "99999", "auto\n")
        ),
    ],
)
def test_jobs_that_cannot_be_are_refused(cli, command, options, sentence):
    done = cli(*command, *options)
    assert (done.code, done.err.splitlines()[-1]) == (2, f"workbench: {sentence}")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        *(
            (("--at-once", number), f"--at-once must be auto or a whole number of at least 1; got {number!r}.")
            for number in ("0", "-2", "all", "1.5")
        ),
        *(
            (
                ("--at-once", "2", *other),
                "give --at-once, or --jobs or --cluster, not both: either notebooks or trajectories share the cores.",
            )
            for other in (("--jobs", "2"), ("--cluster", "local"))
        ),
    ],
)
def test_numbers_of_notebooks_at_once_that_cannot_be_are_refused(cli, options, sentence):
    done = cli("regenerate", "--list", *options)
    assert (done.code, done.err.splitlines()[-1]) == (2, f"workbench: {sentence}")
