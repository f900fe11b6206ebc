"""`workbench evaluate`: the eight abilities and perplexity of a model, and what saved updates do to them."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from workbench.commands.files import check_file_option, check_updates_fit, load_model, load_updates
from workbench.commands.folders import show_saved
from workbench.commands.printing import bare_table, show, shown, tell, titled
from workbench.errors import SpecError
from workbench.evaluation.task_names import check_tasks

if TYPE_CHECKING:
    import pandas as pd

    from workbench.commands.files import SavedUpdate
    from workbench.lm import LanguageModel

_WHAT, _MODEL, _FILES = "What is measured", "Model", "Files"
UNEDITED, EDITED = "unedited", "edited"
NONE = "none"


def evaluate(
    tasks: Annotated[
        str, typer.Option(help='"all", "none", or names with commas: nli,sentiment.', rich_help_panel=_WHAT)
    ] = "all",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Examples of each task; all if not given.", rich_help_panel=_WHAT)
    ] = None,
    protocol: Annotated[
        Literal["standard", "paper"], typer.Option(help="Prompts and scores.", rich_help_panel=_WHAT)
    ] = "standard",
    data: Annotated[
        str | None,
        typer.Option(
            help='"bundled", "hub", or a folder of the original files; $WORKBENCH_DATA, or bundled, if not given.',
            rich_help_panel=_WHAT,
        ),
    ] = None,
    text: Annotated[
        str, typer.Option(help='For perplexity: "bundled", a file, or "none".', rich_help_panel=_WHAT)
    ] = "bundled",
    lm_eval: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-evaluation-harness, with commas: hellaswag,arc_easy.", rich_help_panel=_WHAT),
    ] = None,
    lm_eval_folder: Annotated[
        Path | None, typer.Option(help="Folder of the harness's YAML files of your own.", rich_help_panel=_WHAT)
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the intervals, and of lm-eval.", rich_help_panel=_WHAT)
    ] = 0,
    model: Annotated[
        str, typer.Option(help="The embedded model, a hub id or a folder.", rich_help_panel=_MODEL)
    ] = "smollm2-135m",
    update: Annotated[
        list[Path] | None,
        typer.Option(help="A saved update to apply. Repeatable, applied in order.", rich_help_panel=_MODEL),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.", rich_help_panel=_MODEL)] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights.", rich_help_panel=_MODEL)] = "float32",
    device_map: Annotated[
        str | None, typer.Option(help='"auto" spreads a large model over GPUs.', rich_help_panel=_MODEL)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts in a forward pass.", rich_help_panel=_MODEL)] = 32,
    out: Annotated[Path | None, typer.Option(help="Write the scores here, as CSV.", rich_help_panel=_FILES)] = None,
    outputs: Annotated[
        Path | None, typer.Option(help="Write each example's answer here, as CSV.", rich_help_panel=_FILES)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what --out and --outputs find.", rich_help_panel=_FILES)
    ] = False,
) -> None:
    """Measure a model's abilities; with --update, before and after.

    workbench evaluate --tasks sentiment,closed_qa --limit 50

    workbench evaluate --update eiffel.safetensors --out scores.csv
    """
    chosen = () if tasks == NONE else check_tasks(tasks if tasks == "all" else _parts(tasks))
    for option, path in (("--out", out), ("--outputs", outputs)):
        if path is not None:
            check_file_option(option, path, force=force, error=SpecError)
    if not chosen and text == NONE and lm_eval is None:
        raise SpecError("nothing is to be measured; name --tasks, a --text, or tasks for --lm-eval.")
    tell("importing torch and transformers")
    updates = load_updates(update or [])
    lm = load_model(model, device=device, dtype=dtype, device_map=device_map)
    check_updates_fit(updates, lm)
    asked = {"tasks": chosen, "limit": limit, "protocol": protocol, "data": data, "batch_size": batch_size}
    measure = partial(_measure, lm, asked, text=text, lm_eval=lm_eval, lm_eval_folder=lm_eval_folder, seed=seed)
    parts = {UNEDITED: measure()}
    if updates:
        with lm.restored_after():
            for _, of_file in updates:
                of_file.apply(lm)
            parts[EDITED] = measure()
    scores, answers = (_joined({name: part[i] for name, part in parts.items()}) for i in (0, 1))
    _report(lm, updates, scores)
    for path, table in ((out, scores), (outputs, answers)):
        if path is not None:
            _write(path, table)


def _measure(
    lm: "LanguageModel", asked: dict, *, text: str, lm_eval: str | None, lm_eval_folder: Path | None, seed: int
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Scores, and each example's answer, of the model as it is now."""
    import pandas as pd

    from workbench.evaluation.abilities import ask_tasks, summarize_runs
    from workbench.evaluation.perplexity import perplexity

    runs = ask_tasks(lm, **asked) if asked["tasks"] else []
    scores = [summarize_runs(runs, seed=seed)] if runs else []
    if text != NONE:
        scores.append(perplexity(lm, text, seed=seed))
    if lm_eval is not None:
        from workbench.evaluation.harness import evaluate_harness

        limits = {"limit": asked["limit"], "batch_size": asked["batch_size"]}
        scores.append(evaluate_harness(lm, _parts(lm_eval), **limits, task_folder=lm_eval_folder, seed=seed))
    return pd.concat(scores, ignore_index=True), pd.concat([pd.DataFrame(), *(run.outputs() for run in runs)])


def _parts(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _joined(parts: "dict[str, pd.DataFrame]") -> "pd.DataFrame":
    import pandas as pd

    return pd.concat([table.assign(model=name) for name, table in parts.items()], ignore_index=True)


def _report(lm: "LanguageModel", updates: "list[SavedUpdate]", scores: "pd.DataFrame") -> None:
    from workbench.evaluation.tasks import TASKS

    names = list(dict.fromkeys(scores["model"]))
    files = ", ".join(str(path) for path, _ in updates)
    show(titled(lm.name, f"with {files}" if files else "unedited"))
    table = bare_table("task", "metric", "n", *names)
    places = scores.groupby(["task", "metric", "protocol", "source", "split"], sort=False)
    for (task, metric, protocol, *_), rows in places:
        stands = task in TASKS and TASKS[task].headline.get(protocol) == metric
        by_model = rows.set_index("model")
        cells = [_cell(by_model.loc[name]) if name in by_model.index else "" for name in names]
        table.add_row(shown(task), shown(metric) + " *" * stands, str(rows["n"].iloc[0]), *cells)
    show(table)
    show("  * stands for the task; intervals of 95 %")
    for line in dict.fromkeys(f"{r.task}: {r.source}, {r.split}; {r.protocol}" for r in scores.itertuples()):
        show(f"  {shown(line)}")


def _cell(row: "pd.Series") -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _write(path: Path, table: "pd.DataFrame") -> None:
    from workbench.storage.files import write_atomically

    write_atomically(path, lambda scratch: table.to_csv(scratch, index=False))
    show_saved(path)
