"""figures.yaml says what is made; a slip in it, in a name or in a notebook is one sentence."""

import os
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import yaml

from workbench.figures import regenerate as module
from workbench.errors import RunError, SpecError
from workbench.figures.regenerate import choose, plan, read_list, regenerate

PARAMETERS = """\
n: int = 1  # rows of the table
name: str = "fig"  # stem of the file
figures_dir: str = "."  # where it goes"""
WRITE = """\
import csv
from pathlib import Path
Path(figures_dir).mkdir(parents=True, exist_ok=True)
with open(Path(figures_dir) / f"{name}.csv", "w") as file:
    csv.writer(file).writerows([["i"], *[[i] for i in range(n)]])"""
ENTRY = {"figure": "fig", "title": "A figure", "notebook": "fig.ipynb", "makes": ["fig"], "profiles": {"smoke": {}}}


def write_notebook(path, *cells):
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, *cells)]
    notebook.cells[0].metadata.tags = ["parameters"]
    nbformat.write(notebook, path)


def write_list(folder, *entries):
    (folder / "figures.yaml").write_text(yaml.safe_dump({"figures": list(entries)}))


@pytest.fixture
def notebooks(tmp_path, monkeypatch) -> Path:
    """Give a folder with one notebook that writes one table, and its list; the working folder is beside it."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "fig.ipynb", WRITE)
    write_list(folder, ENTRY)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail where a notebook is run."""

    def run(*args, **kwargs):
        raise AssertionError("a notebook was run")

    monkeypatch.setattr(papermill, "execute_notebook", run)


@pytest.fixture
def stand_in(notebooks, monkeypatch):
    """Give a function that says which files in the figures folder each run writes, in place of a kernel."""
    folder = notebooks.parent / "figures"
    folder.mkdir()

    def writes(*names):
        def run(source, target, **kwargs):
            for name in names:
                (folder / name).write_text("new")

        monkeypatch.setattr(papermill, "execute_notebook", run)
        return folder

    return writes


def make(*names, **given):
    """Plan and run."""
    return regenerate(plan(names, **given))


def error_of(kind, function, *args, **kwargs):
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# running


def test_a_notebook_is_run_with_the_parameters_of_list_profile_and_caller(notebooks, tmp_path):
    profiles = {"smoke": {"n": 2}, "default": {"n": 9}}
    write_list(notebooks, {**ENTRY, "parameters": {"n": 5, "name": "table"}, "makes": ["table"], "profiles": profiles})
    [run] = make(profile="smoke", notebooks="notebooks")
    assert run.files == (Path("build/smoke/figures/table.csv"),)
    assert pd.read_csv(run.files[0])["i"].tolist() == [0, 1]
    assert run.notebook == Path("build/smoke/notebooks/fig-fig.ipynb")
    assert [c.execution_count for c in nbformat.read(run.notebook, 4).cells] == [1, 2, 3]
    assert run.entry.figure == "fig"
    assert run.seconds > 0
    assert sorted(path.name for path in notebooks.iterdir()) == ["fig.ipynb", "figures.yaml"]
    [again] = make("fig", profile="default", notebooks=notebooks, figures="here", overrides={"n": 3})
    assert again.files == (Path("here/table.csv"),)
    assert pd.read_csv("here/table.csv")["i"].tolist() == [0, 1, 2]
    assert again.notebook == Path("build/default/notebooks/fig-fig.ipynb")


def test_a_failing_notebook_is_kept_up_to_the_failing_cell(notebooks):
    write_notebook(notebooks / "fig.ipynb", "print('so far')", "1 / 0", "print('never')")
    kept = Path("build/smoke/notebooks/fig-fig.ipynb")
    assert error_of(RunError, make, profile="smoke", notebooks=notebooks) == (
        "figure 'fig' failed at In [4] of fig.ipynb: ZeroDivisionError: division by zero "
        f"(the notebook as far as it ran: {kept})."
    )
    cells = {cell.source: cell for cell in nbformat.read(kept, 4).cells if cell.cell_type == "code"}
    assert cells["print('so far')"].outputs[0].text == "so far\n"
    assert cells["1 / 0"].outputs[0].ename == "ZeroDivisionError"
    assert cells["print('never')"].outputs == []


def test_a_kernel_that_dies_is_reported_and_the_notebook_kept(notebooks):
    write_notebook(notebooks / "fig.ipynb", "print('so far')", "import os; os._exit(1)")
    kept = Path("build/smoke/notebooks/fig-fig.ipynb")
    assert error_of(RunError, make, profile="smoke", notebooks=notebooks) == (
        f"figure 'fig': the kernel of fig.ipynb died, often for want of memory (the notebook as far as it ran: {kept})."
    )
    assert "so far" in kept.read_text()


