"""`workbench app`: what it hands to Voilà, and what it refuses before."""

import json
import os
import socket
from pathlib import Path
from queue import Queue
from urllib.parse import urlsplit
from urllib.request import url2pathname

import nbformat
import pytest

from workbench.commands import explorer_app
from workbench.explorer.server import ExplorerServer


@pytest.fixture
def served(monkeypatch) -> list:
    """Give what Voilà was started with: options, and the cells of the notebook it was to show."""
    calls = []

    def launch(argv, cull_after):
        calls.append(([*argv, cull_after], nbformat.read(argv[0], 4)))

    monkeypatch.setattr("workbench.explorer.server.ExplorerServer.launch_instance", launch)
    monkeypatch.setenv("JUPYTER_PATH", "/elsewhere")
    monkeypatch.setenv("WORKBENCH_EXPORTS", "/elsewhere")
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
    assert {"--no-browser", "--theme=dark", "--template=workbench"} <= set(argv)
    assert argv[-1] == 600
    assert parameters_of(notebook) == {"model": tiny, "facts": "bundled", "exports_dir": str(folder / "out")}
    assert notebook.metadata.title == "Explorer"
    assert not Path(argv[0]).exists()
    own, elsewhere = os.environ["JUPYTER_PATH"].split(os.pathsep)
    assert elsewhere == "/elsewhere"
    assert Path(own, "voila/templates/workbench/index.html.j2").is_file()
    assert os.environ["WORKBENCH_EXPORTS"] == str(folder / "out")


def test_the_server_listens_on_this_machine_and_makes_its_token_whatever_files_of_voila_say(folder, monkeypatch):
    (folder / "voila.json").write_text(json.dumps({"Voila": {"ip": "0.0.0.0", "token": "", "auto_token": False}}))
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    servers = [ExplorerServer(cull_after=60) for _ in range(2)]
    for server in servers:
        server.initialize([])
        server.init_settings()
    assert [server.ip for server in servers] == ["127.0.0.1"] * 2
    first, second = (server.identity_provider.token for server in servers)
    assert len(first) == len(second) == 48
    assert first != second


def test_the_browser_is_led_to_the_token_by_a_file_not_by_a_command_line_that_others_can_read(tmp_path, monkeypatch):
    opened = Queue()
    monkeypatch.setattr("webbrowser.open", lambda address, new: opened.put(address) or True)
    server = ExplorerServer(cull_after=60, connection_dir=str(tmp_path))
    server.initialize([])
    server.init_settings()
    server.launch_browser()
    address = opened.get(timeout=10)
    assert address.startswith("file:")
    assert server.identity_provider.token not in address
    token = server.identity_provider.token
    assert f"url=http://127.0.0.1:8866/?token={token}" in Path(url2pathname(urlsplit(address).path)).read_text()


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
