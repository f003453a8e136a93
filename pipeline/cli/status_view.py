"""The tables of `refract status`, which `run` and `demo` show too."""

from collections.abc import Mapping
from typing import Any


def status_view(state: Mapping[str, Any]) -> Any:
    """Returns the answer of `/v1/status` as something rich can print."""
    from rich.console import Group
    from rich.text import Text

    ready = Text("ready", style="green") if state["ready"] else Text(f"not ready: {state['reason']}", style="red")
    headline = Text.assemble(ready, f", up {_duration(state['uptime_s'])}")
    return Group(headline, _task_table(state["topics"]), _topic_table(state["topics"]), _model_table(state["models"]))


def _task_table(topics: dict[str, Any]) -> Any:
    rows = [
        [
            topic,
            task,
            *(counts[name] for name in ("embedded", "written", "stale", "deleted", "truncated")),
            _milliseconds(counts["freshness_p50_s"]),
            _milliseconds(counts["freshness_p99_s"]),
        ]
        for topic, facts in topics.items()
        for task, counts in facts["tasks"].items()
    ]
    columns = ["embedded", "written", "stale", "deleted", "truncated", "freshness p50", "p99"]
    return _table(["topic", "task"], columns, rows)


def _topic_table(topics: dict[str, Any]) -> Any:
    rows = [
        [
            topic + (" (paused)" if facts["paused"] else ""),
            ", ".join(f"{reason} {count:,}" for reason, count in sorted(facts["dead_letters"].items())) or "-",
            facts["received"],
            facts["lag_records"],
            _duration(facts["lag_seconds"]),
        ]
        for topic, facts in topics.items()
    ]
    return _table(["topic", "dead letters"], ["received", "lag records", "lag"], rows)


def _model_table(models: dict[str, Any]) -> Any:
    rows = [
        [name, facts["replicas"], f"{facts['occupancy']:.0%}", facts["queued"], f"{facts['tokens_per_s']:,.0f}"]
        for name, facts in models.items()
    ]
    return _table(["model"], ["replicas", "occupancy", "queued", "tokens/s"], rows)


def _table(names: list[str], numbers: list[str], rows: list[list[Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from pipeline.cli.output import cell_text

    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right")
    for row in rows:
        table.add_row(*(Text(cell_text(cell)) for cell in row))
    return table


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:,.0f} ms"


def _duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 05 s`, `4.2 s`."""
    if seconds < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
