"""`workbench run`: run experiments from a YAML file into a store."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.commands import command_app
from workbench.commands.options import Cluster, Device, DeviceMap, Jobs, StoreUrl, choose_cluster
from workbench.commands.printing import show
from workbench.experiment.grids import read_specs
from workbench.experiment.resolved import ResolvedRun, resolve_all
from workbench.experiment.runner import open_store, run_resolved
from workbench.library_logging import quiet_libraries
from workbench.printable import printable


def run(
    spec: Annotated[Path, typer.Argument(help="YAML file: the fields of a spec, and lists to expand under `grid`.")],
    store: StoreUrl = None,
    cluster: Cluster = None,
    jobs: Jobs = None,
    device: Device = None,
    device_map: DeviceMap = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be run, and stop.")] = False,
) -> None:
    """Run experiments; finished trajectories are skipped, and interrupted ones continue.

    workbench run sequential.yaml --jobs auto

    workbench results --store build/store
    """
    quiet_libraries()
    cluster = choose_cluster(cluster, jobs)
    results = open_store(store)
    trajectories = {run.key: run for run in resolve_all(read_specs(spec))}
    _show_plan(trajectories, [trajectory for trajectory in trajectories if results.finished(trajectory)])
    if plan:
        return
    run_resolved(list(trajectories.values()), results, cluster=cluster, device=device, device_map=device_map)
    show(f"done; workbench results --store {results.url} lists them")


def _show_plan(trajectories: dict[str, ResolvedRun], finished: list[str]) -> None:
    show(f"{len(trajectories)} trajectories, {len(finished)} of them finished")
    for trajectory, run in trajectories.items():
        show(f"  {trajectory}  {'finished' if trajectory in finished else 'to run  '}  {printable(str(run.spec))}")


app = command_app(run)
