"""`workbench second-moment`: the second moment of the keys, computed before ROME or MEMIT needs it."""

from typing import Annotated

import typer

from workbench.commands.files import load_model
from workbench.commands.method_options import layers_from
from workbench.commands.printing import show, shown, tell

_TEXT, _MODEL = "Text", "Model"


def second_moment(
    layers: Annotated[
        str | None, typer.Option(help="Blocks, such as 3,4,5; else those that MEMIT edits in this model.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="A text file, a folder of them, wikitext, wikipedia, or owner/name:config@commit of the hub; else "
            "text that the model writes itself.",
            rich_help_panel=_TEXT,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Budget; else 10 a dimension of the keys, at least 16384.", rich_help_panel=_TEXT),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the model's own text.", min=0, max=2**32 - 1, rich_help_panel=_TEXT)
    ] = 0,
    model: Annotated[
        str, typer.Option(help="The embedded model, a hub id or a folder.", rich_help_panel=_MODEL)
    ] = "smollm2-135m",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.", rich_help_panel=_MODEL)] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights.", rich_help_panel=_MODEL)] = "float32",
    device_map: Annotated[
        str | None, typer.Option(help='"auto" spreads a large model over GPUs.', rich_help_panel=_MODEL)
    ] = None,
) -> None:
    """Estimate the second moment of the keys of some layers, and keep it in the cache.

    A run that was stopped goes on where it was. ROME (--mom2) and MEMIT find what is computed here if they ask for
    the same source, tokens and seed.

    workbench second-moment --layers 3,4,5 --source wikitext
    """
    chosen = None if layers is None else list(layers_from(layers, example="3,4,5"))
    tell("importing torch and transformers")
    from workbench.editing.memit import MEMIT
    from workbench.editing.second_moment.estimate import SecondMoment
    from workbench.editing.second_moment.texts import find_source

    moment = SecondMoment(source=source, n_tokens=tokens, seed=seed)
    if source is not None:
        find_source(source)  # raises before the model is loaded where there is none
    lm = load_model(model, device=device, dtype=dtype, device_map=device_map)
    blocks = list(MEMIT.for_model(lm).layers) if chosen is None else chosen
    moment.of(lm, blocks)
    for layer, file in moment.files(lm, blocks).items():
        number = file.record["condition_number"]
        about = "singular" if number is None else f"condition number about {number:.1e}"
        show(f"layer {layer}: {file.record['n_tokens']:,} tokens of {_text(file.record)}, {about}")
        show(f"  {file.path}")


def _text(record: dict) -> str:
    if record["source"] is None:
        return f"the model's own text, seed {record['seed']}"
    return shown(record["source"])
