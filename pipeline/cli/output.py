"""How verbs print: tables for people, JSON for scripts, one line on stderr for an error."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import typer

_PIPE_WIDTH = 250
"""Columns of a table nobody looks at directly: wide enough that no line wraps."""


def print_json(value: Any, *, indent: bool = True) -> None:
    """Prints a value as JSON on stdout."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0, default=str).decode())


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table on stdout; columns whose cells are all numbers stand on the right."""
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(cells) and all(isinstance(row[index], int | float) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        # Text, not str: a ticket that says "[/red]" must not be read as markup.
        table.add_row(*(Text(cell_text(cell)) for cell in row))
    print_rich(table)


def print_rich(renderable: Any) -> None:
    """Prints something of rich's on stdout, without colours and wrapping when that is not a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(renderable)


def cell_text(value: object) -> str:
    """Returns a value as a person reads it: thousands separated, absent as a dash, control characters escaped."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1 else f"{value:,.1f}"
    return printable(str(value))


def printable(text: str) -> str:
    """Returns the text with everything escaped that could move a terminal's cursor or hide something."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def print_error(message: str) -> None:
    """Prints one message on stderr, each of its lines marked."""
    label = typer.style("error:", fg=typer.colors.RED, bold=True)
    for line in message.splitlines() or [""]:
        typer.echo(f"{label} {printable(line)}", err=True)


def print_note(message: str) -> None:
    """Prints a line on stderr that is not an error: progress, advice."""
    typer.echo(printable(message), err=True)


def shortened(value: object, max_chars: int) -> object:
    """Returns the value; a longer text cut to so many characters, an ellipsis included."""
    return f"{value[: max_chars - 1]}…" if isinstance(value, str) and len(value) > max_chars else value
