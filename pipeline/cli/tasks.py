"""`refract tasks`: the tasks of a configuration, and exactly what the model sees for each."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_table, printable


def tasks(
    config: ConfigFile,
    *,
    show: Annotated[
        bool, typer.Option("--show", help="Print the exact prompts and their token ids.", show_default=False)
    ] = False,
    text: Annotated[
        str, typer.Option("--text", help="The text that --show puts into the prompts.")
    ] = "The server room is on fire",
    as_json: AsJson = False,
) -> None:
    """List the tasks; with --show, the exact prompt of records and queries and its token ids."""
    from pipeline.config.load import load_config
    from pipeline.usecases.tasks import list_tasks, show_prompts

    loaded = load_config(config)
    listed = [asdict(task) for task in list_tasks(loaded)]
    prompts = show_prompts(loaded, text) if show else []
    if as_json:
        shown = {"prompts": [asdict(prompt) for prompt in prompts]} if show else {}
        print_json({"tasks": listed} | shown)
        return
    print_table("", list(listed[0]), [list(task.values()) for task in listed])
    for prompt in prompts:
        typer.echo(f"\n{prompt.task}, {prompt.side} side, {len(prompt.token_ids)} tokens")
        typer.echo("\n".join(f"  | {line}" for line in printable(prompt.prompt).split("\n")))
        typer.echo(f"  {prompt.token_ids}")
