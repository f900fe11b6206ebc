"""`workbench edit`: one fact changed, what the model says before and after, and how far the weights moved."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from workbench.commands.edit_report import Outcome, report
from workbench.commands.files import SavedUpdate, check_file_option, check_updates_fit, load_model, load_updates
from workbench.commands.folders import check_folder_option, show_saved, write_peft
from workbench.commands.method_options import choose_editor, choose_regularizer, fields_from
from workbench.commands.printing import tell
from workbench.data.formats import read_native
from workbench.errors import EditError, RequestError, UpdateError
from workbench.request import PROBE_ARROW, EditRequest

if TYPE_CHECKING:
    import pandas as pd

    from workbench.commands.prompt_report import Reading
    from workbench.editing.editor import Editor
    from workbench.evaluation.edits import Probe
    from workbench.lm import LanguageModel
    from workbench.regularize import Regularizer
    from workbench.update import WeightUpdate

Method = Literal["rome", "r-rome", "memit", "kn", "mend", "ft", "ft-l"]
ONE_AT_A_TIME = ("rome", "r-rome", "kn")
FULL_RANK = ("ft", "ft-l")
N_SHOWN = 3
_FACT, _METHOD, _MODEL, _FILES = "The fact", "Method and regulariser", "Model", "Saved updates"


def edit(
    subject: Annotated[str | None, typer.Option(help="What the fact is about.", rich_help_panel=_FACT)] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Holds {} where the subject stands.", rich_help_panel=_FACT)
    ] = None,
    target: Annotated[str | None, typer.Option(help="The answer to write.", rich_help_panel=_FACT)] = None,
    target_true: Annotated[
        str | None, typer.Option(help="The answer it replaces, to be watched.", rich_help_panel=_FACT)
    ] = None,
    rephrase: Annotated[
        list[str] | None, typer.Option(help="The fact asked otherwise; may hold {}. Repeatable.", rich_help_panel=_FACT)
    ] = None,
    locality: Annotated[
        list[str] | None,
        typer.Option(help=f'Left alone: "prompt {PROBE_ARROW} answer". Repeatable.', rich_help_panel=_FACT),
    ] = None,
    facts: Annotated[
        str | None,
        typer.Option(
            help='Instead of one fact: a file of facts, or "bundled", in one operation.', rich_help_panel=_FACT
        ),
    ] = None,
    n_facts: Annotated[int, typer.Option("--n", min=1, help="How many of --facts.", rich_help_panel=_FACT)] = 10,
    method: Annotated[Method, typer.Option(help="Editor.", rich_help_panel=_METHOD)] = "rome",
    layer: Annotated[int | None, typer.Option(help="Block to edit.", rich_help_panel=_METHOD)] = None,
    variant: Annotated[
        Literal["rome", "r-rome"] | None, typer.Option(help="As published, or repaired.", rich_help_panel=_METHOD)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimisation steps.", rich_help_panel=_METHOD)] = None,
    lr: Annotated[float | None, typer.Option(help="Their learning rate.", rich_help_panel=_METHOD)] = None,
    mom2: Annotated[
        bool | None, typer.Option("--mom2/--no-mom2", help="Use the second moment C.", rich_help_panel=_METHOD)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE of any hyperparameter. Repeatable.", rich_help_panel=_METHOD),
    ] = None,
    hparams: Annotated[
        Path | None, typer.Option(help="EasyEdit's YAML; single options win over it.", rich_help_panel=_METHOD)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of contexts and random choices.", min=0, max=2**32 - 1, rich_help_panel=_METHOD)
    ] = 0,
    regularizer: Annotated[
        Literal["none", "rect", "random", "pca"], typer.Option(help="Of the update.", rich_help_panel=_METHOD)
    ] = "none",
    keep: Annotated[
        float | None, typer.Option(help="Share of entries it keeps; 0.4 if not given.", rich_help_panel=_METHOD)
    ] = None,
    when: Annotated[
        Literal["after", "each-layer"],
        typer.Option(help="Regularise MEMIT when all layers are solved, or each in turn.", rich_help_panel=_METHOD),
    ] = "after",
    model: Annotated[
        str, typer.Option(help="The embedded model, a hub id or a folder.", rich_help_panel=_MODEL)
    ] = "smollm2-135m",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.", rich_help_panel=_MODEL)] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights.", rich_help_panel=_MODEL)] = "float32",
    device_map: Annotated[
        str | None, typer.Option(help='"auto" spreads a large model over GPUs.', rich_help_panel=_MODEL)
    ] = None,
    onto: Annotated[
        list[Path] | None,
        typer.Option(help="A saved update to apply first. Repeatable, in order.", rich_help_panel=_FILES),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the update here.", rich_help_panel=_FILES)] = None,
    peft: Annotated[
        Path | None, typer.Option(help="Write a LoRA adapter of the update, for PEFT.", rich_help_panel=_FILES)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what --save and --peft find.", rich_help_panel=_FILES)
    ] = False,
) -> None:
    """Edit one fact, or a batch of them, and show what the model says before and after.

    workbench edit --subject "Eiffel Tower" --prompt "The {} is located in the city of" --target Rome

    workbench edit --method memit --facts bundled --n 50
    """
    fact = {"subject": subject, "prompt": prompt, "target": target}
    request = None if facts is not None else request_from(**_complete(fact), **_extras(target_true, rephrase, locality))
    if facts is not None:
        _check_batch(method, fact | _extras(target_true, rephrase, locality))
    if save is not None:
        check_file_option("--save", save, force=force)
    if peft is not None:
        _check_low_rank(method, regularizer)
        needed = [Path(model), *(onto or []), *([] if save is None else [save.parent])]
        check_folder_option("--peft", peft, force=force, needed=needed)
    tell("importing torch and transformers")
    regularize = choose_regularizer(regularizer, keep, seed)
    options = {"layer": layer, "variant": variant, "steps": steps, "lr": lr, "mom2": mom2}
    fields = fields_from(method, options, setting or [])
    if when == "each-layer":
        fields, regularize = _each_layer(method, fields, regularize)
    choose = choose_editor(method, hparams, fields, seed)
    requests = [request] if request is not None else _drawn(facts, n_facts, seed)
    earlier = load_updates(onto or [])
    lm = load_model(model, device=device, dtype=dtype, device_map=device_map)
    outcome = _carry_out(lm, choose(lm), regularize, requests, earlier)
    if save is not None:
        _save(outcome.update, save)
    if peft is not None:
        write_peft(outcome.update, peft, force=force)
    report(outcome, lm, requests, earlier)
    for path in filter(None, [save, peft]):
        show_saved(path)


def _complete(fact: dict[str, str | None]) -> dict[str, str]:
    if missing := [name for name, value in fact.items() if value is None]:
        raise RequestError(f"--{missing[0]} is missing; give --subject, --prompt and --target, or --facts.")
    return fact


def _extras(target_true: str | None, rephrase: list[str] | None, locality: list[str] | None) -> dict[str, Any]:
    return {"target_true": target_true, "rephrase": rephrase or [], "locality": locality or []}


def _check_batch(method: str, given: dict[str, Any]) -> None:
    if one := [name for name, value in given.items() if value]:
        raise RequestError(f"--{one[0].replace('_', '-')} is of one fact, --facts of several; give one or the other.")
    if method in ONE_AT_A_TIME:
        raise EditError(f"{method} edits one fact an operation; for --facts choose --method memit, mend, ft or ft-l.")


def _check_low_rank(method: str, regularizer: str) -> None:
    if method in FULL_RANK:
        raise UpdateError(
            f"--peft needs an update of low rank, and {method} changes all of a matrix; use --save and "
            "`workbench apply`."
        )
    if regularizer != "none":
        raise UpdateError(
            f"--peft needs an update of low rank, and --regularizer {regularizer} leaves none; use --save and "
            "`workbench apply`."
        )


def _each_layer(method: str, fields: dict[str, Any], regularize: "Regularizer") -> tuple[dict[str, Any], "Regularizer"]:
    from workbench.regularize import Unregularized

    if method != "memit":
        raise EditError(f"--when each-layer is for memit, which solves layer after layer; got --method {method}.")
    if isinstance(regularize, Unregularized):
        raise EditError("--when each-layer has nothing to work on; choose --regularizer rect, random or pca.")
    return fields | {"each_layer": regularize}, Unregularized()


def _drawn(facts: str, n: int, seed: int) -> list[EditRequest]:
    from workbench.data.facts import load_facts

    return load_facts(facts).sample(n, seed=seed)


def request_from(
    subject: str, prompt: str, target: str, target_true: str | None, rephrase: list[str], locality: list[str]
) -> EditRequest:
    """The request that the options describe.

    Parameters
    ----------
    subject, prompt, target, target_true
        As in `EditRequest`.
    rephrase : list of str
        Rephrasings.
    locality : list of str
        Each ``"prompt => answer"``.

    Returns
    -------
    EditRequest

    Raises
    ------
    RequestError
        If they describe none.
    """
    probes = []
    for text in locality:
        before, arrow, answer = text.rpartition(PROBE_ARROW)
        if not arrow:
            raise RequestError(f"--locality {text!r} has no {PROBE_ARROW}; write it as 'prompt {PROBE_ARROW} answer'.")
        probes.append({"prompt": before.strip(), "target": answer})
    record = {"subject": subject, "prompt": prompt, "target_new": target, "target_true": target_true}
    return read_native(record | {"rephrase": rephrase, "locality": probes})


def _carry_out(
    lm: "LanguageModel",
    editor: "Editor",
    regularize: "Regularizer",
    requests: list[EditRequest],
    earlier: list[SavedUpdate],
) -> Outcome:
    """Everything that touches the model, which is as it was afterwards."""
    from workbench.encoding import encode
    from workbench.evaluation.edits import probes_of
    from workbench.evaluation.predictions import answers_of
    from workbench.weightstats import TABLE1_QUANTILES, weight_change

    probes = probes_of(requests)
    for probe in probes:
        for answer in answers_of(probe):
            encode(lm.tokenizer, probe.prompt, answer)  # raises where an answer has no token
    check_updates_fit(earlier, lm)
    tell(f"editing with {editor.label}")
    start = time.perf_counter()
    editor = editor.prepared(lm)  # before --onto: the contexts are the unedited model's
    prepared = time.perf_counter()
    if batch := len(requests) > 1:
        probes = [probe for probe in probes if probe.metric == "reliability"][:N_SHOWN]
    look = partial(_look, lm, probes, requests if batch else [])
    with lm.restored_after():
        for _, update in earlier:
            update.apply(lm)
        before, scores_before = look()
        began = time.perf_counter()
        update = regularize(editor.compute_update(lm, requests), lm)
        seconds = {"prepared": prepared - start, "edit": time.perf_counter() - began}
        update.apply(lm)
        after, scores_after = look()
        changes = weight_change(update, lm, quantile_shares=TABLE1_QUANTILES)
    scores = (scores_before, scores_after) if batch else None
    return Outcome(probes, before, after, scores, editor, update, regularize.label, changes, seconds)


def _look(
    lm: "LanguageModel", probes: list["Probe"], scored: list[EditRequest]
) -> "tuple[list[Reading], pd.DataFrame | None]":
    """What the model as it is now makes of the probes, and its scores on the facts to be scored, if any."""
    from workbench.commands.prompt_report import read_probes
    from workbench.evaluation.edits import evaluate_edits

    return read_probes(lm, probes), evaluate_edits(lm, scored) if scored else None


def _save(update: "WeightUpdate", path: Path) -> None:
    from safetensors import SafetensorError

    try:
        update.save(path)
    except (OSError, SafetensorError) as err:
        raise UpdateError(f"--save {path} could not be written ({err}); nothing is left of it.") from err
