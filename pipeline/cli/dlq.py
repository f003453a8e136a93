"""`refract dlq`: the records that could not be stored, why, and how they get another try."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.exits import ExitCode
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note, print_table
from pipeline.cli.progress import progress
from pipeline.cli.times import unix_ms
from pipeline.errors import ConfigError, Reason, nearest

if TYPE_CHECKING:
    from pipeline.config.app import Config
    from pipeline.sources.letters.letter_reader import StoredLetter
    from pipeline.sources.letters.replay import Survey

dlq_app = typer.Typer(help="The dead-letter topic.", no_args_is_help=False)

_MAX_CELL = 60

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
    from pipeline.config.load import load_config
    from pipeline.sources.letters.letter_reader import read_dead_letters

    loaded = load_config(config)
    _check_choice(topic, reason, loaded)
    letters = list(read_dead_letters(loaded.source, topic=topic, reason=reason, limit=limit))
    facts = [letter_facts(letter, values=values) for letter in letters]
    if as_json:
        print_json(facts)
    elif not facts:
        typer.echo("no dead letters")
    else:
        print_table("", list(facts[0]), [[_cell(value) for value in fact.values()] for fact in facts])


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
    from pipeline.config.load import load_config
    from pipeline.records.decode import Decoders
    from pipeline.sources.letters.replay import Fate, Replay, Wanted

    loaded = load_config(config)
    _check_choice(topic, reason, loaded)
    since_ms = None if since is None else unix_ms("--since", since)
    until_ms = None if until is None else unix_ms("--until", until)
    wanted = Wanted(topic, reason, since_ms, until_ms, limit)
    replay = Replay(loaded.source, Decoders(loaded.source, loaded.limits), wanted, into_compacted=into_compacted)
    num_sent = 0
    with progress() as step:
        survey = replay.survey(step)
        if not as_json:
            _print_survey(survey)
        if survey.chosen and not dry_run:
            num_sent = replay.send(survey.chosen, step)
    if as_json:
        print_json(_survey_facts(survey) | {"replayed": num_sent, "dry_run": dry_run})
    elif dry_run:
        print_note(f"{len(survey.chosen):,} would be replayed; nothing was sent")
    else:
        typer.echo(f"replayed {num_sent:,}")
    left = survey.total(Fate.REFUSED_AGAIN, Fate.VALUE_LOST, Fate.NO_TOPIC, Fate.COMPACTED)
    if left or (num_sent < len(survey.chosen) and not dry_run):
        raise typer.Exit(ExitCode.FAILED)


def _survey_facts(survey: "Survey") -> dict[str, Any]:
    from pipeline.sources.letters.replay import Fate

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (topic, reason, fate), count in sorted(survey.counts.items()):
        row = rows.setdefault((topic, reason), {"topic": topic, "reason": reason} | dict.fromkeys(map(str, Fate), 0))
        row[fate] = count
    return {"letters": list(rows.values()), "refused_again": dict(survey.reasons_again), "copies": survey.num_copies}


def _print_survey(survey: "Survey") -> None:
    from pipeline.sources.letters.replay import Fate

    facts = _survey_facts(survey)
    if not facts["letters"]:
        typer.echo("no dead letters")
        return
    shown = ["topic", "reason", *(fate for fate in Fate if survey.total(fate))]
    print_table(
        "", [column.replace("_", " ") for column in shown], [[row[c] for c in shown] for row in facts["letters"]]
    )
    if again := survey.reasons_again:
        print_note(f"refused by this configuration: {', '.join(f'{reason} {n:,}' for reason, n in again.items())}")
    if survey.total(Fate.COMPACTED):
        print_note(
            "A replayed record becomes the last of its key, and compaction then drops a newer one: send the key's "
            "newest state again at its producer, or, where the letters are the newest, give --into-compacted"
        )
    if survey.total(Fate.VALUE_LOST):
        print_note("value lost: the letter keeps a part of the value, and the source topic does not retain the record")


def _check_choice(topic: str | None, reason: str | None, config: "Config") -> None:
    reasons = [str(known) for known in Reason]
    if reason is not None and reason not in reasons:
        raise ConfigError(f"--reason: no reason {reason!r}.{nearest(reason, reasons)} Reasons: {', '.join(reasons)}")
    if topic is not None:
        config.topic_named(topic)


def letter_facts(letter: "StoredLetter", *, values: bool) -> dict[str, Any]:
    """Returns what is shown of a letter; bytes that are no text come as hex."""
    facts: dict[str, Any] = {
        "written": dt.datetime.fromtimestamp(letter.written_ms / 1000, dt.UTC).isoformat(timespec="seconds"),
        "topic": letter.position.topic,
        "partition": letter.position.partition,
        "offset": letter.position.offset,
        "reason": letter.reason,
        "task": letter.task,
        "detail": letter.detail,
        "key": _text(letter.key),
        "bytes": letter.num_value_bytes,
    }
    if values:
        facts["value"] = _text(letter.value)
    return facts


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"hex:{value.hex()}"


def _cell(value: object) -> object:
    if isinstance(value, str) and len(value) > _MAX_CELL:
        return f"{value[: _MAX_CELL - 1]}…"
    return value
