"""A base install, without any extra, imports the package, edits a fact, regularizes it, measures it and draws it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_environment import FILES, extra_of

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from importlib import import_module

import pandas as pd
from matplotlib.figure import Figure

import workbench as wb
from workbench.plots.files import save_figure
from workbench.plots.overview import kept_share_curves

folder, *modules = sys.argv[1:]
for module in modules:
    import_module(module)
lm = wb.load(folder)
request = wb.EditRequest("The Eiffel Tower", "{} is located in the city of", "Rome", "Paris")
full = wb.FT.for_model(lm).compute_update(lm, [request])
update = wb.RECT(keep=0.4)(full, lm)
before = lm.weight(next(iter(update))).clone()
with update.applied(lm):
    scores = wb.evaluate_edits(lm, [request])
    assert not before.equal(lm.weight(next(iter(update))))
assert before.equal(lm.weight(next(iter(update))))
assert len(scores) and len(wb.weight_change(update, lm))
kept = pd.DataFrame({"keep": [0.4, 1.0], "regularizer": "RECT", "value": [update.norm() / full.norm(), 1.0]})
figure = Figure()
kept_share_curves(kept, figure.subplots())
save_figure(figure, kept, ".", "kept")
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Give the folder of a fresh environment with the base install."""
    folder = tmp_path_factory.mktemp("base")
    source = folder / "source"
    shutil.copytree(ROOT / "workbench", source / "workbench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--quiet", "install", "--no-compile"]
    if index := os.environ.get("TORCH_INDEX"):  # as given to make
        [torch] = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("torch==")]
        subprocess.run([*pip, "--no-deps", "--index-url", index, torch], check=True)
    subprocess.run([*pip, "-c", ROOT / "requirements.lock", source], check=True)
    return folder


def run(base, *command):
    """Run a command of the environment in a folder that holds no checkout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORKBENCH_CACHE": str(base / "cache")}
    return subprocess.run(
        [base / "venv" / "bin" / command[0], *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=base,
        env=environment,
    )


def test_a_base_install_edits_a_fact_and_draws_what_was_kept(base, tiny):
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in FILES if extra_of(path) is None]
    modules = [name.removesuffix("/__init__").replace("/", ".") for name in names if not name.endswith("__main__")]
    assert len(modules) > 80
    done = run(base, "python", "-c", SCRIPT, tiny, *modules)
    assert done.returncode == 0, done.stderr
    assert sorted(path.suffix for path in base.glob("kept.*")) == [".csv", ".png", ".svg"]


def test_the_command_of_a_base_install_edits_a_fact(base, tiny):
    request = ["--subject", "The Louvre", "--prompt", "{} is located in the city of", "--target", "Rome"]
    done = run(base, "workbench", "edit", "--model", tiny, "--method", "ft", *request, "--save", "update.safetensors")
    assert done.returncode == 0, done.stderr
    assert (base / "update.safetensors").is_file()


def test_a_base_install_names_the_extra_that_a_command_needs(base):
    done = run(base, "workbench", "regenerate")
    assert done.returncode == 2
    assert done.stderr == (
        "workbench: papermill is not installed; pip install 'model-editing-workbench[figures]' installs it.\n"
    )


def test_a_base_install_contains_no_package_of_an_extra(base):
    listed = run(base, "python", "-m", "pip", "list", "--format", "freeze").stdout.lower()
    assert "model-editing-workbench==" in listed
    for name in ("jupyterlab", "papermill", "voila", "distributed", "datasets", "peft", "lm_eval", "pytest"):
        assert f"{name}==" not in listed
