"""`refract check`: everything that can be found wrong before anything starts."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_error, print_json, print_note, print_table
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.usecases.check import CheckReport


def check(
    config: ConfigFile,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask neither brokers nor store.", show_default=False)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Validate a configuration and print the resolved plan. Starts and creates nothing.

    Exit code 2: something must be changed. Exit code 3: only brokers or store could not be reached.
    """
    from pipeline.context import Context
    from pipeline.usecases.check import FaultKind
    from pipeline.usecases.check import check as check_config

    try:
        report = check_config(Context.open(config), offline=offline)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "faults": [{"kind": "config", "message": line} for line in str(error).splitlines()]})
        raise typer.Exit(ExitCode.CONFIG) from None
    if as_json:
        print_json(report.tree())
    else:
        _print_report(report)
    if any(fault.kind is FaultKind.CONFIG for fault in report.faults):
        raise typer.Exit(ExitCode.CONFIG)
    if report.faults:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _print_report(report: "CheckReport") -> None:
    columns = [
        "topic",
        "task",
        "mode",
        "model",
        "dim",
        "collection",
        "in the store",
        "a record becomes",
        "a query becomes",
    ]
    print_table(
        f"pipeline {report.pipeline}",
        columns,
        [
            [
                task.topic,
                task.task,
                task.mode,
                task.model,
                task.dimension,
                task.collection or task.alias,
                task.state,
                _visible(task.record_prompt),
                _visible(task.query_prompt),
            ]
            for task in report.tasks
        ],
    )
    _print_facts(report.source)
    if report.store:
        typer.echo(f"store: {report.store}")
    for line in report.skipped:
        print_note(f"not checked: {line}")
    for line in report.advice:
        print_note(f"advice: {line}")
    for fault in report.faults:
        print_error(fault.message)
    if not report.faults:
        typer.echo("No fault found.")


def _print_facts(facts: dict[str, Any]) -> None:
    """What the brokers say, a line a fact."""
    for name, value in facts.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{topic} ({count} partitions)" for topic, count in value.items())
        elif isinstance(value, list):
            shown = ", ".join(map(str, value))
        typer.echo(f"kafka {name}: {shown}")


def _visible(prompt: str) -> str:
    """Line ends shown as such: a prompt's blanks and lines decide its vector."""
    return prompt.replace("\n", "\\n")
