"""`refract plan`: what a backfill will take, before it is started."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.backfill import checked_fragments, chosen_tasks, chosen_topic
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_note, print_table
from pipeline.cli.progress import progress
from pipeline.config.app import Config
from pipeline.config.store import EdgeStoreConfig
from pipeline.errors import RefractError

if TYPE_CHECKING:
    from pipeline.backfill.estimate import Estimate, Pace
    from pipeline.backfill.fragments import Fragment
    from pipeline.backfill.sample import Sample, Size, Tokens
    from pipeline.tasks import Task

SERVER_POINTS_PER_S = 13_000
"""Guarded upserts of 384 values into one shard of a Qdrant 1.19 server on two cores, measured."""

_UNIT_STEP = 1_000


def plan(
    config: ConfigFile,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT…", help="As of `refract backfill`: files, folders, globs or kafka://TOPIC."),
    ],
    *,
    tasks: Annotated[str | None, typer.Option("--tasks", help="Some tasks, by comma.", show_default="all")] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", help="Whose rules the rows follow.", show_default="the only one")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Rows to look at.")] = 2_000,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to join.", show_default="ray.address, else a new one")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a backfill will take: rows, tokens, time, price and room in the store. Nothing is written.

    A sample of the input is read, and the first rows are embedded for some seconds by the real path on this cluster,
    into a store that is thrown away.
    """
    from actors.rehearsal import rehearse
    from pipeline.backfill.estimate import estimate
    from pipeline.backfill.sample import measure_size, take_sample
    from pipeline.config.load import ConfigTree
    from pipeline.context import Context

    source = ConfigTree.read(config)
    context = Context(source)
    name = chosen_topic(context.config, topic, inputs)
    chosen = [context.tasks[task] for task in chosen_tasks(context.config.source.topics[name].tasks, tasks)]
    fragments = checked_fragments(context.config, name, inputs)
    with progress() as step:
        size = measure_size(fragments)
        if not size.num_rows:
            raise RefractError(f"no row of the input can be read (files: {size.num_files}); there is nothing to plan")
        taken = take_sample(fragments, size, name, context.config, sample, step)
        tokens = _tokens(context.config, chosen, taken)
        pace = rehearse(
            source,
            name,
            [task.name for task in chosen],
            _spread(fragments),
            address or context.config.ray.address,
            lambda doing, done: step(doing, done, size.num_rows if done else 0),
        )
    found = estimate(context.config, chosen, size, taken, tokens, pace)
    if as_json:
        print_json(_facts(found, size, taken, pace))
    else:
        _print(context.config, name, found, size, taken, pace)


def _tokens(config: Config, tasks: "Sequence[Task]", sample: "Sample") -> "dict[str, Tokens]":
    from pipeline.backfill.sample import count_tokens
    from pipeline.engine.load import load_tokenizer

    if not sample.texts:
        return {}
    found: dict[str, Tokens] = {}
    for name in {task.config.model for task in tasks}:
        own = {task.name: task.config for task in tasks if task.config.model == name}
        tokenizer = load_tokenizer(config.models[name], own)
        found |= dict(zip(own, count_tokens(tokenizer, sample.texts, list(own)), strict=True))
    return found


def _spread(fragments: "Sequence[Fragment]") -> "list[Fragment]":
    """Returns the fragments with the first ones from all over the input."""
    stride = max(len(fragments) // 16, 1)
    return [fragment for first in range(stride) for fragment in fragments[first::stride]]


def _facts(found: "Estimate", size: "Size", sample: "Sample", pace: "Pace") -> dict[str, Any]:
    return {
        "input": {"files": size.num_files, "bytes": size.num_bytes, "rows": size.num_rows, "exact": size.exact},
        "sample": {
            "rows": sample.num_rows,
            "stored_share": sample.stored_share,
            "rejected": dict(sample.bad),
            "duplicate_texts": sample.duplicate_texts,
            "duplicate_keys": sample.duplicate_keys,
            "payload_bytes": sample.payload_bytes,
            "unreadable": sample.faults,
        },
        "pace": asdict(pace),
        **asdict(found),
    }


def _print(config: Config, topic: str, found: "Estimate", size: "Size", sample: "Sample", pace: "Pace") -> None:
    about = "" if size.exact else "about "
    print_table(
        f"Backfill of {topic}",
        ["", "estimate", "from"],
        [
            ["input", f"{about}{size.num_rows:,} rows", f"{size.num_files:,} files, {_bytes(size.num_bytes)}"],
            ["rejected", _share(sum(sample.bad.values()), sample.num_rows), _bad(sample)],
            ["duplicate texts", f"at least {sample.duplicate_texts:.1%}", "of the sample"],
            ["duplicate keys", f"at least {sample.duplicate_keys:.1%}", "of the sample; the newest version stays"],
            ["pace", f"{pace.rows_per_s:,.0f} rows/s", _measured(pace)],
            ["time", _duration(found.seconds), f"{pace.first_s:.0f} s of them until the first rows are through"],
            *([["GPU hours", f"{found.gpu_hours:,.2f}", "of the embedders that took part"]] if found.gpu_hours else []),
            *(
                [["price", f"{found.price:,.2f}", f"at {config.ray.gpu_hour_price:,} a GPU hour"]]
                if found.price
                else []
            ),
        ],
    )
    print_table(
        "Tasks",
        ["task", "model", "tokens/row", "instruction", "cut", "cost", "points", "RAM", "disk"],
        [
            [
                part.task,
                f"{part.model}, {part.dimension} values",
                f"{part.tokens.prompt:,.0f}" if part.tokens else "-",
                f"{part.tokens.instruction:,.0f}" if part.tokens else "-",
                f"{part.tokens.truncated_share:.1%}" if part.tokens else "-",
                f"{part.share:.0%}" + ("" if part.price is None else f", {part.price:,.2f}"),
                f"{part.points:,}",
                _bytes(part.ram_bytes),
                _bytes(part.disk_bytes),
            ]
            for part in found.tasks
        ],
    )
    for line in [*found.savings, *sample.faults]:
        print_note(line)
    if not isinstance(config.store, EdgeStoreConfig):
        print_note(
            f"The pace is that of an embedded store. A server takes about {SERVER_POINTS_PER_S:,} points a second and "
            f"shard, so {_duration(sum(part.points for part in found.tasks) / SERVER_POINTS_PER_S)} with one shard"
        )


def _bad(sample: "Sample") -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sample.bad.most_common())
    return f"sample of {sample.num_rows:,}" + (f": {reasons}" if reasons else "")


def _measured(pace: "Pace") -> str:
    busy = f", computing {pace.embedder_busy:.0%} of the time" if pace.embedder_busy else ""
    return f"measured here with {pace.num_rows:,.0f} rows and {pace.num_embedders} embedders{busy}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _bytes(count: float) -> str:
    unit, *larger = ("B", "kB", "MB", "GB", "TB")
    while count >= _UNIT_STEP and larger:
        count, unit = count / _UNIT_STEP, larger.pop(0)
    return f"{count:,.1f} {unit}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes > 1 else f"{seconds:.0f} s"