def test_a_promised_file_that_is_not_written_is_an_error(stand_in):
    stand_in("other.csv", "fig.png")
    assert error_of(RunError, make, profile="smoke", figures="figures") == (
        "fig.ipynb ran but did not write fig.csv, which figures.yaml says it makes."
    )


def test_an_old_file_does_not_stand_for_one_that_was_not_written(stand_in):
    folder = stand_in("fig.png")
    (folder / "fig.csv").write_text("old")
    assert error_of(RunError, make, profile="smoke", figures="figures") == (
        "fig.ipynb ran but did not write fig.csv, which figures.yaml says it makes."
    )


def test_an_old_picture_beside_a_new_table_is_an_error(stand_in):
    folder = stand_in("fig.csv", "fig.svg")
    (folder / "fig.png").write_text("old")
    assert error_of(RunError, make, profile="smoke", figures="figures") == (
        "fig.ipynb wrote fig.csv but left an old fig.png beside it; delete it if it is no longer made."
    )


def test_a_rewritten_file_counts_as_written_whatever_the_clocks_say(stand_in):
    folder = stand_in("fig.csv", "fig.png")
    (folder / "fig.csv").write_text("new")
    os.utime(folder / "fig.csv", (4e9, 4e9))  # from a machine whose clock is ahead
    [run] = make(profile="smoke", figures="figures")
    assert run.files == (Path("figures/fig.csv"), Path("figures/fig.png"))


# what is up to date


def test_what_has_been_made_is_not_made_again(notebooks, no_second_kernel):
    assert len(make(profile="smoke")) == 1
    [planned] = plan(profile="smoke")
    assert planned.up_to_date
    assert make(profile="smoke") == []


@pytest.fixture
def no_second_kernel(monkeypatch):
    """Fail where a second notebook is run."""
    runs, execute = [], papermill.execute_notebook

    def once(*args, **kwargs):
        runs.append(args)
        assert len(runs) == 1
        return execute(*args, **kwargs)

    monkeypatch.setattr(papermill, "execute_notebook", once)


def test_whatever_a_figure_hangs_on_makes_it_anew(stand_in, notebooks, monkeypatch):
    folder = stand_in("fig.csv")

    def stale(**given):
        [planned] = plan(profile="smoke", figures="figures", **given)
        return not planned.up_to_date

    assert stale()
    make(profile="smoke", figures="figures")
    assert not stale()
    assert stale(overrides={"n": 2})
    assert stale(again=True)
    (folder / "fig.csv").write_text("touched by hand")
    assert stale()
    (folder / "fig.csv").write_text("new")
    assert not stale()
    monkeypatch.setattr("workbench.figures.records._package", lambda: "other code")
    assert stale()
    monkeypatch.undo()
    monkeypatch.chdir(notebooks.parent)
    write_notebook(notebooks / "fig.ipynb", WRITE, "print('more')")
    assert stale()


def test_a_notebook_that_reads_the_store_is_stale_when_one_before_it_is(stand_in, notebooks):
    reader = {**ENTRY, "figure": "claims", "makes": ["claims"], "reads_store": True}
    write_list(notebooks, ENTRY, reader)
    stand_in("fig.csv", "claims.csv")
    make(profile="smoke", figures="figures")
    assert [each.up_to_date for each in plan(profile="smoke", figures="figures")] == [True, True]
    write_list(notebooks, {**ENTRY, "parameters": {"n": 2}}, reader)
    assert [each.up_to_date for each in plan(profile="smoke", figures="figures")] == [False, False]


def test_the_plan_expects_what_the_list_says_and_then_what_the_last_run_took(stand_in, notebooks):
    write_list(notebooks, {**ENTRY, "minutes": {"smoke": 2}})
    stand_in("fig.csv")
    [planned] = plan(profile="smoke", figures="figures")
    assert planned.expected == 120
    [run] = make(profile="smoke", figures="figures")
    [planned] = plan(profile="smoke", figures="figures")
    assert planned.expected == round(run.seconds, 1)


# choosing


def test_what_is_on_request_in_a_profile_is_run_only_if_it_is_named(notebooks):
    both = {"smoke": {}, "default": {}}
    slow = {**ENTRY, "figure": "slow", "makes": ["slow"], "profiles": both, "on_request": ["default"]}
    write_list(notebooks, {**ENTRY, "profiles": both}, slow)
    figures = read_list(notebooks)
    assert [e.figure for e in choose(figures, [], "default")] == ["fig"]
    assert [e.figure for e in choose(figures, ["slow"], "default")] == ["slow"]
    assert [e.figure for e in choose(figures, [], "smoke")] == ["fig", "slow"]


