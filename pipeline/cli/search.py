"""`refract search`: asks the running app."""

from typing import Annotated, Any

import typer

from pipeline.cli.filter_options import FILTER_HELP, parse_filter_options
from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_table, shortened
from pipeline.errors import ConfigError

_MAX_CELL = 80


def search(
    config: ConfigFile,
    text: Annotated[str | None, typer.Argument(help="What to look for.", show_default=False)] = None,
    *,
    task: Annotated[str, typer.Option("--task", "-t", help="Which task's collection to search.", show_default=False)],
    key: Annotated[
        str | None, typer.Option("--id", help="Instead of TEXT: find neighbours of this record.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many hits.")] = 10,
    where: Annotated[
        list[str] | None,
        typer.Option("--filter", "-f", metavar="FIELD=VALUE", help=FILTER_HELP),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search the running app under one task."""
    from pipeline.config.load import load_config
    from pipeline.usecases.client import AppClient

    if (text is None) == (key is None):
        raise ConfigError("give either TEXT or --id")
    settings = load_config(config)
    filters = parse_filter_options(where or [], settings.payload_of(task))
    with AppClient(settings) as app:
        answer = app.search(task, text=text, key=key, limit=limit, filters=filters)
    if as_json:
        print_json(answer)
    else:
        _print_hits(answer)


def _print_hits(answer: dict[str, Any]) -> None:
    hits = answer["hits"]
    fields = list(dict.fromkeys(name for hit in hits for name in hit["payload"] if not name.startswith("_")))
    rows = [
        [f"{hit['score']:.3f}", hit["key"], *(shortened(hit["payload"].get(name), _MAX_CELL) for name in fields)]
        for hit in hits
    ]
    print_table(f"{answer['task']} ({answer['collection']})", ["score", "key", *fields], rows)
