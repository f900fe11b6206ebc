"""Text for a terminal: readable at 80 columns, and plain where it is piped."""

import sys

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.printable import printable

LABEL_WIDTH = 13


def show(line: object = "", *, style: str | None = None) -> None:
    """Print a line or a table on stdout, without interpreting square brackets or colons as markup."""
    console = Console(markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        console.print(line, style=style)
        return
    with console.capture() as captured:  # in a pipe a line of text stays one line, and no line ends in blanks
        console.print(line, soft_wrap=isinstance(line, str | Text))
    typer.echo("\n".join(part.rstrip() for part in captured.get().splitlines()))


def tell(line: str) -> None:
    """Print on stderr what takes time, if stderr is a terminal."""
    if sys.stderr.isatty():
        typer.echo(line, err=True)


def bare_table(*headings: str) -> Table:
    """Return a table without lines: a column of labels, and columns that share the rest of the width."""
    table = Table(box=None, expand=True, pad_edge=False, show_header=any(headings), header_style="bold")
    table.add_column(headings[0], width=LABEL_WIDTH)
    for heading in headings[1:]:
        table.add_column(heading, ratio=1, overflow="fold")
    return table


def titled(title: str, text: str) -> Text:
    """Return a title in bold, followed by its text."""
    return Text.assemble((title, "bold"), "  ", printable(text))
