"""`workbench apply`: write an edited model, or an adapter for PEFT, from saved updates."""

import json
from functools import reduce
from operator import add
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands import command_app
from workbench.commands.files import apply_updates, check_updates_fit, load_model, load_updates, regularizer_of_sum
from workbench.commands.folders import check_folder_option, show_saved, write_option, write_peft
from workbench.commands.options import DEFAULT_MODEL, Accumulated, Device, Dtype, ModelName
from workbench.commands.printing import tell
from workbench.errors import UpdateError
from workbench.lm import LanguageModel
from workbench.regularize import settings_of
from workbench.storage.folders import write_folder_atomically

RECORD = "workbench.json"
_RESULT = "Result"


def apply(
    update: Annotated[list[Path], typer.Option(help="A saved update. Repeatable, applied in order.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the edited model.", rich_help_panel=_RESULT)] = None,
    peft: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a model: folder of a LoRA adapter of all the updates. Loads no model.",
            rich_help_panel=_RESULT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing folder.", rich_help_panel=_RESULT)
    ] = False,
    accumulated: Accumulated = None,
    model: ModelName = DEFAULT_MODEL,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Write the model that saved updates make, for transformers to load, or their adapter for PEFT.

    workbench apply --update eiffel.safetensors --out edited

    workbench apply --update eiffel.safetensors --update louvre.safetensors --accumulated prune --out edited

    workbench apply --update eiffel.safetensors --peft adapter
    """
    if out is not None and peft is None:
        option, folder = "--out", out
    elif peft is not None and out is None:
        option, folder = "--peft", peft
    else:
        raise UpdateError("give either --out, the folder of the edited model, or --peft, that of an adapter.")
    of_sum = regularizer_of_sum(accumulated)
    if of_sum is not None and option == "--peft":
        raise UpdateError("--accumulated needs the weights of the model; use it with --out.")
    check_folder_option(option, folder, force=force, needed=[*update, Path(model)])
    updates = load_updates(update)
    if option == "--peft":
        write_peft(reduce(add, (of_file for _, of_file in updates)), folder, force=force)
    else:
        lm = load_model(model, device=device, dtype=dtype)
        check_updates_fit(updates, lm)
        apply_updates(updates, lm, of_sum)
        made_by = [
            {"file": file.name, "records": [each.as_dict() for each in of_file.records]} for file, of_file in updates
        ]
        record: dict[str, Any] = {"model": lm.name, "fingerprint": lm.fingerprint, "dtype": dtype, "updates": made_by}
        if of_sum is not None:
            record["accumulated"] = settings_of(of_sum)
        _write_model(lm, folder, record, force=force)
    show_saved(folder)


def _write_model(lm: LanguageModel, folder: Path, record: dict[str, Any], *, force: bool) -> None:
    """Write a folder that transformers loads, with a record of the updates beside the weights."""

    def fill(scratch: Path) -> None:
        lm.model.save_pretrained(scratch)
        lm.tokenizer.save_pretrained(scratch)
        (scratch / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")

    tell(f"writing {folder}")
    write_option("--out", folder, lambda: write_folder_atomically(folder, fill, replace=force))


app = command_app(apply)
