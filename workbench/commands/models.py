"""`workbench models`: list models, and fetch them before they are needed."""

from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub import HfApi, constants, snapshot_download
from transformers import AutoConfig

from workbench import embedded
from workbench.architectures import ARCHITECTURES, architecture_of
from workbench.commands.printing import bare_table, show
from workbench.editing.rome import PRESETS
from workbench.errors import DiskError, ModelError, first_line
from workbench.library_logging import quiet_libraries
from workbench.storage.disk import disk_errors

app = typer.Typer(help="List models, and fetch them.", invoke_without_command=True)

# files of a hub repository that only other frameworks and loaders read
_NOT_NEEDED = ["*.bin", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "*.gguf", "*.pth", "onnx/*", "original/*"]
_NOT_NEEDED += ["consolidated*", "*.md", "*.mlmodel", "coreml/*", "openvino/*"]


@app.callback()
def list_models(context: typer.Context) -> None:
    """List the embedded models, the architectures supported, and the models with presets."""
    if context.invoked_subcommand is not None:
        return
    table = bare_table("", "")
    for i, name in enumerate(embedded.MODELS):
        table.add_row("" if i else "embedded", f"{name} ({_state(name)})")
        table.add_row("", str(embedded.model_dir(name)))
    table.add_row("families", ", ".join(row.name for row in ARCHITECTURES))
    table.add_row("ROME presets", ", ".join(PRESETS))
    table.add_row("others", "any hub id or folder of these families")
    show(table)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="An embedded model, or a hub id.")],
    again: Annotated[bool, typer.Option("--again", help="Replace the model if it is already there.")] = False,
) -> None:
    """Fetch a model into the cache, so that later runs need no network."""
    quiet_libraries()
    if name not in embedded.MODELS:
        show(f"{name} is in {_fetch_from_hub(name, again=again)}")
        return
    show(f"{name} is in {embedded.fetch(name, again=again)}")
    if notice := embedded.MODELS[name].notice:
        show(notice)


def _state(name: str) -> str:
    folder = embedded.model_dir(name)
    if not folder.is_dir():
        return f"not cached; workbench models fetch {name}"
    return f"cached, {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.0f} MB"


def _fetch_from_hub(name: str, *, again: bool) -> Path:
    if Path(name).is_dir():
        raise ModelError(f"{name} is a folder, which needs no fetching; give a hub id.")
    try:
        with disk_errors(constants.HF_HUB_CACHE, variable="HF_HOME"):
            # before downloading gigabytes that cannot be used
            architecture_of(AutoConfig.from_pretrained(name, force_download=again, trust_remote_code=False))
            names = HfApi().list_repo_files(name)
            if not any(file.endswith(".safetensors") for file in names):
                raise ModelError(
                    f"the hub has the weights of {name} only as a pickle, which is never read; give another."
                )
            return Path(snapshot_download(name, ignore_patterns=_NOT_NEEDED, force_download=again))
    except (DiskError, ModelError):
        raise
    except (OSError, ValueError, RuntimeError) as err:
        raise ModelError(
            f"{name!r} cannot be fetched from the hub ({first_line(err)}); check the name, the connection and "
            "HF_HUB_OFFLINE."
        ) from err
