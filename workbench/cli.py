"""The `workbench` command: what each subcommand does is in `workbench.commands`.

Whatever is wrong with what was asked for ends in one sentence on stderr and exit code 2. Modules that take seconds to
import are imported inside the commands, so that help and mistyped options answer at once.
"""

import contextlib
import logging
import sys
from typing import Annotated

import typer

from workbench.commands import (
    apply,
    edit,
    evaluate,
    explorer_app,
    facts,
    models,
    regenerate,
    report,
    results,
    run,
    second_moment,
    train_mend,
)
from workbench.errors import WorkbenchError
from workbench.versions import workbench_version

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="Edit facts in a language model, regularise the update, and measure what else changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("app")(explorer_app.app)
app.command()(edit.edit)
app.command()(evaluate.evaluate)
app.command()(apply.apply)
app.command()(regenerate.regenerate)
app.command()(report.report)
app.command()(run.run)
app.command()(results.results)
app.command()(second_moment.second_moment)
app.command()(train_mend.train_mend)
app.add_typer(models.app, name="models")
app.add_typer(facts.app, name="facts")


class _ToStderr(logging.Handler):
    """Log lines on stderr, above whatever progress bar is there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(f"workbench: {record.getMessage()}", file=sys.stderr)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"workbench {workbench_version()}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    log = logging.getLogger("workbench")
    if not log.handlers:
        log.addHandler(_ToStderr())
        log.setLevel(logging.INFO)


def _fail(sentence: str) -> None:
    # an exception quoted in a sentence may bring line breaks of its own
    typer.echo("workbench: " + " ".join(line.strip() for line in sentence.splitlines()), err=True)
    sys.exit(EXIT_BAD_INPUT)


def main() -> None:
    """Run the command line; every `WorkbenchError` becomes its one sentence and exit code 2.

    Raises
    ------
    SystemExit
        Always: 0 if all went well, 1 if `facts check` rejected records, 2 for bad input, 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a terminal that cannot show δ gets "?" and no traceback
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="workbench")
    except WorkbenchError as err:
        _fail(str(err))
    except OSError as err:
        _fail(f"{err.filename or 'the system'}: {err.strerror or err}.")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
