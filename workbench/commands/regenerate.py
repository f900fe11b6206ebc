"""`workbench regenerate`: run the notebooks that make the figures and tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands import command_app
from workbench.commands.options import (
    AtOnce,
    Build,
    Cluster,
    FiguresFolder,
    Jobs,
    Notebooks,
    Profile,
    check_at_once,
    choose_cluster,
)
from workbench.commands.printing import show
from workbench.commands.settings import parse_setting
from workbench.experiment.cluster_names import AUTO
from workbench.figures.at_once import count_at_once
from workbench.figures.manifest import Entry, read_manifest, select_entries
from workbench.figures.plan import PlannedRun, plan
from workbench.figures.regenerate import regenerate as run_plan


def regenerate(
    figures: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIGURE]...", help="Figures or files to make; by default all of the profile."),
    ] = None,
    profile: Profile = "default",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Parameter of the notebooks, in YAML. Repeatable."),
    ] = None,
    notebooks: Notebooks = Path("notebooks"),
    folder: FiguresFolder = None,
    build: Build = Path("build"),
    cluster: Cluster = None,
    jobs: Jobs = None,
    at_once: AtOnce = None,
    from_results: Annotated[
        bool, typer.Option("--from-results", help="Draw the study's figures from its committed results; run nothing.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Make figures again that are up to date.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the figures, and stop.")] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be run, and stop.")] = False,
) -> None:
    """Run the notebooks that make the given figures, or all figures of a profile; up-to-date figures are skipped."""
    cluster = choose_cluster(cluster, jobs)
    notebooks_at_once = check_at_once(at_once, cluster)
    if list_only:
        _show_list(select_entries(read_manifest(notebooks), figures or []))
        return
    planned = plan(
        figures or [],
        profile=profile,
        notebooks=notebooks,
        figures=folder,
        build=build,
        overrides=dict(map(parse_setting, overrides or [])),
        again=again or from_results,
    )
    number = _number_at_once(notebooks_at_once, planned)
    _show_plan(planned, number)
    if plan_only:
        return
    finished = run_plan(planned, cluster=cluster, from_results=from_results, at_once=number)
    for run in finished:
        show(f"{run.entry.figure}: {run.seconds:.0f} s, {run.notebook}")
        for path in run.files:
            show(f"  {path}")
    show(f"{len(finished)} figures in {sum(run.seconds for run in finished):.0f} s")


def _show_list(entries: Sequence[Entry]) -> None:
    for entry in entries:
        show(entry.figure, style="bold")
        show(f"  {entry.title}")
        show(f"  profiles: {', '.join(entry.profiles)}")
        show(f"  files: {', '.join(entry.makes)}")


def _number_at_once(asked: str, planned: Sequence[PlannedRun]) -> int:
    """Return how many notebooks run at the same time; no more than there are, as each has a share of the cores."""
    if asked != AUTO:
        return int(asked)
    n_waiting = sum(not run.up_to_date for run in planned)
    return min(n_waiting, count_at_once()) if n_waiting > 1 else 1


def _show_plan(planned: Sequence[PlannedRun], at_once: int) -> None:
    for run in planned:
        show(f"{run.entry.figure:<22}{'up to date' if run.up_to_date else _duration(run.expected_seconds)}")
    waiting = [run.expected_seconds for run in planned if not run.up_to_date]
    if waiting:
        known = sum(seconds for seconds in waiting if seconds is not None)
        more = " and more" if None in waiting else ""
        order = "" if at_once == 1 else f" one after another; {at_once} run at once"
        show(f"{len(waiting)} of {len(planned)} figures to make, {_duration(known)}{more}{order}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not timed yet"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


app = command_app(regenerate)
