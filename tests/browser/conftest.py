"""Servers of the explorer, as an app and in JupyterLab, and a folder for screenshots."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "screenshots"
PATIENCE = 90  # seconds


@pytest.fixture(scope="session")
def shots() -> Path:
    """Give the folder of the screenshots."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_answer(process: subprocess.Popen, address: str, log: Path) -> None:
    """Wait until a server answers, with whatever status."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer at {address}: {log.read_text()}")


@pytest.fixture(scope="session")
def serve(shots) -> Iterator[Callable[..., str]]:
    """Give a function that starts a server, waits until it answers, and returns its address."""
    with ExitStack() as stack:

        def start(name: str, command: list[str], folder: Path, *, probe: str) -> str:
            port, log = free_port(), shots / f"{name}.log"
            # one thread each: the browser needs a core, and waiting threads would keep the others busy
            env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            command = [part.replace("PORT", str(port)) for part in command]
            output = stack.enter_context(open(log, "w"))
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
            stack.callback(stop, process)
            address = f"http://localhost:{port}/"
            wait_for_answer(process, address + probe, log)
            return address

        yield start


@pytest.fixture(scope="session")
def app(serve, tmp_path_factory, smollm2) -> str:
    """Give the address of `workbench app`; `smollm2` has fetched the model."""
    cli = [sys.executable, "-c", "from workbench.cli import main; main()"]
    command = [*cli, "app", "--no-browser", "--port", "PORT", "--exports", str(tmp_path_factory.mktemp("exports"))]
    return serve("app", command, ROOT, probe="voila/static/none")  # the page itself would start a kernel


@pytest.fixture(scope="session")
def lab(serve, tmp_path_factory, smollm2) -> str:
    """Give the address of a JupyterLab with the dark theme, in a folder with a copy of the notebook."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / "00_explorer.ipynb", folder)
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text('{"theme": "JupyterLab Dark"}')
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    options = ["--no-browser", "--allow-root", "--ip=localhost", "--port=PORT", "--IdentityProvider.token="]
    options.append(f"--LabApp.user_settings_dir={folder / 'settings'}")
    options.append(f"--LabApp.workspaces_dir={folder / 'workspaces'}")
    return serve("lab", [sys.executable, "-m", "jupyterlab", *options], folder, probe="api") + "lab"
