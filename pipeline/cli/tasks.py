"""`refract tasks`: the tasks of a configuration, and exactly what the model sees for each."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pipeline.cli.options import AsJson, ConfigFile
from pipeline.cli.output import print_json, print_table, printable
from pipeline.config.app import Config

_SAMPLE = "The server room is on fire"


def tasks(
    config: ConfigFile,
    *,
    show: Annotated[
        bool, typer.Option("--show", help="Print the exact prompts and their token ids.", show_default=False)
    ] = False,
    text: Annotated[str, typer.Option("--text", help="The text that --show puts into the prompts.")] = _SAMPLE,
    as_json: AsJson = False,
) -> None:
    """List the tasks; with --show, the exact prompt of records and queries and its token ids."""
    from pipeline.config.load import load_config

    loaded = load_config(config)
    listed = [_facts(loaded, name) for name in loaded.tasks]
    shown = list(prompts(loaded, text)) if show else []
    if as_json:
        print_json({"tasks": listed, "prompts": shown} if show else {"tasks": listed})
        return
    if listed:
        print_table("", list(listed[0]), [list(facts.values()) for facts in listed])
    for prompt in shown:
        typer.echo(f"\n{prompt['task']}, {prompt['side']} side, {len(prompt['token_ids'])} tokens")
        typer.echo("\n".join(f"  | {line}" for line in printable(prompt["prompt"]).split("\n")))
        typer.echo(f"  {prompt['token_ids']}")


def prompts(config: Config, text: str) -> Iterator[dict[str, Any]]:
    """Yields what each task's model sees for a text, for records and, where they differ, for queries."""
    from pipeline.usecases.check import prompter

    for model_name, model in config.models.items():
        own = config.tasks_of(model_name)
        if not own:
            continue
        shown = prompter(model, own)
        for name, task in own.items():
            sides = (
                {"record": name, "query": f"{name}:query"} if task.mode == "retrieval" else {"record and query": name}
            )
            for side, prompt_name in sides.items():
                prompt, token_ids = shown.show(prompt_name, text)
                yield {"task": name, "side": side, "prompt": prompt, "token_ids": token_ids}


def _facts(config: Config, name: str) -> dict[str, Any]:
    task = config.tasks[name]
    return {
        "task": name,
        "mode": task.mode,
        "model": f"{task.model} ({config.models[task.model].model})",
        "collection": task.collection or name,
        "dimension": task.dimension,
        "topics": ", ".join(topic for topic, facts in config.source.topics.items() if name in facts.tasks),
        "instruction": task.instruction,
        "query_instruction": task.query_instruction,
    }
