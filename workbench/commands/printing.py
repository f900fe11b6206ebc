"""Text for a terminal: readable at 80 columns, plain where it is piped."""

import sys

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

LABEL_WIDTH = 13


def shown(text: str) -> str:
    """Text from a user, a file or a model with its control characters spelled out, as in a Python string."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show(line: object = "", *, style: str | None = None) -> None:
    """Print a line or table on stdout; square brackets and colons are just that."""
    console = Console(markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        console.print(line, style=style)
        return
    with console.capture() as captured:  # in a pipe a line of text stays one line, and no line ends in blanks
        console.print(line, soft_wrap=isinstance(line, str | Text))
    typer.echo("\n".join(part.rstrip() for part in captured.get().splitlines()))


def tell(line: str) -> None:
    """Say on stderr what takes its time, where somebody is watching."""
    if sys.stderr.isatty():
        typer.echo(line, err=True)


def quiet_libraries() -> None:
    """Keep transformers and the hub from talking beside us; bars of downloads stay, which take longest."""
    from huggingface_hub.utils import enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()  # each retry would be two lines
    enable_progress_bars()


def bare_table(*headings: str) -> Table:
    """A table without lines: a column of labels, and columns that share the rest of the width."""
    table = Table(box=None, expand=True, pad_edge=False, show_header=any(headings), header_style="bold")
    table.add_column(headings[0], width=LABEL_WIDTH)
    for heading in headings[1:]:
        table.add_column(heading, ratio=1, overflow="fold")
    return table


def titled(title: str, text: str) -> Text:
    """A title in bold and what it is about."""
    return Text.assemble((title, "bold"), "  ", shown(text))
