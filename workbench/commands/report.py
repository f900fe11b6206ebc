"""`workbench report`: write executed notebooks as HTML pages."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.commands import command_app
from workbench.commands.options import Build, FiguresFolder, Notebooks, Profile
from workbench.commands.printing import show
from workbench.report.write import write_report


def report(
    profile: Profile = "default",
    notebooks: Notebooks = Path("notebooks"),
    folder: FiguresFolder = None,
    build: Build = Path("build"),
    out: Annotated[
        Path | None, typer.Option(help="Folder or file to write; by default report or report.html in --build.")
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write one HTML file that holds everything.")
    ] = False,
) -> None:
    """Write the notebooks that `regenerate` has run as HTML pages, which open from disk without a network."""
    made = write_report(
        profile=profile, notebooks=notebooks, figures=folder, build=build, out=out, single_file=single_file
    )
    show(f"{len(made.pages)} figures: {made.path}")
    if made.missing:
        show(f"not run yet and left out: {', '.join(made.missing)}")


app = command_app(report)
