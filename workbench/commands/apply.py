"""`workbench apply`: saved updates made into a whole edited model, or into an adapter for PEFT."""

import json
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands.files import check_updates_fit, load_model, load_updates
from workbench.commands.folders import check_folder_option, show_saved, write_folder_option, write_peft
from workbench.commands.printing import tell
from workbench.errors import UpdateError

if TYPE_CHECKING:
    from workbench.lm import LanguageModel

RECORD = "workbench.json"
_MODEL, _RESULT = "Model", "Result"


def apply(
    update: Annotated[list[Path], typer.Option(help="A saved update. Repeatable, applied in order.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the edited model, to make.", rich_help_panel=_RESULT)
    ] = None,
    peft: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a model: folder of a LoRA adapter of all the updates. Loads no model.",
            rich_help_panel=_RESULT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the folder that is found.", rich_help_panel=_RESULT)
    ] = False,
    model: Annotated[
        str, typer.Option(help="The embedded model, a hub id or a folder.", rich_help_panel=_MODEL)
    ] = "smollm2-135m",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.", rich_help_panel=_MODEL)] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights, also as written.", rich_help_panel=_MODEL)] = "float32",
) -> None:
    """Write the model that saved updates make, for transformers to load, or their adapter for PEFT.

    workbench apply --update eiffel.safetensors --out edited

    workbench apply --update eiffel.safetensors --peft adapter
    """
    if (out is None) == (peft is None):
        raise UpdateError("give either --out, the folder of the edited model, or --peft, that of an adapter.")
    option, folder = ("--peft", peft) if out is None else ("--out", out)
    check_folder_option(option, folder, force=force, needed=[*update, Path(model)])
    tell("importing torch and transformers")
    updates = load_updates(update)
    if out is None:
        write_peft(reduce(add, (of_file for _, of_file in updates)), folder, force=force)
    else:
        lm = load_model(model, device=device, dtype=dtype)
        check_updates_fit(updates, lm)
        for _, of_file in updates:
            of_file.apply(lm)
        made_by = [{"file": file.name, "info": of_file.info} for file, of_file in updates]
        record = {"model": lm.name, "fingerprint": lm.fingerprint, "dtype": dtype, "updates": made_by}
        _write_model(lm, folder, record, force=force)
    show_saved(folder)


def _write_model(lm: "LanguageModel", folder: Path, record: dict, *, force: bool) -> None:
    """A folder that plain transformers loads, and beside the weights what made them."""
    from workbench.storage.folders import write_folder_atomically

    def fill(scratch: Path) -> None:
        lm.model.save_pretrained(scratch)
        lm.tokenizer.save_pretrained(scratch)
        (scratch / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")

    tell(f"writing {folder}")
    write_folder_option("--out", folder, lambda: write_folder_atomically(folder, fill, replace=force))
