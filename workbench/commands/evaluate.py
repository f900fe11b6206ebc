"""`workbench evaluate`: the abilities, perplexity and drift of a model, without and with saved updates."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pandas as pd
import typer

from workbench.commands import command_app
from workbench.commands.files import (
    SavedUpdate,
    apply_updates,
    check_file_option,
    check_updates_fit,
    load_model,
    load_updates,
    regularizer_of_sum,
    write_table,
)
from workbench.commands.options import (
    DEFAULT_MODEL,
    FILES,
    MODEL,
    Accumulated,
    Device,
    DeviceMap,
    Dtype,
    ModelName,
    Quantize,
)
from workbench.commands.printing import bare_table, show, titled
from workbench.errors import SpecError
from workbench.evaluation.abilities import ask_tasks, summarize_runs
from workbench.evaluation.drift import drift
from workbench.evaluation.harness import evaluate_harness
from workbench.evaluation.perplexity import perplexity
from workbench.evaluation.task_names import check_tasks
from workbench.evaluation.tasks import TASKS
from workbench.evaluation.tasks.task import TaskProtocol
from workbench.lm import LanguageModel
from workbench.parameters import LARGEST_SEED
from workbench.printable import printable

_WHAT = "What is measured"
UNEDITED, EDITED = "unedited", "edited"
NONE = "none"


def evaluate(
    tasks: Annotated[
        str,
        typer.Option(help='Abilities: "all", "none", or names such as nli,sentiment.', rich_help_panel=_WHAT),
    ] = "all",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of examples per task; all by default.", rich_help_panel=_WHAT)
    ] = None,
    protocol: Annotated[
        Literal["standard", "paper"], typer.Option(help="Protocol of prompts and scores.", rich_help_panel=_WHAT)
    ] = "standard",
    data: Annotated[
        str | None,
        typer.Option(
            help='Task data: "bundled", "hub", or a folder of the original files; by default $WORKBENCH_DATA, or '
            '"bundled".',
            rich_help_panel=_WHAT,
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            help='Text for perplexity and drift: "bundled", "articles", a file, or "none".', rich_help_panel=_WHAT
        ),
    ] = "bundled",
    written: Annotated[
        bool,
        typer.Option(
            "--written/--no-written",
            help="Decode written answers; without them, only log-likelihoods and choices are scored.",
            rich_help_panel=_WHAT,
        ),
    ] = True,
    lm_eval: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-evaluation-harness, such as hellaswag,arc_easy.", rich_help_panel=_WHAT),
    ] = None,
    lm_eval_folder: Annotated[
        Path | None, typer.Option(help="Folder of your own task files for the harness.", rich_help_panel=_WHAT)
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the intervals and of lm-eval.", rich_help_panel=_WHAT)
    ] = 0,
    model: ModelName = DEFAULT_MODEL,
    update: Annotated[
        list[Path] | None,
        typer.Option(help="Saved update to apply. Repeatable, applied in order.", rich_help_panel=MODEL),
    ] = None,
    accumulated: Accumulated = None,
    device: Device = None,
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts per forward pass.", rich_help_panel=MODEL)] = 32,
    out: Annotated[Path | None, typer.Option(help="CSV file of the scores.", rich_help_panel=FILES)] = None,
    outputs: Annotated[
        Path | None, typer.Option(help="CSV file of the answer to each example.", rich_help_panel=FILES)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing files of --out and --outputs.", rich_help_panel=FILES)
    ] = False,
) -> None:
    """Measure the abilities of a model; with --update, before and after.

    workbench evaluate --tasks sentiment,closed_qa --limit 50

    workbench evaluate --update eiffel.safetensors --out scores.csv
    """
    chosen = () if tasks == NONE else check_tasks(tasks if tasks == "all" else _parts(tasks))
    for option, path in (("--out", out), ("--outputs", outputs)):
        if path is not None:
            check_file_option(option, path, force=force, error=SpecError)
    if not chosen and text == NONE and lm_eval is None:
        raise SpecError("nothing is to be measured; name --tasks, a --text, or tasks for --lm-eval.")
    of_sum = regularizer_of_sum(accumulated)
    if of_sum is not None and not update:
        raise SpecError("--accumulated is for the sum of updates; name them with --update.")
    updates = load_updates(update or [])
    lm = load_model(model, device=device, dtype=dtype, device_map=device_map, quantize=quantize)
    check_updates_fit(updates, lm)
    asked = {"tasks": chosen, "limit": limit, "protocol": protocol, "data": data, "batch_size": batch_size}
    asked["written"] = written
    measure = partial(_measure, lm, asked, text=text, lm_eval=lm_eval, lm_eval_folder=lm_eval_folder, seed=seed)
    parts = {UNEDITED: measure()}
    if updates:
        with lm.restored_after():
            apply_updates(updates, lm, of_sum)
            parts[EDITED] = measure()
    scores, answers = (_joined({name: part[i] for name, part in parts.items()}) for i in (0, 1))
    _report(lm, updates, scores)
    for path, table in ((out, scores), (outputs, answers)):
        if path is not None:
            write_table(path, table)


def _measure(
    lm: LanguageModel,
    asked: dict[str, Any],
    *,
    text: str,
    lm_eval: str | None,
    lm_eval_folder: Path | None,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of the current model, and its answer to each example."""
    runs = ask_tasks(lm, **asked) if asked["tasks"] else []
    scores = [summarize_runs(runs, seed=seed)] if runs else []
    if text != NONE:
        scores.append(perplexity(lm, text, seed=seed))
        if lm.applied_updates:
            scores.append(drift(lm, text, seed=seed))
    if lm_eval is not None:
        limits = {"limit": asked["limit"], "batch_size": asked["batch_size"]}
        scores.append(evaluate_harness(lm, _parts(lm_eval), **limits, task_folder=lm_eval_folder, seed=seed))
    return pd.concat(scores, ignore_index=True), pd.concat([pd.DataFrame(), *(run.outputs() for run in runs)])


def _parts(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _joined(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table.assign(model=name) for name, table in parts.items()], ignore_index=True)


def _report(lm: LanguageModel, updates: list[SavedUpdate], scores: pd.DataFrame) -> None:
    names = list(dict.fromkeys(scores["model"]))
    files = ", ".join(str(path) for path, _ in updates)
    show(titled(lm.name, f"with {files}" if files else "unedited"))
    table = bare_table("task", "metric", "n", *names)
    places = scores.groupby(["task", "metric", "protocol", "source", "split"], sort=False)
    for (task, metric, protocol, *_), rows in places:
        is_headline = task in TASKS and metric == TASKS[str(task)].headline.get(cast(TaskProtocol, protocol))
        by_model = rows.set_index("model")
        cells = [_cell(by_model.loc[name]) if name in by_model.index else "" for name in names]
        table.add_row(printable(str(task)), printable(str(metric)) + " *" * is_headline, str(rows["n"].iloc[0]), *cells)
    show(table)
    show("  * headline score of the task; intervals are 95 %")
    for line in dict.fromkeys(f"{r.task}: {r.source}, {r.split}; {r.protocol}" for r in scores.itertuples()):
        show(f"  {printable(line)}")


def _cell(row: "pd.Series[Any]") -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


app = command_app(evaluate)
