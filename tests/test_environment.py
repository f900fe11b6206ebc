"""pyproject.toml declares what is imported; lock file, environment.yml, pre-commit, Makefile and CI agree with it."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import workbench as wb
from workbench.errors import MissingExtraError
from workbench.extras import require_extra
from workbench.versions import DISTRIBUTION, library_versions, workbench_version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_USERS = ["cluster", "embedded", "explorer", "figures", "hub", "lm-eval", "peft"]
APART = ["quantized"]  # left out of the extra all


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(lines):
    """Canonical package name to requirement, without the distribution's own extras."""
    parsed = [Requirement(line) for line in lines]
    found = {canonical(one.name): one for one in parsed if one.name != DISTRIBUTION}
    assert len(found) == sum(one.name != DISTRIBUTION for one in parsed), "a package is listed twice"
    return found


BASE = requirements(PROJECT["dependencies"])
EXTRAS = {extra: requirements(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
DECLARED = [BASE, *EXTRAS.values()]


def pins(file="requirements.lock"):
    """Canonical package name to its pins in the lock file; several where they depend on the platform."""
    found = {}
    for line in (ROOT / file).read_text().splitlines():
        if line and not line.lstrip().startswith(("#", "--hash")):
            pin = Requirement(line.removesuffix(" \\"))
            found.setdefault(canonical(pin.name), []).append(pin)
    return found


def test_the_distribution_has_the_name_that_versions_are_asked_by():
    assert PROJECT["name"] == DISTRIBUTION
    assert workbench_version() == PROJECT["version"]
    assert library_versions("workbench", "numpy")["workbench"] == PROJECT["version"]


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    [paper] = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2401.04700"
    assert len(paper["authors"]) == 7


def test_every_requirement_is_a_range_with_a_lower_limit():
    assert len(BASE) > 10
    for declared in DECLARED:
        for requirement in declared.values():
            assert any(part.operator in (">=", "==") for part in requirement.specifier), requirement


def test_a_package_has_one_range_wherever_it_is_declared():
    ranges = {}
    for declared in DECLARED:
        for name, requirement in declared.items():
            ranges.setdefault(name, set()).add(str(requirement.specifier))
    assert {name: specifiers for name, specifiers in ranges.items() if len(specifiers) > 1} == {}
    assert not any(EXTRAS[extra].keys() & BASE.keys() for extra in EXTRAS)


def test_the_extra_all_is_every_extra_for_users():
    assert sorted(EXTRAS) == sorted([*FOR_USERS, *APART, "all", "dev", "docs"])
    [everything] = PROJECT["optional-dependencies"]["all"]
    assert Requirement(everything).name == DISTRIBUTION
    assert sorted(Requirement(everything).extras) == FOR_USERS


def test_the_lock_pins_every_requirement_within_its_range():
    locked = pins()
    assert len(locked) > 100
    for declared in DECLARED:
        for name, requirement in declared.items():
            if name == "pip":
                continue
            for pin in locked[name]:
                [exact] = pin.specifier
                assert exact.operator == "=="
                assert Version(exact.version) in requirement.specifier, f"{pin} is not in {requirement}"


def test_the_lock_fits_any_build_of_torch():
    [torch] = pins()["torch"]
    assert str(torch) == "torch==2.13.0"
    assert not [name for name in pins() if name.startswith(("nvidia", "cuda", "triton"))]


def test_every_pin_that_setup_installs_but_that_of_torch_has_hashes():
    hashed = pins("requirements.hashes")
    without = {name: pins()[name] for name in ("torch", "torchao")}
    assert {**hashed, **without} == pins()
    assert not without.keys() & hashed.keys()
    entries = re.split(r"\n(?=[a-z])", (ROOT / "requirements.hashes").read_text())[1:]
    assert len(entries) == sum(map(len, hashed.values())) > 100
    for entry in entries:
        first, *hashes = entry.strip().split(" \\\n")
        assert hashes, first
        assert all(re.fullmatch(r" *--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first


def test_every_data_file_of_the_package_is_installed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["workbench"]
    installed = {path for pattern in patterns for path in (ROOT / "workbench").glob(pattern)}
    files = [path for path in (ROOT / "workbench").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert len(files) > 20
    assert [path for path in files if path not in installed] == []


def conda_environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_conda_environment_installs_all_extras_with_the_lock():
    [pip] = [entry["pip"] for entry in conda_environment()["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c requirements.lock", "-e .[all,dev]"]


def test_conda_environment_has_the_oldest_python_that_is_allowed():
    [python] = [entry for entry in conda_environment()["dependencies"] if str(entry).startswith("python=")]
    version = python.removeprefix("python=")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    makefile = (ROOT / "Makefile").read_text()
    assert PROJECT["requires-python"] == f">={version}"
    assert tools["ruff"]["target-version"] == "py" + version.replace(".", "")
    assert tools["mypy"]["python_version"] == version
    assert f"({version.replace('.', ', ')})" in makefile
    assert f"--python-version {version} " in makefile


def test_pre_commit_runs_the_versions_of_the_project():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "nbstripout", "language"}
    for hook in hooks:
        for name, requirement in requirements(hook.get("additional_dependencies", [])).items():
            assert requirement == EXTRAS["dev"][name]


def installs(file):
    """The lines of a file that install something."""
    lines = (ROOT / file).read_text().splitlines()
    return [line.strip() for line in lines if re.search(r"\b(pip3?|apt|apt-get|conda|mamba|npm) install", line)]


def test_ci_installs_a_browser_at_most_and_continues_without():
    [line] = installs(".ci/run")
    assert re.search(r"apt-get install( -\S+)* chromium >/dev/null \|\| true$", line)


def test_make_installs_from_the_lock():
    torch, hashed, everything = installs("Makefile")
    assert torch.endswith("\"$$(grep -o '^torch==[0-9.]*' requirements.lock)\"")
    assert hashed == "$(BIN)/python -m pip install --no-deps --require-hashes -r requirements.hashes"
    assert everything == "$(BIN)/python -m pip install -c requirements.lock -e '.[all,dev]'"


def test_ci_calls_make_test_and_needs_no_hub():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "exec make -k test test-slow"
    assert "export HF_HUB_OFFLINE=1" in lines


def test_make_says_what_is_missing_where_python_is_too_old(tmp_path):
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "requirements.hashes").write_text("")
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
    tests = "test test-fast test-slow test-sizes lint"
    assert listed == f"help setup figures figures-smoke report docs {tests} lock sbom audit explore app clean"


def imported(path, *, at_once=False):
    """What a file imports; with `at_once`, what it imports as soon as it is imported itself."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


FILES = sorted((ROOT / "workbench").rglob("*.py"))
HOMES = packages_distributions()


def packages_of(files, **options):
    """Canonical names of the distributions that files import."""
    assert files
    modules = {name for path in files for name in imported(path, **options)} - set(sys.stdlib_module_names)
    return {home_of(module) for module in modules - {"workbench"}}


def home_of(module):
    """Return the canonical name of the distribution that has a module, which need not be installed."""
    return canonical(HOMES.get(module, [module])[0])


def test_every_package_that_is_imported_is_declared():
    assert len(FILES) > 100
    declared = BASE.keys() | {name for extra in (*FOR_USERS, *APART) for name in EXTRAS[extra]}
    assert packages_of(FILES) - declared == set()


def test_every_package_of_the_base_is_imported():
    # needed by transformers for device_map, and by the models' loading
    assert BASE.keys() - packages_of(FILES) <= {"accelerate"}


# Importing these packages, or this module, needs an extra.
NEEDS_EXTRA = {
    "explorer": "explorer",
    "figures": "figures",
    "report": "figures",
    "commands/regenerate.py": "figures",
    "commands/report.py": "figures",
    "experiment/clusters.py": "cluster",
}


def extra_of(path):
    name = path.relative_to(ROOT / "workbench").as_posix()
    return next((extra for start, extra in NEEDS_EXTRA.items() if name == start or name.startswith(f"{start}/")), None)


@pytest.mark.parametrize("extra", [None, *sorted(set(NEEDS_EXTRA.values()))], ids=str)
def test_importing_needs_no_more_than_the_base_and_one_extra(extra):
    files = [path for path in FILES if extra_of(path) == extra]
    allowed = BASE.keys() | (EXTRAS[extra].keys() if extra else set())
    assert packages_of(files, at_once=True) - allowed == set()


def required_extras():
    """Module and extra of each call of `require_extra`."""
    for path in FILES:
        yield from re.findall(r"require_extra\(\"(\w+)\", \"([\w-]+)\"\)", path.read_text())


def test_a_module_is_asked_for_in_the_extra_that_has_it():
    calls = set(required_extras())
    assert {extra for _, extra in calls} == {*FOR_USERS, *APART}
    for module, extra in calls:
        assert home_of(module) in EXTRAS[extra]


def test_a_missing_extra_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError) as caught:
        require_extra("peft", "peft")
    assert str(caught.value) == "peft is not installed; pip install 'model-editing-workbench[peft]' installs it."


def test_every_public_name_is_where_the_package_says():
    assert sorted(wb.__all__) == sorted(wb._MODULE_OF)
    for name, home in wb._MODULE_OF.items():
        assert getattr(wb, name) is getattr(importlib.import_module(f"workbench.{home}"), name)
        assert name in dir(wb)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wb.nothing  # noqa: B018
