"""The subcommands of `workbench`, one module each, and what they share."""

from collections.abc import Callable

import typer


def command_app(function: Callable[..., None]) -> typer.Typer:
    """Return a Typer application of one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    return app
