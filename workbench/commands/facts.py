"""`workbench facts`: check files of facts, and show what is in them."""

import logging
from typing import Annotated

import typer

from workbench.commands.printing import show
from workbench.data.facts import BUNDLED_HARD, load_facts
from workbench.data.records import BUNDLED
from workbench.printable import printable
from workbench.request import EditRequest

EXIT_SOME_REJECTED = 1
_FILE = f'A file of facts, "{BUNDLED}" or "{BUNDLED_HARD}".'

app = typer.Typer(help="Check and show files of facts.", no_args_is_help=True)


@app.command()
def check(file: Annotated[str, typer.Argument(help=_FILE)]) -> None:
    """Show the format of a file of facts, how many are usable, and why the others are not.

    Exit code 0 if all are usable, 1 if some are not, 2 if the file cannot be used.
    """
    logging.getLogger("workbench").setLevel(
        logging.ERROR
    )  # the log would name the first rejected record; all are shown below
    facts = load_facts(file)
    total = len(facts) + len(facts.rejected)
    show(printable(f"{facts.source}: format {facts.format}, {len(facts)} of {total} records usable."))
    for rejected in facts.rejected:
        show(printable(str(rejected)))
    if facts.rejected:
        raise typer.Exit(EXIT_SOME_REJECTED)


@app.command("show")
def show_facts(
    file: Annotated[str, typer.Argument(help=_FILE)] = BUNDLED,
    limit: Annotated[int, typer.Option(min=1, help="Number of facts to show.")] = 5,
    seed: Annotated[
        int | None, typer.Option(help="Seed of a random draw; without it, the first facts are shown.")
    ] = None,
) -> None:
    """Show a few facts with their rephrasings, locality probes and one-hop questions."""
    facts = load_facts(file)
    n = min(limit, len(facts))
    chosen = facts.requests[:n] if seed is None else facts.sample(n, seed=seed)
    for request in chosen:
        _show_request(request)
    show(f"{n} of {len(facts)} facts of {printable(facts.source)}")


def _show_request(request: EditRequest) -> None:
    true = "" if request.target_true is None else f" (true: {request.target_true})"
    show(printable(f"{request.filled_prompt} → {request.target_new}{true}"), style="bold")
    if request.subject is not None:
        show(f"  subject    {printable(request.subject)}")
    for text in request.filled_rephrase:
        show(f"  rephrased  {printable(text)}")
    for probe in request.locality:
        show(f"  elsewhere  {printable(probe.prompt)} → {printable(probe.target)}")
    for question in request.portability:
        show(f"  follows    {printable(question.prompt)} → {printable(question.target)}")
    show()
