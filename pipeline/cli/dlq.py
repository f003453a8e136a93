"""`refract dlq`: the records that could not be stored, and why."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_table
from pipeline.errors import ConfigError, Reason, nearest

if TYPE_CHECKING:
    from pipeline.sources.letter_reader import StoredLetter

dlq_app = typer.Typer(help="The dead-letter topic.", no_args_is_help=False)

_MAX_CELL = 60


@dlq_app.callback()
def _dlq() -> None:
    """Keeps `list` a verb of its own while it is the only one."""


@dlq_app.command("list")
def list_letters(
    config: ConfigFile,
    *,
    topic: Annotated[str | None, typer.Option("--topic", help="Only this source topic's.", show_default=False)] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Only this reason's.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 20,
    values: Annotated[
        bool, typer.Option("--values", help="Show the records themselves as well.", show_default=False)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest last: where each record was, why it was refused, by which task."""
    from pipeline.config.load import load_config
    from pipeline.sources.letter_reader import read_dead_letters

    loaded = load_config(config)
    reasons = [str(known) for known in Reason]
    if reason is not None and reason not in reasons:
        raise ConfigError(f"--reason: no reason {reason!r}.{nearest(reason, reasons)} Reasons: {', '.join(reasons)}")
    if topic is not None and topic not in loaded.source.topics:
        topics = loaded.source.topics
        raise ConfigError(f"--topic: {topic!r} is no source topic of this file.{nearest(topic, topics)}")
    letters = list(read_dead_letters(loaded.source, topic=topic, reason=reason, limit=limit))
    facts = [letter_facts(letter, values=values) for letter in letters]
    if as_json:
        print_json(facts)
    elif not facts:
        typer.echo("no dead letters")
    else:
        print_table("", list(facts[0]), [[_cell(value) for value in fact.values()] for fact in facts])


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
