"""`workbench app`: what it hands to Voilà, and what it refuses before."""

import os
import socket
from pathlib import Path

import nbformat
import pytest

from workbench.commands import explorer_app


@pytest.fixture
def served(monkeypatch) -> list:
    """Give what Voilà was started with: options, and the cells of the notebook it was to show."""
    calls = []

    def launch(argv):
        calls.append((argv, nbformat.read(argv[0], 4)))

    monkeypatch.setattr("voila.app.Voila.launch_instance", launch)
    monkeypatch.setenv("JUPYTER_PATH", "/elsewhere")
    return calls


def parameters_of(notebook):
    [cell] = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    found = {}
    exec(cell.source, found)
    return {name: value for name, value in found.items() if name != "__builtins__"}


def test_the_notebook_is_served_on_this_machine_alone_with_what_was_asked_for(cli, served, folder, tiny):
    done = cli("app", "--no-browser", "--model", tiny, "--exports", "out", "--theme", "dark")
    assert (done.code, done.err) == (0, "")
    [(argv, notebook)] = served
    assert {"--Voila.ip=localhost", "--no-browser", "--theme=dark", "--template=workbench"} <= set(argv)
    assert parameters_of(notebook) == {"model": tiny, "facts": "bundled", "exports_dir": str(folder / "out")}
    assert notebook.metadata.title == "Explorer"
    assert not Path(argv[0]).exists()
    own, elsewhere = os.environ["JUPYTER_PATH"].split(os.pathsep)
    assert elsewhere == "/elsewhere"
    assert Path(own, "voila/templates/workbench/index.html.j2").is_file()


def test_a_port_that_was_asked_for_is_that_port_or_none(cli, served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("app", "--port", port)
    assert done.code == 2
    assert done.err == f"workbench: --port {port} is in use; choose another, or leave it out.\n"
    assert served == []
    assert cli("app", "--port", port).code == 0
    assert {f"--port={port}", "--Voila.port_retries=0"} <= set(served[0][0])
    assert "--no-browser" not in served[0][0]


def test_facts_that_cannot_be_read_are_refused_before_a_server_starts(cli, served):
    done = cli("app", "--facts", "nowhere.json")
    assert done.code == 2
    assert (
        done.err
        == "workbench: nowhere.json does not exist; give a file of facts, 'bundled', 'bundled-hard' or 'bundled-all'.\n"
    )
    assert served == []


def test_without_the_notebook_the_places_are_named(cli, served, folder, monkeypatch):
    monkeypatch.setattr(explorer_app, "__file__", str(folder / "a" / "b" / "c.py"))
    done = cli("app")
    assert done.code == 2
    assert done.err.startswith("workbench: there is no notebooks/00_explorer.ipynb in ")
    assert done.err.endswith("; start the app in a checkout.\n")
