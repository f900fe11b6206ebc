"""A notebook runs with its parameters, is kept executed, and must write the files that the manifest lists."""

import io
import os
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from tests.figures.notebooks import ENTRY, WRITE, plan_and_run, write_manifest, write_notebook
from tests.helpers import error_of
from workbench.errors import DiskError, RunError, SpecError
from workbench.experiment.store import Store
from workbench.figures.plan import plan
from workbench.figures.regenerate import regenerate


def test_a_notebook_is_run_with_the_parameters_of_manifest_profile_and_caller(notebooks, tmp_path):
    profiles = {"smoke": {"n": 2}, "default": {"n": 9}}
    write_manifest(
        notebooks, {**ENTRY, "parameters": {"n": 5, "name": "table"}, "makes": ["table"], "profiles": profiles}
    )
    [run] = plan_and_run(profile="smoke", notebooks="notebooks")
    assert run.files == (Path("build/smoke/figures/table.csv"),)
    assert pd.read_csv(run.files[0])["i"].tolist() == [0, 1]
    assert run.notebook == Path("build/smoke/notebooks/fig-fig.ipynb")
    assert [c.execution_count for c in nbformat.read(run.notebook, 4).cells] == [1, 2, 3]
    assert run.entry.figure == "fig"
    assert run.seconds > 0
    assert sorted(path.name for path in notebooks.iterdir()) == ["fig.ipynb", "figures.yaml"]
    [again] = plan_and_run("fig", profile="default", notebooks=notebooks, figures="here", overrides={"n": 3})
    assert again.files == (Path("here/table.csv"),)
    assert pd.read_csv("here/table.csv")["i"].tolist() == [0, 1, 2]
    assert again.notebook == Path("build/default/notebooks/fig-fig.ipynb")


def test_a_failing_notebook_is_kept_up_to_the_failing_cell(notebooks):
    write_notebook(notebooks / "fig.ipynb", "print('so far')", "1 / 0", "print('never')")
    kept = Path("build/smoke/notebooks/fig-fig.ipynb")
    assert error_of(RunError, plan_and_run, profile="smoke", notebooks=notebooks) == (
        "figure 'fig' failed at In [4] of fig.ipynb: ZeroDivisionError: division by zero "
        f"(the notebook as far as it ran: {kept})."
    )
    cells = {cell.source: cell for cell in nbformat.read(kept, 4).cells if cell.cell_type == "code"}
    assert cells["print('so far')"].outputs[0].text == "so far\n"
    assert cells["1 / 0"].outputs[0].ename == "ZeroDivisionError"
    assert cells["print('never')"].outputs == []


def test_a_full_disk_keeps_the_executed_notebook_and_the_figure_that_were_there(notebooks, small_disk):
    build = small_disk.path / "build"
    write_notebook(notebooks / "fig.ipynb", WRITE, "print('x' * 100_000)")
    [run] = plan_and_run(profile="smoke", notebooks=notebooks, build=build)
    before = {path: path.read_bytes() for path in (run.notebook, *run.files)}
    small_disk.fill(leave=50_000)
    assert error_of(DiskError, plan_and_run, profile="smoke", notebooks=notebooks, build=build, again=True) == (
        f"{run.notebook} cannot be written (No space left on device); free some space, or give a folder on another disk."
    )
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in run.notebook.parent.iterdir()] == [run.notebook.name]
    small_disk.free()
    assert len(plan_and_run(profile="smoke", notebooks=notebooks, build=build, again=True)) == 1


def test_a_kernel_that_dies_is_reported_and_the_notebook_kept(notebooks):
    write_notebook(notebooks / "fig.ipynb", "print('so far')", "import os; os._exit(1)")
    kept = Path("build/smoke/notebooks/fig-fig.ipynb")
    assert error_of(RunError, plan_and_run, profile="smoke", notebooks=notebooks) == (
        f"figure 'fig': the kernel of fig.ipynb died, often for lack of memory (the notebook as far as it ran: {kept})."
    )
    assert "so far" in kept.read_text()


