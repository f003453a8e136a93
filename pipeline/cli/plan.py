"""`refract plan`: what a backfill will take, before it is started."""

from typing import Annotated

import typer

from pipeline.cli.backfill_view import BackfillView
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json
from pipeline.cli.plan_view import print_estimate


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
    from actors.backfill_run import RayExecutor
    from pipeline.context import Context
    from pipeline.usecases.estimate import EstimateRequest, estimate_backfill

    context = Context.open(config)
    request = EstimateRequest(inputs, topic, None if tasks is None else tasks.split(","), sample)
    with BackfillView() as view:
        report = estimate_backfill(context, request, RayExecutor(address or context.config.ray.address), view)
    if as_json:
        print_json(report.tree())
    else:
        print_estimate(report, context.config.ray.gpu_hour_price)
