"""`workbench report`: HTML of executed notebooks, to share."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.commands.printing import show


def report(
    profile: Annotated[str, typer.Option(help="smoke, default or paper.")] = "default",
    notebooks: Annotated[Path, typer.Option(help="Folder of figures.yaml.")] = Path("notebooks"),
    folder: Annotated[
        Path | None, typer.Option("--figures", help="Where the figures are; else figures/, or below --build.")
    ] = None,
    build: Annotated[Path, typer.Option(help="Where executed notebooks are.")] = Path("build"),
    out: Annotated[Path | None, typer.Option(help="What to write; else report or report.html below --build.")] = None,
    single_file: Annotated[bool, typer.Option("--single-file", help="One HTML file that holds everything.")] = False,
) -> None:
    """Make a folder of HTML of the notebooks that `regenerate` has run; it opens from disk, without a network."""
    from workbench.report.write import write_report

    made = write_report(
        profile=profile, notebooks=notebooks, figures=folder, build=build, out=out, single_file=single_file
    )
    show(f"{len(made.pages)} figures: {made.path}")
    if made.missing:
        show(f"not run yet, and left out: {', '.join(made.missing)}")