def test_a_promised_file_that_is_not_written_is_an_error(stand_in):
    stand_in("other.csv", "fig.png")
    assert error_of(RunError, plan_and_run, profile="smoke", figures="figures") == (
        "fig.ipynb ran but did not write fig.csv, which figures.yaml says it makes."
    )


def test_an_old_file_does_not_stand_for_one_that_was_not_written(stand_in):
    folder = stand_in("fig.png")
    (folder / "fig.csv").write_text("old")
    assert error_of(RunError, plan_and_run, profile="smoke", figures="figures") == (
        "fig.ipynb ran but did not write fig.csv, which figures.yaml says it makes."
    )


def test_an_old_picture_beside_a_new_table_is_an_error(stand_in):
    folder = stand_in("fig.csv", "fig.svg")
    (folder / "fig.png").write_text("old")
    assert error_of(RunError, plan_and_run, profile="smoke", figures="figures") == (
        "fig.ipynb wrote fig.csv but left an old fig.png beside it; delete it if it is no longer made."
    )


def test_a_rewritten_file_counts_as_written_whatever_the_clocks_say(stand_in):
    folder = stand_in("fig.csv", "fig.png")
    (folder / "fig.csv").write_text("new")
    os.utime(folder / "fig.csv", (4e9, 4e9))  # from a machine whose clock is ahead
    [run] = plan_and_run(profile="smoke", figures="figures")
    assert run.files == (Path("figures/fig.csv"), Path("figures/fig.png"))


SPEC = """\
import workbench as wb
spec = {"model": model, "hyperparameters": {"v_num_grad_steps": 2, "contexts": ["{}"]}, "tasks": None}
results = wb.run(wb.ExperimentSpec(**spec, n_operations=n, perplexity=None))"""


@pytest.fixture
def study(notebooks, tiny):
    """Give a manifest of two figures of the study: one of a trajectory of one edit, and one of two edits."""
    (notebooks / "fig.ipynb").unlink()
    parameters = f'model: str = "{tiny}"\nn: int = 1\nname: str = "fig"\nfigures_dir: str = "."'
    write_notebook(notebooks / "fig.ipynb", SPEC, WRITE.replace("range(n)", "results['value']"), parameters=parameters)
    both = [{**ENTRY, "figure": f"f{n}", "makes": [f"f{n}"], "profiles": {"study": {"n": n, "name": f"f{n}"}}} for n in (1, 2)]
    write_manifest(notebooks, *both)


@pytest.mark.slow
def test_results_of_the_study_are_archived_and_its_figures_drawn_from_them_without_a_run(study):
    plan_and_run("f1", profile="study")
    first = Path("figures/study/f1.csv").read_text()
    shutil.rmtree("build")
    finished = regenerate(plan(profile="study", again=True), from_results=True)
    assert [run.entry.figure for run in finished] == ["f1"]  # nothing is stored of the other
    numbers = [np.loadtxt(io.StringIO(text), skiprows=1) for text in (first, Path("figures/study/f1.csv").read_text())]
    np.testing.assert_allclose(*numbers, rtol=1e-6)
    assert not Path("build/study/store").exists()


@pytest.mark.slow
def test_archived_trajectories_are_not_run_again(study):
    plan_and_run("f1", profile="study")
    shutil.rmtree("build")
    plan_and_run("f1", profile="study")
    [record] = Store("build/study/store").trajectories().values()
    assert record["finished"]
    assert Store("build/study/store").names("edits") == []


def test_figures_of_other_profiles_are_not_drawn_from_results(notebooks):
    assert error_of(SpecError, regenerate, plan(profile="smoke"), from_results=True) == (
        "figures are drawn from results in the profiles study only."
    )


def test_the_kernel_of_a_notebook_does_not_talk_in_plain_text(notebooks, capfd):
    plan_and_run(profile="smoke")
    assert "encryption" not in capfd.readouterr().err


def test_the_threads_of_a_notebook_sleep_while_they_wait(notebooks, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    write_notebook(notebooks / "fig.ipynb", "import os; assert os.environ['GOMP_SPINCOUNT'] == '10000'", WRITE)
    assert len(plan_and_run(profile="smoke")) == 1
    assert "GOMP_SPINCOUNT" not in os.environ
