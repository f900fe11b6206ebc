"""`workbench app`: the explorer as a web app on this machine, by Voilà."""

import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from workbench.errors import SpecError

NOTEBOOK = Path("notebooks", "00_explorer.ipynb")
TEMPLATES = Path(__file__).parent.parent / "explorer"  # a folder of Jupyter's, with voila/templates in it
DEFAULT_PORT = 8866


def app(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"By default {DEFAULT_PORT}, or another that is free.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    model: Annotated[str, typer.Option(help="The embedded model, a hub id or a folder.")] = "smollm2-135m",
    facts: Annotated[str, typer.Option(help='A file of facts, or "bundled".')] = "bundled",
    exports: Annotated[Path, typer.Option(help="Folder in which exports are made.")] = Path("explorer-exports"),
    theme: Annotated[Literal["light", "dark"], typer.Option(help="Also in the address: ?theme=dark.")] = "light",
) -> None:
    """Open the explorer in a browser. It runs on this machine and is reached from nowhere else; Ctrl-C ends it."""
    from workbench.data.facts import load_facts

    load_facts(facts)  # says now what is wrong with it
    if port is not None:
        _check_free(port)
    source = _notebook()
    parameters = {"model": _there(model), "facts": _there(facts), "exports_dir": str(exports.expanduser().resolve())}
    with tempfile.TemporaryDirectory(prefix="workbench-app-") as folder:
        notebook = _parameterized(source, parameters, Path(folder))
        _serve(notebook, port, browser=browser, theme=theme)


def _serve(notebook: Path, port: int | None, *, browser: bool, theme: str) -> None:
    # read by Voilà and by the kernels it starts
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(TEMPLATES), os.environ.get("JUPYTER_PATH")]))
    from voila.app import Voila

    options = ["--Voila.ip=localhost", f"--port={port or DEFAULT_PORT}", "--template=workbench", f"--theme={theme}"]
    options += [] if port is None else ["--Voila.port_retries=0"]
    options += [] if browser else ["--no-browser"]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the kernels would outlive the server
    try:
        Voila.launch_instance(argv=[str(notebook), *options])
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_free(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SpecError(f"--port {port} is in use; choose another, or leave it out.")


def _notebook() -> Path:
    """The notebook in the present folder, or in the checkout that this package is part of."""
    places = (Path.cwd(), Path(__file__).parents[2])
    for place in places:
        if (place / NOTEBOOK).is_file():
            return place / NOTEBOOK
    raise SpecError(f"there is no {NOTEBOOK} in {' or '.join(map(str, places))}; start the app in a checkout.")


def _there(name: str) -> str:
    """A path that does not hang on the folder the kernel runs in; a name that is no path as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _parameterized(source: Path, parameters: dict[str, str], folder: Path) -> Path:
    """A copy of the notebook with these parameters."""
    from papermill.iorw import load_notebook_node, write_ipynb
    from papermill.parameterize import parameterize_notebook

    notebook = parameterize_notebook(load_notebook_node(str(source)), parameters)
    notebook.metadata["title"] = "Explorer"
    write_ipynb(notebook, str(folder / source.name))
    return folder / source.name
