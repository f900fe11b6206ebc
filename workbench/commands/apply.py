"""`workbench apply`: saved updates made into a whole edited model, or into an adapter for PEFT."""

import json
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands.folders import check_folder_option, show_saved, write_folder_option, write_peft
from workbench.commands.printing import quiet_libraries, tell
from workbench.errors import UpdateError

if TYPE_CHECKING:
    from workbench.lm import LanguageModel
    from workbench.update import WeightUpdate

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
    updates = _load_updates(update)
    if out is None:
        write_peft(reduce(add, updates), folder, force=force)
    else:
        lm = _load_edited(model, update, updates, device=device, dtype=dtype)
        made_by = [{"file": file.name, "info": of_file.info} for file, of_file in zip(update, updates, strict=True)]
        record = {"model": lm.name, "fingerprint": lm.fingerprint, "dtype": dtype, "updates": made_by}
        _write_model(lm, folder, record, force=force)
    show_saved(folder)


def _load_updates(paths: list[Path]) -> list["WeightUpdate"]:
    from workbench.update import WeightUpdate

    return [WeightUpdate.load(path) for path in paths]


def _load_edited(name: str, files: list[Path], updates: list["WeightUpdate"], **where: str | None) -> "LanguageModel":
    """The model with the updates in force, in their order."""
    from workbench.lm import load

    quiet_libraries()
    tell(f"loading {name}")
    lm = load(name, **where)
    for file, update in zip(files, updates, strict=True):
        try:
            update.apply(lm)
        except UpdateError as err:
            raise UpdateError(f"{file}: {err}") from err
    return lm


def _write_model(lm: "LanguageModel", folder: Path, record: dict, *, force: bool) -> None:
    """A folder that plain transformers loads, and beside the weights what made them."""
    from workbench.atomic_folder import write_folder_atomically

    def fill(scratch: Path) -> None:
        lm.model.save_pretrained(scratch)
        lm.tokenizer.save_pretrained(scratch)
        (scratch / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")

    tell(f"writing {folder}")
    write_folder_option("--out", folder, lambda: write_folder_atomically(folder, fill, replace=force))
