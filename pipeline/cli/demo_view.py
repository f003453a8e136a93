"""What the demo shows: the records on their way, the same questions under every task, and a count of the promise."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import typer

from pipeline.cli.output import print_note, print_table, shortened
from pipeline.cli.status_view import status_view
from pipeline.errors import RefractError
from pipeline.usecases.demo import MAX_HITS, Answers, Proof, shared_hits
from pipeline.usecases.demo_setup import Demo
from pipeline.usecases.running import State

if TYPE_CHECKING:
    from pipeline.quality.evaluation import Evaluation

_LINE_S = 5.0
_MAX_CELL = 24
"""So that four columns stand beside each other in a terminal of 120."""


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
    shown = []
    for answer in answers:
        cells = [
            [_cell(task, hits[row]) if row < len(hits) else "" for task, hits in answer.hits.items()]
            for row in range(MAX_HITS)
        ]
        print_table(answer.question, list(answer.hits), cells)
        shown.append(answer)
    if any(len(answer.hits) > 1 for answer in shown):
        print_note(f"Two columns share {shared_hits(shown):.1f} of {MAX_HITS} hits on average.")


def show_matrix(evaluation: "Evaluation | None") -> None:
    """Prints what each task's vectors tell of every label."""
    if evaluation is None:
        return
    from pipeline.cli.evaluate_view import print_matrix
    from pipeline.quality.verdict import judge

    verdict = judge(evaluation)
    typer.echo(f"\n{verdict.headline}\n{verdict.reason}")
    print_matrix(evaluation)


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
        "\nThe model is all-MiniLM-L6-v2 with an adapter that `make model` taught to read these four instructions, on\n"
        "1,536 tickets written for it; none of the tickets above is among them. Train one on your labels: refract tune."
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


def _cell(task: str, hit: Mapping[str, Any]) -> str:
    """Two lines: the task's own label, where the payload has one, since the column is about it; then the record."""
    payload = hit["payload"]
    values = [str(value) for name, value in payload.items() if value and name != task]
    if task in payload:
        return f"{hit['score']:.2f} {payload[task]}\n{shortened(payload.get('title') or hit['key'], _MAX_CELL)}"
    return f"{hit['score']:.2f} {hit['key']}\n{shortened(', '.join(values), _MAX_CELL)}"
