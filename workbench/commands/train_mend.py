"""`workbench train-mend`: train the hypernetworks of MEND for one model, and report how well they edit."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from workbench.commands import command_app
from workbench.commands.files import check_file_option, load_model
from workbench.commands.method_options import layers_from
from workbench.commands.options import DEFAULT_MODEL, Device, Dtype, ModelName
from workbench.commands.printing import bare_table, show
from workbench.data.facts import load_facts
from workbench.data.records import BUNDLED
from workbench.editing.mend.corpus import Splits, split_facts
from workbench.editing.mend.editor import MEND
from workbench.editing.mend.network import (
    MendNetwork,
    facts_trained_on,
    load_network,
    read_metadata,
    save_network,
)
from workbench.editing.mend.training import MendTraining, Trainer
from workbench.errors import EditError
from workbench.evaluation.statistics import summarize
from workbench.experiment.trials import compute_single_updates, score_single_edits
from workbench.lm import LanguageModel
from workbench.parameters import LARGEST_SEED
from workbench.regularize import Unregularized
from workbench.request import EditRequest
from workbench.storage.digests import sha256_of_file

_BATCH_SIZE = 10  # facts of a batch edit in the report
_LIMIT = 100  # facts of each set in the report
_FACTS, _NETWORK, _RUN = "Facts", "Networks", "The run"


def train_mend(
    out: Annotated[Path, typer.Option(help="File to write the trained networks to.", rich_help_panel=_RUN)],
    model: ModelName = DEFAULT_MODEL,
    device: Device = None,
    dtype: Dtype = "float32",
    facts: Annotated[
        list[str] | None, typer.Option(help="Training facts: a file, or bundled. Repeatable.", rich_help_panel=_FACTS)
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Facts to keep out of training; success on them is reported.", rich_help_panel=_FACTS),
    ] = None,
    hold_out: Annotated[
        int, typer.Option(help="Number of test facts, drawn from the first --facts.", min=0, rich_help_panel=_FACTS)
    ] = 100,
    validation: Annotated[
        int, typer.Option(help="Number of facts for early stopping.", min=2, rich_help_panel=_FACTS)
    ] = 40,
    layers: Annotated[
        str | None,
        typer.Option(help="Blocks to edit, such as 27,28,29; by default the last 3.", rich_help_panel=_NETWORK),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the layers of the networks.", rich_help_panel=_NETWORK)
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Trained networks to start from; by default untrained ones.", rich_help_panel=_NETWORK),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(help="Numbers of facts per edit, one drawn per step, such as 1,1,10.", rich_help_panel=_NETWORK),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Largest number of steps.", rich_help_panel=_NETWORK)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the networks.", rich_help_panel=_NETWORK)] = None,
    edit_lr: Annotated[float | None, typer.Option(help="Initial value of every α.", rich_help_panel=_NETWORK)] = None,
    c_edit: Annotated[float | None, typer.Option(help="Weight of the editing loss.", rich_help_panel=_NETWORK)] = None,
    val_interval: Annotated[
        int | None, typer.Option(help="Number of steps between validations.", rich_help_panel=_NETWORK)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Number of validations without a new best before training stops.", rich_help_panel=_NETWORK),
    ] = None,
    checkpoint_interval: Annotated[
        int | None, typer.Option(help="Number of steps between checkpoints.", rich_help_panel=_RUN)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of every random draw.", min=0, max=LARGEST_SEED, rich_help_panel=_RUN)
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.", rich_help_panel=_RUN)
    ] = (False),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.", rich_help_panel=_RUN)] = False,
) -> None:
    """Train the hypernetworks of MEND for a model, and report how well they edit.

    workbench train-mend --out mend.safetensors
    """
    checkpoint = _check_out(out, resume=resume, force=force)
    given: dict[str, Any] = {
        "layers": None if layers is None else layers_from(layers, example="27,28,29"),
        "batch_sizes": None if batch_sizes is None else _sizes_from(batch_sizes),
        "rank": rank,
        "steps": steps,
        "lr": lr,
        "edit_lr": edit_lr,
        "c_edit": c_edit,
        "val_interval": val_interval,
        "patience": patience,
        "checkpoint_interval": checkpoint_interval,
    }
    settings = MendTraining(**{name: value for name, value in given.items() if value is not None}, seed=seed)
    sources = [load_facts(source) for source in facts or [BUNDLED]]
    excluded = [load_facts(source) for source in exclude or []]
    splits = split_facts(sources, hold_out=hold_out, validation=validation, seed=seed, exclude=excluded)
    lm = load_model(model, device=device, dtype=dtype)
    show(
        f"{len(splits.train)} facts for training, {len(splits.validation)} for validation, {len(splits.test)} for "
        f"testing; {splits.n_dropped} left out because they are in another set."
    )
    start = None if start_from is None else _load_start(start_from, lm, splits)
    trainer = Trainer(lm, splits.train, splits.validation, settings, start=start, checkpoint=checkpoint)
    if resume:
        trainer.resume()
    record = trainer.run() | _origin(settings, splits, [source.source for source in sources], dtype)
    record["start"] = None if start_from is None else _start_record(start_from)
    save_network(trainer.network, out, lm, training=record)
    others = {source.source: source.requests for source in excluded}
    success = _success(lm if dtype == "float32" else load_model(model, device=device), out, splits, others)
    save_network(trainer.network, out, lm, training=record | {"success": success.to_dict(orient="records")})
    checkpoint.unlink(missing_ok=True)
    _report(success, record, out)


def _check_out(out: Path, *, resume: bool, force: bool) -> Path:
    """Return the file of the checkpoint; raise `EditError` if the run cannot be started or continued."""
    check_file_option("--out", out, force=True, error=EditError)
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    check_file_option("--out", out, force=force or checkpoint.exists(), error=EditError)
    if checkpoint.exists() and not resume:
        raise EditError(f"{checkpoint} is from an unfinished run; give --resume to continue it, or delete it.")
    if resume and not checkpoint.exists():
        raise EditError(f"--resume continues from {checkpoint}, which does not exist; leave the option out.")
    return checkpoint


def _sizes_from(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as err:
        raise EditError(
            f"--batch-sizes must be numbers with commas between them, such as 1,1,10; got {text!r}."
        ) from err


def _origin(settings: MendTraining, splits: Splits, sources: list[str], dtype: str) -> dict[str, Any]:
    return {
        "settings": asdict(settings),
        "sources": sources,
        "dtype": dtype,
        "facts": {
            name: [request.filled_prompt for request in getattr(splits, name)]
            for name in ("train", "validation", "test")
        },
        "n_train": len(splits.train),
        "n_validation": len(splits.validation),
        "n_test": len(splits.test),
        "n_dropped": splits.n_dropped,
        "command": shlex.join(["workbench", *sys.argv[1:]]),
    }


def _load_start(path: Path, lm: LanguageModel, splits: Splits) -> MendNetwork:
    """Return the networks to start from; raise `EditError` if they were trained on a fact of the test set."""
    seen = facts_trained_on(read_metadata(path))
    if known := [request.filled_prompt for request in splits.test if request.filled_prompt in seen]:
        raise EditError(
            f"{path} was trained on {len(known)} of the {len(splits.test)} test facts, such as {known[0]!r}; repeat "
            "the --facts, --hold-out and --seed of its training."
        )
    return load_network(path, lm)


def _start_record(path: Path) -> dict[str, Any]:
    """Return what made the networks that the training started from."""
    training = read_metadata(path)["training"] or {}
    kept = ("steps", "seconds", "settings", "sources", "dtype", "command", "start")
    return {"sha256": sha256_of_file(path)} | {key: training[key] for key in kept if key in training}


def _success(lm: LanguageModel, out: Path, splits: Splits, others: dict[str, tuple[EditRequest, ...]]) -> pd.DataFrame:
    """Return how well the saved networks edit facts of each set, one by one, and those of the test set in batches."""
    editor = MEND(network=str(out))
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test, **others}
    rows = [
        edit_success(lm, editor, requests[:_LIMIT], label=name, batch_size=1)
        for name, requests in sets.items()
        if requests
    ]
    if len(splits.test) >= _BATCH_SIZE:
        rows.append(edit_success(lm, editor, splits.test[:_LIMIT], label="test", batch_size=_BATCH_SIZE))
    return pd.concat(rows, ignore_index=True)


def edit_success(
    lm: LanguageModel, editor: MEND, requests: Sequence[EditRequest], *, label: str, batch_size: int
) -> pd.DataFrame:
    """Measure reliability, generalization and locality of facts right after their edits of the unedited model.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model; left unchanged.
    editor : MEND
        The editor with the trained networks.
    requests : sequence of EditRequest
        The facts to edit.
    label : str
        Name of the facts in the table.
    batch_size : int
        Number of facts per edit; the last edit may have fewer.

    Returns
    -------
    DataFrame
        Columns facts, batch_size, metric, protocol, value, n, low, high.
    """
    updates = compute_single_updates(lm, editor, requests, batch_size=batch_size)
    scores = score_single_edits(lm, updates, requests, [Unregularized()], batch_size=batch_size)
    return summarize(scores.assign(facts=label, batch_size=batch_size), ["facts", "batch_size", "metric", "protocol"])


def _report(success: pd.DataFrame, record: dict[str, Any], out: Path) -> None:
    table = bare_table("facts", "n, per edit", "reliability", "generalization", "locality")
    table.columns[0].overflow = "fold"
    forced = success[success["protocol"] == "teacher_forced"]
    for (facts, size), part in forced.groupby(["facts", "batch_size"], sort=False):
        by_metric = part.set_index("metric")["value"]
        cells = [f"{by_metric[m]:.2f}" if m in by_metric else "" for m in ("reliability", "generalization", "locality")]
        table.add_row(str(facts), f"{part['n'].max()}, {size}", *cells)
    show(table)
    show(f"teacher forced; {record['steps']} steps in {record['seconds']:.0f} s, the best at {record['best_step']}")
    show(f"Saved to {out} ({out.stat().st_size / 1e6:.1f} MB).")


app = command_app(train_mend)
