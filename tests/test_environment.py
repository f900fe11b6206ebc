"""pyproject.toml says which packages are needed; environment.yml, pre-commit, Makefile and CI agree with it."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml

import workbench as wb

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = re.compile(r"[A-Za-z0-9_.-]+")
# Imported by name, and always there with the package that needs them.
BROUGHT_BY = {
    **{"rich": "typer", "huggingface-hub": "transformers", "pillow": "matplotlib", "ipython": "ipywidgets"},
    **dict.fromkeys(["beautifulsoup4", "bleach", "jinja2", "markupsafe", "nbformat", "traitlets"], "nbconvert"),
}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(lines):
    """Package name to version specifier."""
    found = {}
    for line in lines:
        name = NAME.match(line).group()
        assert canonical(name) not in found, f"{name} is listed twice"
        found[canonical(name)] = line[len(name) :].replace(" ", "")
    return found


DEPENDENCIES = requirements(PROJECT["dependencies"])
DEV = requirements(PROJECT["optional-dependencies"]["dev"])
OPTIONAL = {extra: requirements(lines) for extra, lines in PROJECT["optional-dependencies"].items() if extra != "dev"}


def test_every_requirement_has_a_version():
    assert len(DEPENDENCIES) > 10
    assert all(re.search(r"[=>]=\d", specifier) for specifier in (DEPENDENCIES | DEV).values())


def test_every_extra_is_tested():
    assert [*OPTIONAL] == ["lm-eval"]
    assert all(needed.items() <= DEV.items() for needed in OPTIONAL.values())


def test_conda_environment_has_the_same_packages_and_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip[-1] == "-e ."
    assert requirements(pip[:-1]) == DEPENDENCIES | DEV


def test_conda_environment_has_the_oldest_python_that_is_allowed():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [python] = [entry for entry in environment["dependencies"] if str(entry).startswith("python=")]
    assert PROJECT["requires-python"] == f">={python.removeprefix('python=')}"
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["target-version"] == "py" + python.removeprefix("python=").replace(".", "")
    major, minor = python.removeprefix("python=").split(".")
    assert f"({major}, {minor})" in (ROOT / "Makefile").read_text()


def test_pre_commit_runs_the_versions_of_the_project():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "nbstripout"}
    for hook in hooks:
        [(name, specifier)] = requirements(hook["additional_dependencies"]).items()
        assert specifier == DEV[name]


def installs(file):
    """The lines of a file that install something."""
    lines = (ROOT / file).read_text().splitlines()
    return [line.strip() for line in lines if re.search(r"\b(pip3?|apt|apt-get|conda|mamba|npm) install", line)]


def test_ci_installs_a_browser_at_most_and_goes_on_without():
    [line] = installs(".ci/run")
    assert re.search(r"apt-get install( -\S+)* chromium >/dev/null \|\| true$", line)


def test_make_names_no_package_of_its_own():
    lines = installs("Makefile")
    assert len(lines) == 2
    for line in lines:
        assert line.endswith("-e '.[dev]'") or line.endswith("\"$$(grep -o 'torch==[0-9.]*' pyproject.toml)\"")
    assert DEPENDENCIES["torch"].startswith("==")


def test_ci_calls_make_test_and_needs_no_hub():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "exec make test"
    assert "export HF_HUB_OFFLINE=1" in lines


def test_make_says_what_is_missing_where_python_is_too_old(tmp_path):
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("")
    done = subprocess.run(
        ["make", "--file", ROOT / "Makefile", "setup", f"PYTHON={tmp_path / 'old'}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        f"{tmp_path / 'old'} is not Python 3.11 or newer; name one that is: make PYTHON=/path/to/python3"
    )
    assert not (tmp_path / ".venv").exists()


def test_make_without_a_target_lists_the_targets():
    done = subprocess.run(["make", "--no-print-directory"], capture_output=True, text=True, check=True, cwd=ROOT)
    listed = " ".join(line.split()[0] for line in done.stdout.splitlines())
    assert listed == "help setup figures figures-smoke report test test-fast lint explore app clean"


def imported(path, *, at_once=False):
    """What a file imports; with `at_once`, what it imports as soon as it is imported itself."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_every_package_that_is_imported_is_required():
    files = [*(ROOT / "workbench").rglob("*.py")]
    assert len(files) > 20
    modules = {name for path in files for name in imported(path)} - set(sys.stdlib_module_names) - {"workbench"}
    homes = packages_distributions()
    needed = {canonical(homes[module][0]) for module in modules}
    optional = {name for extra in OPTIONAL.values() for name in extra}
    assert needed - DEPENDENCIES.keys() <= BROUGHT_BY.keys() | optional
    at_once = {name for path in files for name in imported(path, at_once=True)} & modules
    assert not optional & {canonical(homes[module][0]) for module in at_once}
    for name, bringer in BROUGHT_BY.items():
        always = [line for line in requires(bringer) if "extra ==" not in line]
        assert name in requirements(re.split(r"[ ;]", line)[0] for line in always)


def test_every_public_name_is_where_the_package_says():
    assert sorted(wb.__all__) == sorted(wb._HOME_OF)
    for name, home in wb._HOME_OF.items():
        assert getattr(wb, name) is getattr(importlib.import_module(f"workbench.{home}"), name)
        assert name in dir(wb)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wb.nothing  # noqa: B018