@pytest.fixture
def two(notebooks):
    """Give a list of two entries, of which one is not in the profile smoke."""
    write_list(notebooks, ENTRY, {**ENTRY, "figure": "big", "makes": ["big_a", "big_b"], "profiles": {"paper": {}}})
    return read_list(notebooks)


def test_figures_are_chosen_by_name_or_by_what_they_make_in_the_order_of_the_list(two):
    def chosen(names, profile):
        return [entry.figure for entry in choose(two, names, profile)]

    assert chosen([], "smoke") == ["fig"]
    assert chosen(["big"], "paper") == ["big"]
    assert chosen(["big_b", "big_a", "big"], "paper") == ["big"]
    assert chosen([], "default") == []
    assert [entry.figure for entry in module.named(two, ["big_b", "fig"])] == ["fig", "big"]


def test_an_unknown_figure_is_named_with_the_known_ones(two):
    assert error_of(SpecError, choose, two, ["fig", "figure9"], "smoke") == (
        "figure 'figure9' is not known; known: fig, big."
    )


def test_an_unknown_profile_is_named_with_the_known_ones(two):
    assert error_of(SpecError, choose, two, [], "huge") == (
        "profile 'huge' is not known; known: smoke, default, paper."
    )


def test_a_figure_that_the_profile_leaves_out_is_named_with_its_profiles(two):
    assert error_of(SpecError, choose, two, ["big"], "smoke") == (
        "figure 'big' is not made in the profile 'smoke', only in paper."
    )


# before any kernel starts


@pytest.mark.usefixtures("no_kernel")
class TestBeforeAnyKernelStarts:
    def test_an_unknown_parameter_is_refused(self, notebooks):
        sentence = "fig.ipynb has no parameter 'm'; it has figures_dir, n, name."
        assert error_of(SpecError, make, profile="smoke", notebooks=notebooks, overrides={"m": 1}) == sentence
        write_list(notebooks, {**ENTRY, "parameters": {"m": 1}})
        assert error_of(SpecError, make, profile="smoke", notebooks=notebooks) == sentence

    def test_a_slip_in_a_later_entry_stops_the_first_one_too(self, notebooks):
        write_list(notebooks, ENTRY, {**ENTRY, "figure": "gone", "makes": ["gone"], "notebook": "gone.ipynb"})
        assert error_of(SpecError, make, profile="smoke", notebooks=notebooks) == (
            f"the notebook {notebooks / 'gone.ipynb'} of figure 'gone' does not exist."
        )
        assert not Path("build").exists()


# the list


def test_a_missing_list_is_named(tmp_path):
    assert error_of(SpecError, read_list, tmp_path) == (
        f"{tmp_path / 'figures.yaml'} cannot be read (No such file or directory); "
        "run in the project's folder, or name it."
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("figures: [", " is not YAML: "),
        ("", ", top: Input should be a valid dictionary or instance of FigureList; the README shows an entry."),
        ("figures: 7", ", figures: Input should be a valid tuple; the README shows an entry."),
        ("{}", ", figures: Field required; the README shows an entry."),
        (
            "figures: [{figure: a, title: A, notebook: a.ipynb, profiles: {}}]",
            ", figures.0.makes: Field required; the README shows an entry.",
        ),
        (
            "figures: [{figure: a, title: A, notebook: a.ipynb, makes: [a], profiles: {}, maks: []}]",
            ", figures.0.maks: Extra inputs are not permitted; the README shows an entry.",
        ),
        (
            "figures: [{figure: a, title: A, notebook: a.ipynb, makes: [a], profiles: {tiny: {}}}]",
            ", figures.0.profiles.tiny.[key]: Input should be 'smoke', 'default' or 'paper'; the README shows an ",
        ),
        (
            "figures:\n- &a {figure: a, title: A, notebook: a.ipynb, makes: [a], profiles: {}}\n- *a",
            ": the figure 'a' is listed twice; give each entry its own name.",
        ),
        (
            "figures:\n- {figure: a, title: A, notebook: a.ipynb, makes: [f], profiles: {}}\n"
            "- {figure: b, title: B, notebook: b.ipynb, makes: [f], profiles: {}}",
            ": the file 'f' is made twice; give each its own name.",
        ),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_the_place(tmp_path, text, sentence):
    (tmp_path / "figures.yaml").write_text(text)
    found = error_of(SpecError, read_list, tmp_path)
    assert found.startswith(f"{tmp_path / 'figures.yaml'}{sentence}")
    assert found.endswith(".")
    assert len(found.splitlines()) == 1
