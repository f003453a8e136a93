"""What the demo shows: the records on their way, the same questions under every task, and a count of the promise."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import typer

from pipeline.cli.output import print_note, print_table
from pipeline.cli.status_view import status_view
from pipeline.errors import RefractError
from pipeline.usecases.demo import MAX_HITS, Answers, Proof
from pipeline.usecases.demo_setup import Demo
from pipeline.usecases.running import State

_LINE_S = 5.0
_MAX_CELL = 46


def show_states(states: Iterable[State]) -> None:
    """Shows a live table on a terminal, a line every few seconds elsewhere."""
    if not sys.stdout.isatty():
        _print_lines(states)
        return
    from rich.live import Live

    with Live(auto_refresh=False) as table:
        for state in states:
            table.update(status_view(state), refresh=True)


def show_answers(answers: Iterable[Answers]) -> None:
    """Prints the hits of each question under every task, side by side."""
    for answer in answers:
        columns = list(answer.hits.values())
        cells = [[_cell(hits[row]) if row < len(hits) else "" for hits in columns] for row in range(MAX_HITS)]
        print_table(answer.question, list(answer.hits), cells)


def show_proof(proofs: Sequence[Proof], dead_letters: Mapping[str, int]) -> None:
    """Prints what each collection holds of what was sent. Raises RefractError when that is wrong."""
    if proofs:
        columns = ["task", "live", "deleted", "newest version", "wrong"]
        print_table("the store against the source", columns, [astuple(proof) for proof in proofs])
    if dead_letters:
        print_table("dead letters", ["reason", "records"], sorted(dead_letters.items()))
    if any(proof.wrong for proof in proofs):
        raise RefractError("the store does not hold what the source says")


def show_next_steps(demo: Demo, url: str) -> None:
    """Says where to look, what to type, and what the demo's model is not."""
    typer.echo(f"\nThe API:       {url}/docs")
    typer.echo(
        f'Search:        .venv/bin/refract search {demo.path} --task {demo.tasks[0]} "the server room is on fire"'
    )
    typer.echo(f"Status:        .venv/bin/refract status {demo.path}")
    typer.echo(f"Dead letters:  .venv/bin/refract dlq list {demo.path}")
    typer.echo('Your own data: make demo DATA=my.csv TEXT="{title} {body}" KEY=id')
    typer.echo(
        "\nThe packaged all-MiniLM-L6-v2 was not trained on instructions: its tasks differ because the instruction is\n"
        "part of the text, not because it understood one. Name a model that was, for example\n"
        "Qwen/Qwen3-Embedding-0.6B, under `models` (see configs/qwen3.yaml)."
    )


def _print_lines(states: Iterable[State]) -> None:
    last_s = 0.0
    for state in states:
        if time.monotonic() - last_s < _LINE_S:
            continue
        last_s = time.monotonic()
        facts = next(iter(state["topics"].values()))
        tasks = ", ".join(
            f"{name}: {task['written']:,} written, {task['stale']} stale" for name, task in facts["tasks"].items()
        )
        dead = sum(facts["dead_letters"].values())
        print_note(f"{facts['received']:,} in; {tasks}; {dead} dead letters")


def _cell(hit: Mapping[str, Any]) -> str:
    shown = ", ".join(str(value) for value in hit["payload"].values() if value)
    return f"{hit['score']:.2f} {hit['key']} {shown[:_MAX_CELL]}"
