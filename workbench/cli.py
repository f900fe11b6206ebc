"""The `workbench` command; `workbench.commands` has one module per subcommand.

A wrong request ends in one sentence on stderr and exit code 2, an error that nobody foresaw in one and exit code 1. The
module of a subcommand, which may take seconds to import, is loaded when the subcommand is called, so that help and
mistyped names are answered at once.
"""

import contextlib
import io
import logging
import os
import sys
import traceback
from contextvars import ContextVar
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from workbench.commands.printing import tell
from workbench.errors import SpecError, WorkbenchError, reason_of
from workbench.inputs import shown
from workbench.storage.disk import cannot_write
from workbench.threads import set_wait_policy
from workbench.versions import workbench_version

EXIT_UNEXPECTED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_show_traceback: ContextVar[bool] = ContextVar("show_traceback", default=False)  # set by --traceback

# name: module in `workbench.commands`, and the line that the list of commands shows
_COMMANDS = {
    "app": ("explorer_app", "Open the explorer in a browser."),
    "edit": ("edit", "Edit facts, and show what the model says before and after."),
    "evaluate": ("evaluate", "Measure the abilities of a model, with and without updates."),
    "apply": ("apply", "Write an edited model, or a PEFT adapter, from saved updates."),
    "regenerate": ("regenerate", "Run the notebooks that make the figures."),
    "report": ("report", "Write the executed notebooks as HTML pages."),
    "run": ("run", "Run experiments from a YAML file."),
    "results": ("results", "List, filter, export or merge results of experiments."),
    "second-moment": ("second_moment", "Estimate the second moments that MEMIT needs."),
    "train-mend": ("train_mend", "Train the networks of MEND for a model."),
    "tune": ("tune", "Find the hyperparameters of ROME or MEMIT for a model."),
    "models": ("models", "List models, and fetch them."),
    "facts": ("facts", "Check and show files of facts."),
}
_LIGHT = ("app", "facts", "report", "regenerate")  # commands that start without torch


class _LazyCommand(TyperCommand):
    """A subcommand whose module is imported when the subcommand is called."""

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, help=summary, callback=None)
        self._module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments by the command itself."""
        if self.name not in _LIGHT and "torch" not in sys.modules:
            tell("importing torch and transformers")
        commands: typer.Typer = import_module(f"workbench.commands.{self._module}").app
        return get_command(commands).make_context(info_name, args, parent=parent, **extra)


class _LazyGroup(TyperGroup):
    """The subcommands of `_COMMANDS`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (module, summary) in _COMMANDS.items():
            self.add_command(_LazyCommand(name, module, summary))


app = typer.Typer(
    cls=_LazyGroup,
    help="Edit facts in a language model, regularize the update, and measure what else changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _ToStderr(logging.Handler):
    """Writes log lines to stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(f"workbench: {record.getMessage()}", file=sys.stderr)
        if record.exc_info and _show_traceback.get():
            tqdm.write("".join(traceback.format_exception(*record.exc_info)), file=sys.stderr)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"workbench {workbench_version()}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the traceback of an unexpected error, for a report of it.")
    ] = False,
) -> None:
    _show_traceback.set(show_traceback)
    log = logging.getLogger("workbench")
    if not log.handlers:
        log.addHandler(_ToStderr())
        log.setLevel(logging.INFO)


def _check_argument(argument: str) -> None:
    """Raise `SpecError` if an argument holds what no path and no text can hold."""
    try:
        content = os.fsencode(argument)  # bytes that are not UTF-8 may be the name of a file
    except UnicodeEncodeError as err:
        raise SpecError(f"the argument {shown(argument)} holds half of a surrogate pair; remove it.") from err
    if b"\0" in content:
        raise SpecError(f"the argument {shown(argument)} holds a NUL character; remove it.")


def _fail(sentence: str, code: int = EXIT_BAD_INPUT) -> None:
    # an exception quoted in a sentence may have line breaks
    typer.echo("workbench: " + " ".join(line.strip() for line in sentence.splitlines()), err=True)
    sys.exit(code)


def main() -> None:
    """Run the command line; every error becomes a sentence.

    Raises
    ------
    SystemExit
        Always: 0 on success, 1 if `facts check` rejected records or an error was unexpected, 2 for bad input, 130 for
        Ctrl-C.
    """
    set_wait_policy()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show δ prints "?" instead of a traceback
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="replace")
    try:
        for argument in sys.argv[1:]:
            _check_argument(argument)
        app(prog_name="workbench")
    except WorkbenchError as err:
        _fail(str(err))
    except OSError as err:
        place = shown(err.filename) if err.filename else "the system"
        _fail(cannot_write(err.filename or place, err.errno) or f"{place}: {err.strerror or err}.")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as err:  # a slip of ours, or a case that nobody thought of
        if _show_traceback.get():
            traceback.print_exception(err)
        if os.path.expanduser("~") == "~":  # several libraries look for their files there when they are imported
            _fail(f"the command needs a home folder, and none is known ({reason_of(err)}); set HOME to a folder.")
        _fail(
            f"an unexpected error stopped the command ({reason_of(err)}); please report it with what the same command "
            "prints after `workbench --traceback`.",
            EXIT_UNEXPECTED,
        )
