"""`workbench tune`: find the hyperparameters of a method for a model, and keep them as its preset."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from workbench.commands import command_app
from workbench.commands.files import check_file_option
from workbench.commands.folders import write_option
from workbench.commands.options import DEFAULT_MODEL, Cluster, Device, Dtype, Jobs, StoreUrl, choose_cluster
from workbench.commands.printing import show
from workbench.data.records import BUNDLED
from workbench.editing.presets import TUNABLE, check_tunable, tuned_file, write_tuned
from workbench.errors import SpecError
from workbench.library_logging import quiet_libraries
from workbench.parameters import LARGEST_SEED
from workbench.printable import printable
from workbench.registry import method_row
from workbench.tuning.search import TARGETS, Tuning, tune
from workbench.tuning.spaces import has_preset

_SHOWN = 6  # rows of a stage


def tune_command(
    model: Annotated[str, typer.Argument(help="The embedded model, a hub id or a folder.")] = DEFAULT_MODEL,
    method: Annotated[str, typer.Option(help=f"Editing method: {', '.join(TUNABLE)}.", metavar="NAME")] = "rome",
    facts: Annotated[str, typer.Option(help="Facts to edit: a file, or bundled.")] = BUNDLED,
    n_confirm: Annotated[int, typer.Option(help="Facts that the two best are compared on at the end.", min=1)] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="File of the preset; by default where for_model finds it, for models without a preset."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    store: StoreUrl = None,
    cluster: Cluster = None,
    jobs: Jobs = None,
    device: Device = None,
    dtype: Dtype = "float32",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.", min=0, max=LARGEST_SEED)] = 0,
) -> None:
    """Find the hyperparameters of ROME or MEMIT for a model; a search that was interrupted goes on.

    workbench tune EleutherAI/pythia-160m --method rome --jobs auto
    """
    quiet_libraries()
    cluster = choose_cluster(cluster, jobs)
    path = _path_of(out, method, model, force=force)
    found = tune(
        model,
        method,
        dtype=dtype,
        device=device,
        facts=facts,
        n_confirm=n_confirm,
        store=store,
        cluster=cluster,
        seed=seed,
        after_stage=_show_stage,
    )
    _show_choice(found)
    if path is None:
        show(f"\nfor_model keeps the preset of the package for {printable(model)}; --out FILE writes this one")
        return
    about = {"model": model, "dtype": dtype, "facts": facts, "n_confirm": n_confirm, "seed": seed}
    about |= {name: round(float(found.confirmed[name]), 4) for name in (*TARGETS, "generalization", "kl")}
    preset = _plain(found.hyperparameters)
    write_option("--out", path, lambda: write_tuned(path, method=method, hyperparameters=preset, about=about))
    show(f"\nwrote {path}")


def _path_of(out: Path | None, method: str, model: str, *, force: bool) -> Path | None:
    """Return where to write the preset; None if the package has one and no file is named."""
    check_tunable(method)
    if out is not None:
        check_file_option("--out", out, force=force, error=SpecError)
        return out
    if has_preset(method, model):
        return None
    path = tuned_file(method, model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise SpecError(f"the folder of presets cannot be made ({err}); --out names a file instead.") from err
    if path.exists() and not force:
        raise SpecError(f"{path} exists; --force replaces it.")
    return path


def _show_stage(trials: pd.DataFrame) -> None:
    stage, n_facts = trials.iloc[0][["stage", "n_facts"]]
    show(f"\n{stage}: {len(trials)} candidates, {n_facts} facts")
    varied = [name for name in trials if name in ("merit", *TARGETS) or trials[name].astype(str).nunique() > 1]
    show(trials[varied].head(_SHOWN).round(3).to_string(index=False))


def _show_choice(found: Tuning) -> None:
    settings = " ".join(f"--set {name}={value}" for name, value in _plain(found.hyperparameters).items())
    show(f"\n{method_row(found.method).title}: {settings}")
    for name, least in TARGETS.items():
        value = found.confirmed[name]
        show(f"  {name} {value:.2f}{'' if value >= least else f', below the {least} aimed at'}")


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


app = command_app(tune_command)
