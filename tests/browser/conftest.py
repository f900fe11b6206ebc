"""Servers of the explorer, as an app and in JupyterLab, and a folder for screenshots."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import CLI, ROOT, serve

SHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="session")
def shots() -> Path:
    """Give the folder of the screenshots."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS


@pytest.fixture(scope="session")
def app(tmp_path_factory, shots, smollm2) -> Iterator[str]:
    """Give the address of the page of `workbench app`; `smollm2` has fetched the model."""
    command = [*CLI, "app", "--no-browser", "--port", "PORT", "--exports", str(tmp_path_factory.mktemp("exports"))]
    with serve(command, ROOT, shots / "app.log") as server:
        yield server.page


@pytest.fixture(scope="session")
def lab(tmp_path_factory, shots, smollm2) -> Iterator[str]:
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
    with serve([sys.executable, "-m", "jupyterlab", *options], folder, shots / "lab.log", probe="api") as server:
        yield server.address + "lab"
