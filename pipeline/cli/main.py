"""The command line: `refract VERB CONFIG …`. Verbs are one module each; nothing heavy is imported before one runs."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from pipeline.cli.backfill import backfill
from pipeline.cli.bench import bench
from pipeline.cli.check import check
from pipeline.cli.config import config_app
from pipeline.cli.demo import demo
from pipeline.cli.dlq import dlq_app
from pipeline.cli.evaluate import evaluate
from pipeline.cli.exits import MEANINGS, ExitCode
from pipeline.cli.output import print_error
from pipeline.cli.plan import plan
from pipeline.cli.produce import produce
from pipeline.cli.purge import purge
from pipeline.cli.repair import repair
from pipeline.cli.rewind import rewind
from pipeline.cli.run import run
from pipeline.cli.search import search
from pipeline.cli.serve_config import serve_config
from pipeline.cli.status import status
from pipeline.cli.tasks import tasks
from pipeline.cli.tune import tune
from pipeline.cli.verify import verify
from pipeline.errors import ConfigError, RefractError, TransientError
from pipeline.version import __version__

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4}{meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="refract",
    help="Streams Kafka records through instruction-tuned embedding models into one Qdrant collection per task.",
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(check)
app.command()(run)
app.command()(demo)
app.command()(produce)
app.command()(search)
app.command()(tasks)
app.command()(tune)
app.command()(bench)
app.command()(evaluate)
app.command()(status)
app.add_typer(dlq_app, name="dlq")
app.command()(plan)
app.command()(backfill)
app.command()(rewind)
app.command()(verify)
app.command()(repair)
app.command()(purge)
app.command()(serve_config)
app.add_typer(config_app, name="config")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", show_default=False)] = False,
) -> None:
    if version:
        typer.echo(f"refract {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        from pipeline.logs import configure_logs

        configure_logs()  # to stderr: on stdout a line would spoil `--json`


def main() -> None:
    """The entry point of the `refract` program."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code.

    Errors become one message on stderr; REFRACT_DEBUG=1 lets the traceback through.
    """
    try:
        code = get_command(app).main(args=list(args), prog_name="refract", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("REFRACT_DEBUG") == "1":
            raise
        return _report(error)
    return code if isinstance(code, int) else ExitCode.OK


def _report(error: BaseException) -> ExitCode:
    """Prints what went wrong and returns the exit code that says so."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, typer.TyperException):
        print_error(f"{error.format_message()}\nTry: refract --help")
        return ExitCode.CONFIG
    if isinstance(error, RefractError):
        print_error(str(error))
        if isinstance(error, ConfigError):
            return ExitCode.CONFIG
        return ExitCode.UNREACHABLE if isinstance(error, TransientError) else ExitCode.FAILED
    print_error(f"{type(error).__name__}: {error}\nThis is a bug. REFRACT_DEBUG=1 shows where it happened.")
    return ExitCode.FAILED
