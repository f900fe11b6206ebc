"""`workbench edit`: edit facts, show what the model says before and after, and how far the weights moved."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import typer

from workbench.assessment import Guard, assess
from workbench.commands import command_app
from workbench.commands.edit_report import Outcome, report
from workbench.commands.files import (
    SavedUpdate,
    check_file_option,
    check_updates_fit,
    load_model,
    load_updates,
    regularizer_of_sum,
)
from workbench.commands.folders import check_folder_option, show_saved, write_option, write_peft
from workbench.commands.method_options import choose_editor, fields_from
from workbench.commands.options import (
    DEFAULT_MODEL,
    FACT,
    FILES,
    METHOD,
    Accumulated,
    Device,
    DeviceMap,
    Dtype,
    ModelName,
    Quantize,
)
from workbench.commands.printing import tell
from workbench.data.facts import load_facts
from workbench.data.formats import read_native
from workbench.editing.editor import Editor
from workbench.encoding import encode
from workbench.errors import EditError, RequestError, UpdateError
from workbench.evaluation.edits import Probe, evaluate_edits, probes_of
from workbench.evaluation.predictions import PromptPrediction, answers_of, predict_probes
from workbench.lm import LanguageModel
from workbench.parameters import LARGEST_SEED, parameters_of
from workbench.registry import method_row, methods, regularizer_row, regularizers
from workbench.regularize import Regularizer, Unregularized, make_regularizer
from workbench.request import PROBE_ARROW, EditRequest, split_probe
from workbench.sequence import EditSequence
from workbench.weightstats import TABLE1_QUANTILES, weight_change

N_SHOWN = 3  # facts of a batch
N_TOP = 3  # next tokens
N_CONTINUED = 12  # tokens of a continuation


def edit(
    subject: Annotated[
        str | None,
        typer.Option(help="Subject of the fact; FT, KN, LoRA, MEND and UltraEdit need none.", rich_help_panel=FACT),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt with {} in the place of the subject.", rich_help_panel=FACT)
    ] = None,
    target: Annotated[str | None, typer.Option(help="New answer.", rich_help_panel=FACT)] = None,
    target_true: Annotated[
        str | None, typer.Option(help="Answer that is replaced, to show its probability.", rich_help_panel=FACT)
    ] = None,
    rephrase: Annotated[
        list[str] | None,
        typer.Option(help="Rephrased prompt, with or without {}. Repeatable.", rich_help_panel=FACT),
    ] = None,
    locality: Annotated[
        list[str] | None,
        typer.Option(help=f'Unrelated fact: "prompt {PROBE_ARROW} answer". Repeatable.', rich_help_panel=FACT),
    ] = None,
    portability: Annotated[
        list[str] | None,
        typer.Option(
            help=f'What follows from the fact: "prompt {PROBE_ARROW} answer". Repeatable.', rich_help_panel=FACT
        ),
    ] = None,
    facts: Annotated[
        str | None,
        typer.Option(
            help='Instead of one fact: a file of facts, "bundled" or "bundled-hard", edited in one operation.',
            rich_help_panel=FACT,
        ),
    ] = None,
    n_facts: Annotated[int, typer.Option("--n", min=1, help="Number of --facts.", rich_help_panel=FACT)] = 10,
    method: Annotated[
        str, typer.Option(help=f"Editing method: {', '.join(methods())}.", metavar="NAME", rich_help_panel=METHOD)
    ] = "rome",
    layer: Annotated[int | None, typer.Option(help="Block to edit.", rich_help_panel=METHOD)] = None,
    variant: Annotated[
        Literal["rome", "r-rome"] | None,
        typer.Option(help="Denominator of ROME, as published or repaired.", rich_help_panel=METHOD),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimization steps.", rich_help_panel=METHOD)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=METHOD)] = None,
    mom2: Annotated[
        bool | None, typer.Option("--mom2/--no-mom2", help="Use the second moment C.", rich_help_panel=METHOD)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE of any hyperparameter. Repeatable.", rich_help_panel=METHOD),
    ] = None,
    hparams: Annotated[
        Path | None,
        typer.Option(help="EasyEdit's hyperparameter file; other options take precedence.", rich_help_panel=METHOD),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Seed of every random draw.", min=0, max=LARGEST_SEED, rich_help_panel=METHOD),
    ] = 0,
    regularizer: Annotated[
        str,
        typer.Option(
            help=f"Regularizer of the update: {', '.join(regularizers())}.", metavar="NAME", rich_help_panel=METHOD
        ),
    ] = "none",
    keep: Annotated[
        float | None,
        typer.Option(help="Share of entries that the regularizer keeps; 0.4 by default.", rich_help_panel=METHOD),
    ] = None,
    when: Annotated[
        Literal["after", "each-layer"],
        typer.Option(help="Regularize MEMIT after all layers are solved, or after each.", rich_help_panel=METHOD),
    ] = "after",
    accumulated: Accumulated = None,
    guard: Annotated[
        Literal["show", "refuse", "repair", "ask"],
        typer.Option(
            help="An edit that would break the model is shown as such, refused, repaired by R-ROME or PRUNE where that "
            "helps, or made only if you agree.",
            rich_help_panel=METHOD,
        ),
    ] = "show",
    model: ModelName = DEFAULT_MODEL,
    device: Device = None,
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    onto: Annotated[
        list[Path] | None,
        typer.Option(help="Saved update to edit on top of. Repeatable, in order.", rich_help_panel=FILES),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="File of the update.", rich_help_panel=FILES)] = None,
    peft: Annotated[
        Path | None, typer.Option(help="Folder of a LoRA adapter of the update, for PEFT.", rich_help_panel=FILES)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing files of --save and --peft.", rich_help_panel=FILES)
    ] = False,
) -> None:
    """Edit one fact, or a batch of them, and show what the model says before and after.

    workbench edit --subject "Eiffel Tower" --prompt "The {} is located in the city of" --target Rome

    workbench edit --method memit --facts bundled --n 50
    """
    method_row(method)
    regularizer_row(regularizer)
    of_sum = regularizer_of_sum(accumulated)
    probes = {"locality": locality or [], "portability": portability or []}
    extras = {"target_true": target_true, "rephrase": rephrase or [], **probes}
    requests = _requests({"subject": subject, "prompt": prompt, "target": target}, extras, facts, method, n_facts, seed)
    if save is not None:
        check_file_option("--save", save, force=force)
    if peft is not None:
        _check_low_rank(method, regularizer)
        needed = [Path(model), *(onto or []), *([] if save is None else [save.parent])]
        check_folder_option("--peft", peft, force=force, needed=needed)
    regularize = _regularizer(regularizer, keep, seed)
    options = {"layer": layer, "variant": variant, "steps": steps, "lr": lr, "mom2": mom2}
    fields = fields_from(method, options, setting or [])
    if when == "each-layer":
        fields, regularize = _each_layer(method, fields, regularize)
    choose = choose_editor(method, hparams, fields, seed)
    earlier = load_updates(onto or [])
    lm = load_model(model, device=device, dtype=dtype, device_map=device_map, quantize=quantize)
    sequence = EditSequence(lm, accumulated=of_sum, guard=_guard(guard))
    outcome = _carry_out(sequence, choose(lm), regularize, requests, earlier)
    if save is not None:
        write_option("--save", save, partial(outcome.update.save, save))
    if peft is not None:
        write_peft(outcome.update, peft, force=force)
    report(outcome, lm, requests, earlier)
    for path in filter(None, [save, peft]):
        show_saved(path)


def _requests(
    fact: dict[str, str | None], extras: dict[str, Any], facts: str | None, method: str, n: int, seed: int
) -> list[EditRequest]:
    """Return the one fact that the options describe, or the facts drawn from --facts."""
    if facts is None:
        optional = () if method_row(method).needs_subject else ("subject",)
        if missing := [name for name, value in fact.items() if value is None and name not in optional]:
            raise RequestError(f"--{missing[0]} is missing; give --subject, --prompt and --target, or --facts.")
        return [parse_request(**fact, **extras)]  # type: ignore[arg-type]  # none of them is None here
    if given := [name for name, value in (fact | extras).items() if value]:
        raise RequestError(
            f"--{given[0].replace('_', '-')} belongs to one fact, --facts to several; give one or the other."
        )
    if not method_row(method).supports_batch:
        batched = [row.name for row in methods().values() if row.supports_batch]
        raise EditError(f"{method} edits one fact per operation; for --facts choose --method {_either(batched)}.")
    return list(load_facts(facts).sample(n, seed=seed))


def _regularizer(name: str, keep: float | None, seed: int) -> Regularizer:
    if keep is not None and "keep" not in parameters_of(regularizer_row(name).regularizer):
        prunes = [row.name for row in regularizers().values() if "keep" in parameters_of(row.regularizer)]
        raise EditError(f"--keep {keep} has no effect; choose --regularizer {_either(prunes)}.")
    return make_regularizer(name, keep=keep, seed=seed)


def _guard(action: str) -> Guard | None:
    if action == "show":
        return None
    ask = (lambda found: typer.confirm(f"{found}. Apply it?", err=True)) if action == "ask" else None
    return Guard(repairs=Guard().repairs if action == "repair" else (), ask=ask)


def _either(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _check_low_rank(method: str, regularizer: str) -> None:
    if method_row(method).update == "full_rank":
        raise UpdateError(
            f"--peft needs an update of low rank, and {method} changes all of a matrix; use --save and "
            "`workbench apply`."
        )
    if not regularizer_row(regularizer).keeps_rank:
        raise UpdateError(
            f"--peft needs an update of low rank, and --regularizer {regularizer} leaves none; use --save and "
            "`workbench apply`."
        )


def _each_layer(method: str, fields: dict[str, Any], regularize: Regularizer) -> tuple[dict[str, Any], Regularizer]:
    if method != "memit":
        raise EditError(f"--when each-layer is for memit, which solves layer after layer; got --method {method}.")
    if isinstance(regularize, Unregularized):
        others = [name for name in regularizers() if name != "none"]
        raise EditError(
            f"--when each-layer has no effect without a regularizer; choose --regularizer {_either(others)}."
        )
    return fields | {"each_layer": regularize}, Unregularized()


def parse_request(
    subject: str | None,
    prompt: str,
    target: str,
    target_true: str | None,
    rephrase: list[str],
    locality: list[str],
    portability: list[str],
) -> EditRequest:
    """Return the request that the options describe.

    Parameters
    ----------
    subject, prompt, target, target_true : str
        Fields of `EditRequest`.
    rephrase : list of str
        Rephrased prompts.
    locality : list of str
        Unrelated facts, each ``"prompt => answer"``.
    portability : list of str
        What follows from the new fact, each ``"prompt => answer"``.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If the options do not describe a valid request.
    """
    record = {"subject": subject, "prompt": prompt, "target_new": target, "target_true": target_true}
    probes = {"locality": _probes("--locality", locality), "portability": _probes("--portability", portability)}
    return read_native({**record, "rephrase": rephrase, **probes})


def _probes(option: str, texts: list[str]) -> list[dict[str, str]]:
    return [dict(zip(("prompt", "target"), split_probe(text, option), strict=True)) for text in texts]


def _carry_out(
    sequence: EditSequence,
    editor: Editor,
    regularizer: Regularizer,
    requests: list[EditRequest],
    earlier: list[SavedUpdate],
) -> Outcome:
    """Do everything that uses the model, which is unedited afterwards."""
    lm, probes = sequence.lm, probes_of(requests)
    for probe in probes:
        for answer in answers_of(probe):
            encode(lm.tokenizer, probe.prompt, answer)  # raises where an answer has no token
    check_updates_fit(earlier, lm)
    tell(f"editing with {editor.label}")
    start = time.perf_counter()
    editor = editor.prepared(lm)
    prepared = time.perf_counter() - start
    for _, update in earlier:
        sequence.add(update)
    if batch := len(requests) > 1:
        probes = [probe for probe in probes if probe.metric == "reliability"][:N_SHOWN]
    look = partial(_look, lm, probes, requests if batch else [])
    with sequence.applied():
        before, scores_before = look()
    base = sequence.base
    done = sequence.edit(requests, editor, regularizer)
    with sequence.applied():
        after, scores_after = look()
    with base.applied(lm):
        changes = weight_change(done.update, lm, quantile_shares=TABLE1_QUANTILES)
        risk = assess(done.update, lm)
    scores = (scores_before, scores_after) if scores_before is not None and scores_after is not None else None
    seconds = {"prepared": prepared, "edit": done.seconds}
    label = done.regularizer.label
    if sequence.accumulated is not None:
        label += f"; {sequence.accumulated.label} of the sum"
    return Outcome(probes, before, after, scores, editor, done.update, label, changes, risk, seconds)


def _look(
    lm: LanguageModel, probes: list[Probe], scored: list[EditRequest]
) -> tuple[list[PromptPrediction], pd.DataFrame | None]:
    """Return the predictions of the current model for the probes, and its scores on the facts in `scored`, if any."""
    predictions = predict_probes(lm, probes, n_top=N_TOP, n_continued=N_CONTINUED)
    return predictions, evaluate_edits(lm, scored) if scored else None


app = command_app(edit)
