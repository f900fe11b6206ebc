"""`workbench facts`: whether a file of facts can be used, and what is in it."""

import logging
from typing import Annotated

import typer

from workbench.commands.printing import show, shown
from workbench.data.facts import BUNDLED, load_facts
from workbench.request import EditRequest

EXIT_SOME_REJECTED = 1

app = typer.Typer(help="Look into files of facts.", no_args_is_help=True)


@app.command()
def check(file: Annotated[str, typer.Argument(help=f'A file of facts, or "{BUNDLED}".')]) -> None:
    """Say which format a file of facts has, how many are usable, and why each other one is not.

    Exit code 0 if all are usable, 1 if some are not, 2 if the file cannot be used.
    """
    logging.getLogger("workbench").setLevel(logging.ERROR)  # it would name the first reject, and we name all
    facts = load_facts(file)
    total = len(facts) + len(facts.rejected)
    show(shown(f"{facts.source}: format {facts.format}, {len(facts)} of {total} records usable."))
    for rejected in facts.rejected:
        show(shown(str(rejected)))
    if facts.rejected:
        raise typer.Exit(EXIT_SOME_REJECTED)


@app.command("show")
def show_facts(
    file: Annotated[str, typer.Argument(help=f'A file of facts, or "{BUNDLED}".')] = BUNDLED,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    seed: Annotated[int | None, typer.Option(help="Draw them; without it, the first ones.")] = None,
) -> None:
    """Print a few facts with their rephrasings and locality probes."""
    facts = load_facts(file)
    n = min(limit, len(facts))
    chosen = facts.requests[:n] if seed is None else facts.sample(n, seed=seed)
    for request in chosen:
        _show_request(request)
    show(f"{n} of {len(facts)} facts of {shown(facts.source)}")


def _show_request(request: EditRequest) -> None:
    true = "" if request.target_true is None else f" (true: {request.target_true})"
    show(shown(f"{request.filled_prompt} → {request.target_new}{true}"), style="bold")
    show(f"  subject    {shown(request.subject)}")
    for text in request.filled_rephrase:
        show(f"  rephrased  {shown(text)}")
    for probe in request.locality:
        show(f"  elsewhere  {shown(probe.prompt)} → {shown(probe.target)}")
    show()
