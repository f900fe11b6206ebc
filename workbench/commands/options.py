"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.errors import SpecError
from workbench.experiment.cluster_names import AUTO, check_cluster, is_count
from workbench.registry import regularizers

FACT, METHOD, MODEL, FILES = "The fact", "Method and regularizer", "Model", "Files"
DEFAULT_MODEL = "smollm2-135m"

ModelName = Annotated[str, typer.Option(help="The embedded model, a hub id or a folder.", rich_help_panel=MODEL)]
Device = Annotated[str | None, typer.Option(help="Device of the model, such as cpu or cuda:1.", rich_help_panel=MODEL)]
Dtype = Annotated[str, typer.Option(help="Dtype of the weights.", rich_help_panel=MODEL)]
DeviceMap = Annotated[
    str | None, typer.Option(help='"auto" spreads a large model over several GPUs.', rich_help_panel=MODEL)
]
Quantize = Annotated[
    str | None, typer.Option(help="int8 or nf4: the matrices of the blocks in 8 or 4 bits.", rich_help_panel=MODEL)
]
StoreUrl = Annotated[
    str | None,
    typer.Option(help="Folder or fsspec URL of the results; by default $WORKBENCH_STORE, or build/store."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Dask cluster of the experiments: local, local:N, local:auto, tcp://scheduler:8786, or a scheduler file. "
        "Dask asks for no password: whoever reaches a scheduler or worker can run code there."
    ),
]
Jobs = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Trajectories to run at a time, each in a process with a model of its own and a share of the cores; auto: "
        "one per GPU or, without GPUs, one per core and 4 GiB of memory. The same as --cluster local:N.",
    ),
]
AtOnce = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Notebooks to run at the same time, each in a process with a share of the cores; auto: one per core and "
        "4 GiB of memory, or one if there is a GPU.",
    ),
]
Accumulated = Annotated[
    str | None,
    typer.Option(
        help=f"Regularizer of the sum of all updates, such as prune: {', '.join(regularizers())}.",
        metavar="NAME",
        rich_help_panel=METHOD,
    ),
]
Profile = Annotated[str, typer.Option(help="Profile of the figures: smoke, default, study or paper.")]
Notebooks = Annotated[Path, typer.Option(help="Folder of the notebooks and figures.yaml.")]
FiguresFolder = Annotated[
    Path | None,
    typer.Option("--figures", help="Folder of the figures; by default figures/PROFILE, or a folder in --build."),
]
Build = Annotated[Path, typer.Option(help="Folder of the executed notebooks.")]


def choose_cluster(cluster: str | None, jobs: str | None) -> str | None:
    """Return the cluster that --cluster or --jobs names; raise `SpecError` if both do, or one is malformed."""
    if jobs is None:
        if cluster is not None:
            check_cluster(cluster)
        return cluster
    if cluster is not None:
        raise SpecError("give --jobs or --cluster, not both: --jobs N is --cluster local:N.")
    return f"local:{_check_count('--jobs', jobs)}"


def check_at_once(at_once: str | None, cluster: str | None) -> str:
    """Return the value of --at-once, by default 1; raise `SpecError` if it is malformed, or there is a cluster, too."""
    if at_once is None:
        return "1"
    if cluster is not None:
        raise SpecError(
            "give --at-once, or --jobs or --cluster, not both: either notebooks or trajectories share the cores."
        )
    return _check_count("--at-once", at_once)


def _check_count(option: str, number: str) -> str:
    if number != AUTO and not is_count(number):
        raise SpecError(f"{option} must be auto or a whole number of at least 1; got {number!r}.")
    return number
