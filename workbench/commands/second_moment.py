"""`workbench second-moment`: estimate second moments of the keys before ROME or MEMIT needs them."""

from typing import Annotated, Any

import typer

from workbench.commands import command_app
from workbench.commands.files import load_model
from workbench.commands.method_options import layers_from
from workbench.commands.options import DEFAULT_MODEL, Device, DeviceMap, Dtype, ModelName, Quantize
from workbench.commands.printing import show
from workbench.editing.memit import MEMIT
from workbench.editing.second_moment.estimate import SecondMoment
from workbench.editing.second_moment.texts import find_source
from workbench.parameters import LARGEST_SEED
from workbench.printable import printable

_TEXT = "Text"


def second_moment(
    layers: Annotated[
        str | None, typer.Option(help="Blocks, such as 3,4,5; by default those that MEMIT edits in this model.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Text: a file, a folder of files, wikitext, wikipedia, or owner/name:config@commit of the hub; by "
            "default the model writes the text itself.",
            rich_help_panel=_TEXT,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Number of tokens; by default 10 per dimension of the keys, at least 16384.", rich_help_panel=_TEXT
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Seed of the text that the model writes.", min=0, max=LARGEST_SEED, rich_help_panel=_TEXT),
    ] = 0,
    model: ModelName = DEFAULT_MODEL,
    device: Device = None,
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    quantize: Quantize = None,
) -> None:
    """Estimate the second moment of the keys of some layers, and cache it.

    An interrupted run continues where it stopped. ROME (--mom2) and MEMIT use the cached result if they ask for the
    same source, tokens and seed.

    workbench second-moment --layers 3,4,5 --source wikitext
    """
    chosen = None if layers is None else list(layers_from(layers, example="3,4,5"))
    moment = SecondMoment(source=source, n_tokens=tokens, seed=seed)
    if source is not None:
        find_source(source)  # raises, before the model is loaded, if there is none
    lm = load_model(model, device=device, dtype=dtype, device_map=device_map, quantize=quantize)
    blocks = list(MEMIT.for_model(lm).layers) if chosen is None else chosen
    moment.compute(lm, blocks)
    for layer, file in moment.files(lm, blocks).items():
        number = file.record["condition_number"]
        about = "singular" if number is None else f"condition number about {number:.1e}"
        show(f"layer {layer}: {file.record['n_tokens']:,} tokens of {_text(file.record)}, {about}")
        show(f"  {file.path}")


def _text(record: dict[str, Any]) -> str:
    if record["source"] is None:
        return f"text that the model wrote, seed {record['seed']}"
    return printable(record["source"])


app = command_app(second_moment)
