"""`workbench app`: the explorer as a web app on this machine, served by Voilà."""

import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from workbench.commands import command_app
from workbench.commands.options import DEFAULT_MODEL
from workbench.data.facts import load_facts
from workbench.data.records import BUNDLED
from workbench.errors import SpecError
from workbench.extras import require_extra

NOTEBOOK = Path("notebooks", "00_explorer.ipynb")
TEMPLATES = Path(__file__).parent.parent / "explorer"  # searched by Jupyter; holds voila/templates
DEFAULT_PORT = 8866
CULL_AFTER = 600  # seconds: a laptop that sleeps, or a tunnel that breaks, keeps its session


def open_explorer(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help=f"Port of the server; by default {DEFAULT_PORT}, or the next free one."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    model: Annotated[str, typer.Option(help="The embedded model, a hub id or a folder.")] = DEFAULT_MODEL,
    facts: Annotated[str, typer.Option(help='File of facts, "bundled" or "bundled-hard".')] = BUNDLED,
    exports: Annotated[Path, typer.Option(help="Folder of the exports; the page cannot write elsewhere.")] = Path(
        "explorer-exports"
    ),
    theme: Annotated[
        Literal["light", "dark"], typer.Option(help="Theme of the page; ?theme=dark in its address works, too.")
    ] = "light",
    cull_after: Annotated[
        int,
        typer.Option(min=0, help="Seconds after which the model of a page that is gone is dropped; 0 keeps it."),
    ] = CULL_AFTER,
) -> None:
    """Open the explorer in a browser. It runs on this machine and cannot be reached from others; Ctrl-C ends it.

    The address that is printed holds a token, without which the server answers nothing.
    """
    require_extra("voila", "explorer")
    load_facts(facts)  # raises before the server starts
    if port is not None:
        _check_free(port)
    source = _notebook()
    folder_of_exports = str(exports.expanduser().resolve())
    parameters = {"model": _absolute(model), "facts": _absolute(facts), "exports_dir": folder_of_exports}
    _set_for_kernels(folder_of_exports)
    with tempfile.TemporaryDirectory(prefix="workbench-app-") as folder:
        notebook = _parameterized(source, parameters, Path(folder))
        _serve(notebook, port, browser=browser, theme=theme, cull_after=cull_after)


def _set_for_kernels(exports: str) -> None:
    """Set what the kernels inherit: the folder that they may export into, and where the page's template is found."""
    from workbench.explorer.exports_root import EXPORTS_VARIABLE

    os.environ[EXPORTS_VARIABLE] = exports
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(TEMPLATES), os.environ.get("JUPYTER_PATH")]))


def _serve(notebook: Path, port: int | None, *, browser: bool, theme: str, cull_after: int) -> None:
    from workbench.explorer.server import ExplorerServer

    options = [f"--port={port or DEFAULT_PORT}", "--template=workbench", f"--theme={theme}"]
    options += [] if port is None else ["--Voila.port_retries=0"]
    options += [] if browser else ["--no-browser"]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # otherwise the kernels would outlive the server
    try:
        ExplorerServer.launch_instance(argv=[str(notebook), *options], cull_after=cull_after)
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_free(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SpecError(f"--port {port} is in use; choose another, or leave it out.")


def _notebook() -> Path:
    """Return the notebook in the working folder, or in the checkout that this package is part of."""
    places = (Path.cwd(), Path(__file__).parents[2])
    for place in places:
        if (place / NOTEBOOK).is_file():
            return place / NOTEBOOK
    raise SpecError(f"there is no {NOTEBOOK} in {' or '.join(map(str, places))}; start the app in a checkout.")


def _absolute(name: str) -> str:
    """Return an absolute path, which does not depend on the folder of the kernel; a name that is no path unchanged."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _parameterized(source: Path, parameters: dict[str, str], folder: Path) -> Path:
    """Write a copy of the notebook with these parameters."""
    from papermill.iorw import load_notebook_node, write_ipynb
    from papermill.parameterize import parameterize_notebook

    notebook = parameterize_notebook(load_notebook_node(str(source)), parameters)
    notebook.metadata["title"] = "Explorer"
    write_ipynb(notebook, str(folder / source.name))
    return folder / source.name


app = command_app(open_explorer)
