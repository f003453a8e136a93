"""`refract dlq`: the records that could not be stored, why, and how they get another try."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note
from pipeline.cli.progress import progress
from pipeline.cli.time_options import unix_ms

dlq_app = typer.Typer(help="The dead-letter topic.", no_args_is_help=False)

Topic = Annotated[str | None, typer.Option("--topic", help="Only this source topic's.", show_default=False)]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only this reason's.", show_default=False)]


@dlq_app.command("list")
def list_letters(
    config: ConfigFile,
    *,
    topic: Topic = None,
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 20,
    values: Annotated[
        bool, typer.Option("--values", help="Show the records themselves as well.", show_default=False)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest last: where each record was, why it was refused, by which task."""
    from pipeline.cli.letters_view import print_letters
    from pipeline.context import Context
    from pipeline.usecases import letters

    found = letters.list_letters(Context.open(config), topic=topic, reason=reason, limit=limit)
    facts = [letter.tree(value=values) for letter in found]
    if as_json:
        print_json(facts)
    else:
        print_letters(facts)


@dlq_app.command("replay")
def replay_letters(
    config: ConfigFile,
    *,
    topic: Topic = None,
    reason: ReasonOption = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only letters written at this time or later.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Only letters written before this time.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="The oldest so many.", show_default="all")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.", show_default=False)
    ] = False,
    into_compacted: Annotated[
        bool,
        typer.Option("--into-compacted", help="Replay into compacted topics as well.", show_default=False),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their source topics, once the cause is mended. The version guard decides.

    A replayed record keeps its version, so it never wins against a newer state of its key, and a second replay
    changes nothing. What this configuration would refuse again is not sent. Everybody who reads the topic sees the
    record again. Exit code 1: some letters were not replayed.
    """
    from pipeline.cli.letters_view import print_survey
    from pipeline.context import Context
    from pipeline.usecases.letters import LetterReplay, ReplayRequest

    since_ms = None if since is None else unix_ms("--since", since)
    until_ms = None if until is None else unix_ms("--until", until)
    request = ReplayRequest(topic, reason, since_ms, until_ms, limit, into_compacted)
    with progress() as step:
        replay = LetterReplay(Context.open(config), request)
        report = replay.survey(step)
        if not as_json:
            print_survey(report)  # before anything is sent
        if not dry_run:
            report = replay.send(step)
    if as_json:
        print_json(asdict(report))
    elif dry_run:
        print_note(f"{report.total('replay'):,} would be replayed; nothing was sent")
    else:
        typer.echo(f"replayed {report.replayed:,}")
    if not report.complete:
        raise typer.Exit(ExitCode.FAILED)
