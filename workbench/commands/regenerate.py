"""`workbench regenerate`: figures and tables from the notebooks that make them."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands.printing import show
from workbench.errors import SpecError

_YAML11_MISSES = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")  # 1e-3, which YAML 1.1 reads as text


def regenerate(
    figures: Annotated[list[str] | None, typer.Argument(metavar="[FIGURE]...", help="Which; all by default.")] = None,
    profile: Annotated[str, typer.Option(help="smoke, default or paper.")] = "default",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the notebooks, as YAML. Repeatable."),
    ] = None,
    notebooks: Annotated[Path, typer.Option(help="Folder of the notebooks and figures.yaml.")] = Path("notebooks"),
    folder: Annotated[
        Path | None,
        typer.Option("--figures", help="Where figures go; else figures/, or below --build."),
    ] = None,
    build: Annotated[Path, typer.Option(help="Where executed notebooks go.")] = Path("build"),
    again: Annotated[bool, typer.Option("--again", help="Also what is up to date.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the figures and run nothing.")] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be run, and run nothing.")] = False,
) -> None:
    """Run the notebooks that make the figures named, or all of a profile."""
    from workbench.figures import regenerate as runs

    if list_only:
        _show_list(runs.named(runs.read_list(notebooks), figures or []))
        return
    settings = dict(map(setting_from, overrides or []))
    places = {"notebooks": notebooks, "figures": folder, "build": build}
    planned = runs.plan(figures or [], profile=profile, **places, overrides=settings, again=again)
    _show_plan(planned)
    if plan_only:
        return
    made = runs.regenerate(planned)
    for run in made:
        show(f"{run.entry.figure}: {run.seconds:.0f} s, {run.notebook}")
        for path in run.files:
            show(f"  {path}")
    show(f"{len(made)} figures in {sum(run.seconds for run in made):.0f} s")


def setting_from(text: str, option: str = "--set") -> tuple[str, Any]:
    """Name and value of a ``NAME=VALUE``, the value as YAML: a number, text, true, false, null, a list or a mapping.

    Parameters
    ----------
    text : str
        What stood after the option.
    option : str
        Its name.

    Returns
    -------
    name, value : str, object

    Raises
    ------
    SpecError
        If there is no name, or the value is none of these.
    """
    import yaml

    name, equals, given = text.partition("=")
    if not equals or not name.strip():
        raise SpecError(f"{option} {text!r} must be NAME=VALUE, such as n_facts=5.")
    if _YAML11_MISSES.fullmatch(given.strip()):
        return name.strip(), float(given)
    try:
        value = yaml.safe_load(given)
    except yaml.YAMLError as err:
        raise SpecError(f"{option} {text!r}: the value is not YAML; quote text that holds signs.") from err
    if not isinstance(value, str | int | float | list | dict | None):
        raise SpecError(f"{option} {text!r}: the value must be a number, text, true, false, null, a list or a mapping.")
    return name.strip(), value


def _show_list(entries: list) -> None:
    for entry in entries:
        show(entry.figure, style="bold")
        show(f"  {entry.title}")
        show(f"  profiles: {', '.join(entry.profiles)}")
        show(f"  files: {', '.join(entry.makes)}")


def _show_plan(planned: list) -> None:
    for each in planned:
        show(f"{each.entry.figure:<22}{'up to date' if each.up_to_date else _duration(each.expected)}")
    waiting = [each.expected for each in planned if not each.up_to_date]
    if waiting:
        known = sum(seconds for seconds in waiting if seconds is not None)
        more = " and more" if None in waiting else ""
        show(f"{len(waiting)} of {len(planned)} figures to make, {_duration(known)}{more}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not timed yet"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"
