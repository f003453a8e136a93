"""Labelled rows in files, and a configuration that reads them."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.config_trees import tree

ISSUES = ("email", "printer", "vpn")
URGENCIES = ("high", "low")


def rows(number: int = 60) -> list[dict[str, Any]]:
    """Tickets with both labels, every combination equally often."""
    return [
        {
            "id": f"T-{row}",
            "title": f"ticket {row}",
            "body": f"{ISSUES[row % 3]} is {URGENCIES[row // 3 % 2]}",
            "updated_at": 1_700_000_000_000 + row,
            "urgency": URGENCIES[row // 3 % 2],
            "issue": ISSUES[row % 3],
            "status": "open",
        }
        for row in range(number)
    ]


def write(path: Path, content: Iterable[Mapping[str, Any]]) -> str:
    """Writes rows as what the file's name says, and returns the name."""
    found = [dict(row) for row in content]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(found), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(path)


def config(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """The null configuration, whose tickets also keep their labels."""
    return tree(**{"store__path": str(tmp_path / "store")} | changes)
