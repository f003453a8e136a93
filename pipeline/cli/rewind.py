"""`refract rewind`: has records read again, for a task that is new or a collection that was lost."""

from typing import Annotated

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note, print_table
from pipeline.cli.times import unix_ms
from pipeline.errors import ConfigError, nearest

_EARLIEST = "earliest"


def rewind(
    config: ConfigFile,
    *,
    to: Annotated[
        str, typer.Option("--to", help="earliest, or an RFC 3339 date or time: from there on.", show_default=False)
    ],
    topic: Annotated[
        str | None, typer.Option("--topic", help="Only this source topic.", show_default="all of the file's")
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it. Without it only the plan is shown.", show_default=False)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move the group's offsets back, so that the next run reads records again. The group must be stopped.

    Nothing is overwritten by what is read again: the version guard lets a record through only where its point is
    missing or older. So this fills the collection of a new task, or one that was lost; the price is one embedding
    per record and task.
    """
    from pipeline.config.load import load_config
    from pipeline.sources.group.rewinding import members_of, plan_rewind
    from pipeline.sources.group.rewinding import rewind as move_offsets

    loaded = load_config(config)
    topics = loaded.source.topics
    moves = plan_rewind(loaded.source, [loaded.topic_named(topic)] if topic else list(topics), _since_ms(to))
    num_offsets = sum(move.num_offsets for move in moves.values())
    num_embeddings = sum(move.num_offsets * len(topics[place.topic].tasks) for place, move in moves.items())
    members = members_of(loaded.source)
    executed = execute and bool(moves)
    if executed:
        move_offsets(loaded.source, moves)
    rows = [(place.topic, place.number, move.committed, move.target, move.num_offsets) for place, move in moves.items()]
    columns = ["topic", "partition", "committed", "target", "records"]
    if as_json:
        partitions = [dict(zip(columns, row, strict=True)) for row in rows]
        facts = {"partitions": partitions, "embeddings": num_embeddings, "members": members, "executed": executed}
        print_json(facts)
        return
    print_table("", columns, rows)
    print_note(f"at most {num_offsets:,} records are read again, {num_embeddings:,} embeddings")
    if not num_offsets:
        print_note("nothing to move")
    elif executed:
        print_note(f"moved; the next `refract run {config}` reads them")
    else:
        for name in dict.fromkeys(place.topic for place, move in moves.items() if move.num_offsets):
            print_note(f"how long it takes: refract plan {config} 'kafka://{name}?from={to}'")
        stop = f", once the group's {members} members are stopped" if members else ""
        print_note(f"nothing was changed; --execute does it{stop}")


def _since_ms(to: str) -> int | None:
    if to == _EARLIEST:
        return None
    try:
        return unix_ms("--to", to, _EARLIEST)
    except ConfigError as error:
        raise ConfigError(f"{error}{nearest(to, [_EARLIEST])}") from None
