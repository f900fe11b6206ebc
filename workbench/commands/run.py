"""`workbench run`: experiments from a YAML file, into a store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands.printing import quiet_libraries, show, shown, tell
from workbench.experiment.store_location import default_store

if TYPE_CHECKING:
    from workbench.experiment.spec import ExperimentSpec


def run(
    spec: Annotated[Path, typer.Argument(help="YAML: the fields of a spec; lists to expand under `grid`.")],
    store: Annotated[
        str | None,
        typer.Option(help="Folder or fsspec URL of the results; $WORKBENCH_STORE, or build/store, if not given."),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="local, local:N, tcp://scheduler:8786, or a scheduler file.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; without --cluster.")] = None,
    device_map: Annotated[str | None, typer.Option(help='"auto" spreads a large model over GPUs.')] = None,
    plan: Annotated[bool, typer.Option("--plan", help="List what would be run, and run nothing.")] = False,
) -> None:
    """Run experiments, or what is left of them.

    workbench run sequential.yaml --cluster local:2

    workbench results --store build/store
    """
    tell("importing torch and transformers")
    from workbench.experiment.cache_keys import unit_key
    from workbench.experiment.runner import run as run_specs
    from workbench.experiment.spec import read_specs
    from workbench.experiment.store import Store

    quiet_libraries()
    results = Store(store or default_store())
    units = {unit_key(each): each for each in read_specs(spec)}
    _show_plan(units, [unit for unit in units if results.finished(unit)])
    if plan:
        return
    run_specs(list(units.values()), store=results, cluster=cluster, device=device, device_map=device_map)
    show(f"done; workbench results --store {results.url} lists them")


def _show_plan(units: "dict[str, ExperimentSpec]", finished: list[str]) -> None:
    show(f"{len(units)} trajectories, {len(finished)} of them finished")
    for unit, spec in units.items():
        show(f"  {unit}  {'finished' if unit in finished else 'to run  '}  {shown(str(spec))}")
