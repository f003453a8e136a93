"""What the demo shows once everything has arrived: the same questions under every task, and a count of the promise."""

from typing import TYPE_CHECKING, Any

import typer

from pipeline.cli.demo_setup import Demo
from pipeline.cli.output import print_table
from pipeline.config.app import Config
from pipeline.errors import RefractError
from pipeline.records.record import point_id
from pipeline.usecases.client import AppClient

if TYPE_CHECKING:
    from actors.run import RunningApp

QUERIES = (
    "nobody in the company can log in and customers are calling, please help right now",
    "when you find a quiet moment: my printer leaves a small grey line on the paper",
)
MAX_HITS = 5
MAX_CELL = 46


def show_searches(client: AppClient, config: Config, demo: Demo) -> None:
    """Asks the same questions under every task and prints the answers side by side."""
    for query in QUERIES:
        _side_by_side(f'search "{query}"', client, config, demo, {"text": query})


def show_neighbours(client: AppClient, config: Config, demo: Demo) -> None:
    """Prints the neighbours of one stored record under every task."""
    key = next((key for key, (_, deleted) in demo.newest.items() if not deleted), None)
    if key is None:
        key = client.post("/v1/search", {"task": _tasks(config, demo)[0], "text": QUERIES[0], "limit": 1})["hits"][0][
            "key"
        ]
    _side_by_side(f"neighbours of record {key}", client, config, demo, {"id": key})


def show_proof(app: "RunningApp", demo: Demo) -> None:
    """Compares every record sent with what each collection holds now. Raises RefractError when they differ."""
    from pipeline.sources.letters.letter_reader import read_dead_letters

    if demo.newest:
        rows = [_compare(app, demo, task) for task in _tasks(app.config, demo)]
        print_table("the store against the source", ["task", "live", "deleted", "newest version", "wrong"], rows)
    letters: dict[str, int] = {}
    for letter in read_dead_letters(app.config.source):
        letters[str(letter.reason)] = letters.get(str(letter.reason), 0) + 1
    if letters:
        print_table("dead letters", ["reason", "records"], sorted(letters.items()))
    if demo.newest and any(row[-1] for row in rows):
        raise RefractError("the store does not hold what the source says")


def show_next_steps(app: "RunningApp", demo: Demo) -> None:
    """Says where to look, what to type, and what the demo's model is not."""
    task = _tasks(app.config, demo)[0]
    typer.echo(f"\nThe API:       {app.url}/docs")
    typer.echo(f'Search:        .venv/bin/refract search {demo.path} --task {task} "the server room is on fire"')
    typer.echo(f"Status:        .venv/bin/refract status {demo.path}")
    typer.echo(f"Dead letters:  .venv/bin/refract dlq list {demo.path}")
    typer.echo('Your own data: make demo DATA=my.csv TEXT="{title} {body}" KEY=id')
    typer.echo(
        "\nThe packaged all-MiniLM-L6-v2 was not trained on instructions: its tasks differ because the instruction is\n"
        "part of the text, not because it understood one. Name a model that was, for example\n"
        "Qwen/Qwen3-Embedding-0.6B, under `models` (see configs/qwen3.yaml)."
    )


def _side_by_side(title: str, client: AppClient, config: Config, demo: Demo, query: dict[str, Any]) -> None:
    tasks = _tasks(config, demo)
    answers = [client.post("/v1/search", {"task": task, "limit": MAX_HITS, **query})["hits"] for task in tasks]
    cells = [[_cell(hits[row]) if row < len(hits) else "" for hits in answers] for row in range(MAX_HITS)]
    print_table(title, tasks, cells)


def _cell(hit: dict[str, Any]) -> str:
    shown = ", ".join(str(value) for value in hit["payload"].values() if value)
    return f"{hit['score']:.2f} {hit['key']} {shown[:MAX_CELL]}"


def _tasks(config: Config, demo: Demo) -> list[str]:
    return list(config.source.topics[demo.topic].tasks)


def _compare(app: "RunningApp", demo: Demo, task: str) -> list[Any]:
    ids = {point_id(app.config.pipeline, f"s:{key}"): version for key, version in demo.newest.items()}
    collection = app.tasks[task].collection
    stored = {point.id: (point.version, point.deleted) for point in app.store().retrieve(collection, list(ids))}
    num_wrong = sum(stored.get(point) != version for point, version in ids.items())
    num_wrong += abs(app.store().count(collection) - sum(not deleted for _, deleted in ids.values()))
    num_live = sum(not deleted for _, deleted in stored.values())
    return [task, num_live, len(stored) - num_live, len(ids) - num_wrong, num_wrong]
