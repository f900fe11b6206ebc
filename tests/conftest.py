"""Fixtures that many tests share: tiny models of every family, the embedded model, an empty cache, the CLI."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported; no test may reach the hub

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import workbench as wb
from tests.tiny_models import MODEL_TYPES, build_tiny_lm, save_tiny_lm
from workbench import embedded
from workbench.cli import main

torch.set_num_threads(1)  # on tiny tensors and busy cores, threads wait for one another much longer than they compute

if _SHARERS := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # the kernels of notebooks share the cores too
    os.environ["OMP_NUM_THREADS"] = str(min(4, max(1, (os.cpu_count() or 1) // _SHARERS)))

_LONGEST = ("test_notebooks_run.py", "test_explorer_in_a_browser.py")


def pytest_collection_modifyitems(items):
    """Put the longest modules first, so that no process starts one of them last."""
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


@pytest.fixture(params=["gpt2", "llama"])
def tiny_lm(request) -> wb.LanguageModel:
    """Give a fresh tiny model: one whose weights lie (d_in, d_out), one whose weights lie (d_out, d_in)."""
    return build_tiny_lm(request.param)


@pytest.fixture(scope="session", params=MODEL_TYPES)
def every_tiny_lm(request) -> wb.LanguageModel:
    """Give a tiny model of each supported family; shared, so a test undoes what it applies."""
    return build_tiny_lm(request.param)


@pytest.fixture(scope="session")
def smollm2() -> wb.LanguageModel:
    """Give the embedded model; shared, so a test undoes what it applies."""
    return wb.load("smollm2-135m")


@pytest.fixture(scope="session")
def gemma() -> wb.LanguageModel:
    """Give the second embedded model, which no test downloads; shared, so a test undoes what it applies."""
    if not embedded.model_dir("gemma3-270m").is_dir():
        pytest.skip("gemma3-270m is not in the cache; `workbench models fetch gemma3-270m` gets it")
    return wb.load("gemma3-270m")


@pytest.fixture(scope="module")
def browser():
    """Give a headless Chromium, closed after each module; skip where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no Chromium: none of {', '.join(names)} is installed")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """Give an empty cache folder, which this test uses."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class CliResult(NamedTuple):
    """Exit code and output of a run of the command line."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    """Leave no level and no handler of the logger to the next test."""
    log = logging.getLogger("workbench")
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)  # which also forgets what the old one let pass


@pytest.fixture
def cli(capsys, monkeypatch) -> Callable[..., CliResult]:
    """Give a function that runs the command line in this process."""

    def run(*args) -> CliResult:
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return CliResult(caught.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Give an empty working folder."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def refused(cli, folder, tmp_path):
    """Give a function that checks exit code 2 and no trace of anything, and gives the sentence on stderr."""

    def content():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"}

    def run(*args) -> str:
        before = content()
        result = cli(*args)
        assert (result.code, result.out) == (2, "")
        assert content() == before
        assert result.err.startswith("workbench: ")
        assert result.err.endswith(".\n")
        assert len(result.err.splitlines()) == 1
        return result.err.removeprefix("workbench: ").rstrip("\n")

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """Give the folder of a tiny Llama; read-only."""
    return save_tiny_lm(build_tiny_lm("llama"), tmp_path_factory.mktemp("models") / "tiny")


class SmallDisk(NamedTuple):
    """A disk of one megabyte that a test fills and frees."""

    path: Path

    def fill(self, *, leave: int = 0) -> None:
        """Fill it up to that many bytes."""
        self.free()
        with open(self.path / "filler", "wb", buffering=0) as filler:
            stat = os.statvfs(self.path)
            filler.write(b"x" * max(0, stat.f_bavail * stat.f_frsize - leave))

    def free(self) -> None:
        """Give the space back."""
        (self.path / "filler").unlink(missing_ok=True)

    def make_read_only(self) -> None:
        """Refuse all writing from now on."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[SmallDisk]:
    """Give a file system of one megabyte; skip where none can be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here; root can on Linux")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)
