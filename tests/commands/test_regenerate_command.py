"""`workbench regenerate`: what it lists and refuses."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def notebooks(folder) -> Path:
    """Give a folder with a list of one figure and its notebook, which is not to be run."""
    path = folder / "notebooks"
    path.mkdir()
    path.joinpath("figures.yaml").write_text(
        "figures:\n- {figure: fig, title: A figure, notebook: fig.ipynb, makes: [fig_a, fig_b], profiles: {smoke: {}}}"
    )
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": 'n: int = 1\nfigures_dir: str = "."'}
    cell |= {"outputs": [], "execution_count": None, "id": "parameters"}
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    path.joinpath("fig.ipynb").write_text(
        json.dumps({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )
    return path


VALUES = "a number, text, true, false, null, a list or a mapping"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("figure9",), "figure 'figure9' is not known; known: fig."),
        (("figure9", "--list"), "figure 'figure9' is not known; known: fig."),
        (("--profile", "tiny"), "profile 'tiny' is not known; known: smoke, default, study, paper."),
        (("fig",), "figure 'fig' is not made in the profile 'default', only in smoke."),
        (("--profile", "smoke", "--set", "m=2"), "fig.ipynb has no parameter 'm'; it has figures_dir, n."),
        (("--set", "n"), "--set 'n' must be NAME=VALUE, such as n_facts=5."),
        (("--set", "=1"), "--set '=1' must be NAME=VALUE, such as n_facts=5."),
        (("--set", "n=[1"), "--set 'n=[1': the value is not YAML; quote text that holds signs."),
        (("--set", "n=2026-01-01"), f"--set 'n=2026-01-01': the value must be {VALUES}."),
        (
            ("--notebooks", "none"),
            "none/figures.yaml cannot be read (No such file or directory); run in the project's folder, or name it.",
        ),
    ],
)
def test_a_figure_that_cannot_be_made_is_refused(refused, notebooks, args, sentence):
    assert refused("regenerate", *args) == sentence


def test_figures_are_listed_with_profiles_and_files(cli, notebooks):
    assert cli("regenerate", "--list").out == "fig\n  A figure\n  profiles: smoke\n  files: fig_a, fig_b\n"


@pytest.mark.parametrize(
    ("figures", "order"), [(1, ""), (2, " one after another; 2 run at once"), (3, " one after another; 2 run at once")]
)
def test_no_more_notebooks_run_at_once_than_there_are(cli, notebooks, monkeypatch, figures, order):
    """So that a single one has all cores."""
    path = notebooks / "figures.yaml"
    entry = path.read_text().split("\n")[1]
    names = ("fig", "second", "third")[:figures]
    path.write_text(
        "\n".join(["figures:", *(entry.replace("fig,", f"{name},").replace("fig_", f"{name}_") for name in names)])
    )
    monkeypatch.setattr("workbench.commands.regenerate.count_at_once", lambda: 2)
    done = cli("regenerate", "--profile", "smoke", "--at-once", "auto", "--plan")
    assert done.out.endswith(f"\n{figures} of {figures} figures to make, about 0 s and more{order}\n")
