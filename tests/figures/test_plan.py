"""A plan checks parameters before any kernel starts, and knows which figures are up to date."""

from pathlib import Path

import papermill
import pytest

from tests.figures.notebooks import ENTRY, WRITE, plan_and_run, write_manifest, write_notebook
from tests.helpers import error_of
from workbench.errors import SpecError
from workbench.figures.plan import plan


@pytest.fixture
def no_second_kernel(monkeypatch):
    """Fail if a second notebook is run."""
    runs, execute = [], papermill.execute_notebook

    def once(*args, **kwargs):
        runs.append(args)
        assert len(runs) == 1
        return execute(*args, **kwargs)

    monkeypatch.setattr(papermill, "execute_notebook", once)


def test_a_figure_that_is_up_to_date_is_not_made_again(notebooks, no_second_kernel):
    assert len(plan_and_run(profile="smoke")) == 1
    [planned] = plan(profile="smoke")
    assert planned.up_to_date
    assert plan_and_run(profile="smoke") == []


def test_a_figure_is_stale_if_anything_it_depends_on_has_changed(stand_in, notebooks, monkeypatch):
    folder = stand_in("fig.csv")

    def stale(**given):
        [planned] = plan(profile="smoke", figures="figures", **given)
        return not planned.up_to_date

    assert stale()
    plan_and_run(profile="smoke", figures="figures")
    assert not stale()
    assert stale(overrides={"n": 2})
    assert stale(again=True)
    (folder / "fig.csv").write_text("touched by hand")
    assert stale()
    (folder / "fig.csv").write_text("new")
    assert not stale()
    monkeypatch.setattr("workbench.figures.records._package_digest", lambda: "other code")
    assert stale()
    monkeypatch.undo()
    monkeypatch.chdir(notebooks.parent)
    write_notebook(notebooks / "fig.ipynb", WRITE, "print('more')")
    assert stale()


def test_a_notebook_that_reads_the_store_is_stale_when_one_before_it_is(stand_in, notebooks):
    reader = {**ENTRY, "figure": "claims", "makes": ["claims"], "reads_store": True}
    write_manifest(notebooks, ENTRY, reader)
    stand_in("fig.csv", "claims.csv")
    plan_and_run(profile="smoke", figures="figures")
    assert [run.up_to_date for run in plan(profile="smoke", figures="figures")] == [True, True]
    write_manifest(notebooks, {**ENTRY, "parameters": {"n": 2}}, reader)
    assert [run.up_to_date for run in plan(profile="smoke", figures="figures")] == [False, False]


def test_the_expected_time_is_that_of_the_manifest_and_then_that_of_the_last_run(stand_in, notebooks):
    write_manifest(notebooks, {**ENTRY, "minutes": {"smoke": 2}})
    stand_in("fig.csv")
    [planned] = plan(profile="smoke", figures="figures")
    assert planned.expected_seconds == 120
    [run] = plan_and_run(profile="smoke", figures="figures")
    [planned] = plan(profile="smoke", figures="figures")
    assert planned.expected_seconds == round(run.seconds, 1)


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail if a notebook is run."""

    def run(*args, **kwargs):
        raise AssertionError("a notebook was run")

    monkeypatch.setattr(papermill, "execute_notebook", run)


@pytest.mark.usefixtures("no_kernel")
class TestBeforeAnyKernelStarts:
    def test_an_unknown_parameter_is_refused(self, notebooks):
        sentence = "fig.ipynb has no parameter 'm'; it has figures_dir, n, name."
        assert error_of(SpecError, plan_and_run, profile="smoke", notebooks=notebooks, overrides={"m": 1}) == sentence
        write_manifest(notebooks, {**ENTRY, "parameters": {"m": 1}})
        assert error_of(SpecError, plan_and_run, profile="smoke", notebooks=notebooks) == sentence

    def test_a_figure_name_that_leads_elsewhere(self, notebooks):
        sentence = (
            "fig.ipynb, name: '../../evil' cannot name a file; give letters, digits and _ - . without folders."
        )
        given = {"profile": "smoke", "notebooks": notebooks, "overrides": {"name": "../../evil"}}
        assert error_of(SpecError, plan_and_run, **given) == sentence

    def test_an_error_in_a_later_entry_stops_the_first_one_too(self, notebooks):
        write_manifest(notebooks, ENTRY, {**ENTRY, "figure": "gone", "makes": ["gone"], "notebook": "gone.ipynb"})
        assert error_of(SpecError, plan_and_run, profile="smoke", notebooks=notebooks) == (
            f"the notebook {notebooks / 'gone.ipynb'} of figure 'gone' does not exist."
        )
        assert not Path("build").exists()
