"""`workbench train-mend`: the hypernetworks that MEND needs, trained for one model, and how well they edit."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands.files import check_file_option, load_model
from workbench.commands.method_options import layers_from
from workbench.commands.printing import bare_table, show, tell
from workbench.errors import EditError

if TYPE_CHECKING:
    from pandas import DataFrame

    from workbench.editing.mend.corpus import Splits
    from workbench.editing.mend.editor import MEND
    from workbench.editing.mend.training import MendTraining
    from workbench.lm import LanguageModel
    from workbench.request import EditRequest

BUNDLED = "bundled"
_AT_ONCE = 10  # facts of a batch edit in the report
_FACTS, _NETWORK, _RUN = "Facts", "Networks", "The run"


def train_mend(
    out: Annotated[Path, typer.Option(help="File of the trained networks.", rich_help_panel=_RUN)],
    model: Annotated[
        str, typer.Option(help="The embedded model, a hub id or a folder.", rich_help_panel=_RUN)
    ] = "smollm2-135m",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.", rich_help_panel=_RUN)] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the weights in training; the report is float32.", rich_help_panel=_RUN)
    ] = "float32",
    facts: Annotated[
        list[str] | None, typer.Option(help="File of facts, or bundled. Repeatable.", rich_help_panel=_FACTS)
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Facts that must not be trained on; success on them is reported.", rich_help_panel=_FACTS),
    ] = None,
    hold_out: Annotated[
        int, typer.Option(help="Test facts, drawn from the first --facts.", min=0, rich_help_panel=_FACTS)
    ] = 100,
    validation: Annotated[int, typer.Option(help="Facts for early stopping.", min=2, rich_help_panel=_FACTS)] = 40,
    layers: Annotated[
        str | None, typer.Option(help="Blocks to edit, such as 27,28,29; else the last 3.", rich_help_panel=_NETWORK)
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the networks' layers.", rich_help_panel=_NETWORK)] = None,
    steps: Annotated[int | None, typer.Option(help="At most.", rich_help_panel=_NETWORK)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the networks.", rich_help_panel=_NETWORK)] = None,
    edit_lr: Annotated[float | None, typer.Option(help="Start of every α.", rich_help_panel=_NETWORK)] = None,
    c_edit: Annotated[float | None, typer.Option(help="Weight of the editing loss.", rich_help_panel=_NETWORK)] = None,
    val_interval: Annotated[
        int | None, typer.Option(help="Steps between validations.", rich_help_panel=_NETWORK)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations without a new best.", rich_help_panel=_NETWORK)
    ] = None,
    checkpoint_interval: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=_RUN)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every draw.", min=0, max=2**32 - 1, rich_help_panel=_RUN)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.", rich_help_panel=_RUN)] = (
        False
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace what --out finds.", rich_help_panel=_RUN)] = False,
) -> None:
    """Train MEND's hypernetworks for a model, and report how well they edit.

    workbench train-mend --out mend.safetensors
    """
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    _check_out(out, checkpoint, resume=resume, force=force)
    tell("importing torch and transformers")
    from workbench.data.facts import load_facts
    from workbench.editing.mend.corpus import split_facts
    from workbench.editing.mend.network import save_network
    from workbench.editing.mend.training import MendTraining, Trainer

    given = {
        "layers": None if layers is None else layers_from(layers, example="27,28,29"),
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
    barred = [load_facts(source) for source in exclude or []]
    splits = split_facts(sources, hold_out=hold_out, validation=validation, seed=seed, exclude=barred)
    lm = load_model(model, device=device, dtype=dtype)
    show(
        f"{len(splits.train)} facts to train on, {len(splits.validation)} to stop by, {len(splits.test)} to test on; "
        f"{splits.n_dropped} left out that are in another set."
    )
    trainer = Trainer(lm, splits.train, splits.validation, settings, checkpoint=checkpoint)
    if resume:
        trainer.resume()
    record = trainer.run() | _origin(settings, splits, [source.source for source in sources], dtype)
    save_network(trainer.network, out, lm, training=record)
    elsewhere = {source.source: source.requests for source in barred}
    success = _success(lm if dtype == "float32" else load_model(model, device=device), out, splits, elsewhere)
    save_network(trainer.network, out, lm, training=record | {"success": success.to_dict(orient="records")})
    checkpoint.unlink(missing_ok=True)
    _report(success, record, out)


def _check_out(out: Path, checkpoint: Path, *, resume: bool, force: bool) -> None:
    check_file_option("--out", out, force=force or checkpoint.exists(), error=EditError)
    if checkpoint.exists() and not resume:
        raise EditError(f"{checkpoint} is of a run that was not finished; give --resume to go on, or delete it.")


def _origin(settings: "MendTraining", splits: "Splits", sources: list[str], dtype: str) -> dict:
    from dataclasses import asdict

    return {
        "settings": asdict(settings),
        "sources": sources,
        "dtype": dtype,
        "n_train": len(splits.train),
        "n_validation": len(splits.validation),
        "n_test": len(splits.test),
        "n_dropped": splits.n_dropped,
        "command": shlex.join(["workbench", *sys.argv[1:]]),
    }


def _success(
    lm: "LanguageModel", out: Path, splits: "Splits", elsewhere: dict[str, tuple["EditRequest", ...]]
) -> "DataFrame":
    """How well the saved networks edit: at most 100 facts of each set, one by one, and the test set in batches."""
    import pandas as pd

    from workbench.editing.mend.editor import MEND

    editor, limit = MEND(network=str(out)), 100
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test, **elsewhere}
    rows = [
        edit_success(lm, editor, requests[:limit], label=name, batch_size=1)
        for name, requests in sets.items()
        if requests
    ]
    if len(splits.test) >= _AT_ONCE:
        rows.append(edit_success(lm, editor, splits.test[:limit], label="test", batch_size=_AT_ONCE))
    return pd.concat(rows, ignore_index=True)


def edit_success(
    lm: "LanguageModel", editor: "MEND", requests: Sequence["EditRequest"], *, label: str, batch_size: int
) -> "DataFrame":
    """Reliability, generalization and locality of facts right after each one's edit, every edit on the unedited model.

    Parameters
    ----------
    lm : LanguageModel
        Unedited, and as it was afterwards.
    editor : MEND
        Makes the edits.
    requests : sequence of EditRequest
        The facts.
    label : str
        What the facts are called in the table.
    batch_size : int
        Facts in one edit; the last may have fewer.

    Returns
    -------
    DataFrame
        Columns facts, batch_size, metric, protocol, value, n, low, high.
    """
    from workbench.evaluation.statistics import summarize
    from workbench.experiment.trials import score_single_edits, single_updates
    from workbench.regularize import Unregularized

    updates = single_updates(lm, editor, requests, batch_size=batch_size)
    scores = score_single_edits(lm, updates, requests, [Unregularized()], batch_size=batch_size)
    return summarize(scores.assign(facts=label, batch_size=batch_size), ["facts", "batch_size", "metric", "protocol"])


def _report(success: "DataFrame", record: dict, out: Path) -> None:
    table = bare_table("facts", "n, an edit", "reliability", "generalization", "locality")
    table.columns[0].overflow = "fold"
    forced = success[success["protocol"] == "teacher_forced"]
    for (facts, size), part in forced.groupby(["facts", "batch_size"], sort=False):
        by_metric = part.set_index("metric")["value"]
        cells = [f"{by_metric[m]:.2f}" if m in by_metric else "" for m in ("reliability", "generalization", "locality")]
        table.add_row(facts, f"{part['n'].max()}, {size}", *cells)
    show(table)
    show(f"teacher forced; {record['steps']} steps in {record['seconds']:.0f} s, the best at {record['best_step']}")
    show(f"Saved to {out} ({out.stat().st_size / 1e6:.1f} MB).")
